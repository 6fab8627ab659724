"""Sums, products, and what is counted: over whole axes, or running along one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.dtypes import as_dtype, int64
from tinygrad_bn.errors import DtypeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import without_gradient
from tinygrad_bn.ops.join import concatenate
from tinygrad_bn.ops.promotion import cast, is_floating, require_tensor
from tinygrad_bn.ops.shape import axes, one_axis

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "all",
    "any",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "mean",
    "prod",
    "sum",
]


def kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced axes as 1."""
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def reduced(shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape of a reduction's result."""
    if keepdim:
        return kept(shape, dims)
    if len(dims) == len(shape):
        return ()
    return tuple(n for i, n in enumerate(shape) if i not in dims)


def count_of(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    """How many elements a reduction makes one of."""
    return math.prod(shape[i] for i in dims)


def accumulated(node: Function, word: str, x: Array, **where: Any) -> Array:
    """xp.sum, prod or cumsum of x in the dtype that the backend accumulates in, rounded once."""
    function, dtype = getattr(node.xp, word), x.dtype
    if not is_floating(dtype):
        return node.xp.astype(function(x, **where), dtype)  # which NumPy may have widened
    wide = node.backend.accumulator(dtype)
    if wide is dtype:
        return function(x, **where)
    return node.xp.astype(function(x, dtype=wide, **where), dtype)


class Sum(Function):
    """The sum over some axes."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        self.shape = x.shape
        y = accumulated(self, "sum", x, axis=dims, keepdims=True)  # a scalar of NumPy's is slow
        self.kept = y.shape
        return y if keepdim else self.xp.reshape(y, reduced(x.shape, dims, keepdim))

    def backward(self, dy: Array, /) -> Array:
        return self.xp.broadcast_to(self.xp.reshape(dy, self.kept), self.shape)


class Mean(Function):
    """The mean over some axes."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        self.shape, self.dims = x.shape, dims
        if not count_of(x.shape, dims):
            return self.xp.full(reduced(x.shape, dims, keepdim), math.nan, dtype=x.dtype)
        y = accumulated(self, "mean", x, axis=dims, keepdims=True)
        return y if keepdim else self.xp.reshape(y, reduced(x.shape, dims, keepdim))

    def backward(self, dy: Array, /) -> Array:
        dy = self.xp.reshape(dy, kept(self.shape, self.dims))
        count = count_of(self.shape, self.dims)
        return self.xp.broadcast_to(dy / max(count, 1), self.shape)


class Prod(Function):
    """The product over some axes.

    The gradient of a factor is the product of the others. It is computed as such, through a tree of
    partial products, since dividing the product by the factor means nothing where that is 0.
    """

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        self.x, self.dims = x, dims
        return accumulated(self, "prod", x, axis=dims, keepdims=keepdim)

    def backward(self, dy: Array, /) -> Array:
        xp, shape, dims = self.xp, self.x.shape, self.dims
        count = count_of(shape, dims)
        if not count:
            return xp.zeros_like(self.x)
        order = (*(i for i in range(len(shape)) if i not in dims), *dims)
        rows = reduced(shape, dims, keepdim=False)
        levels = [xp.reshape(xp.transpose(self.x, order), (*rows, count))]
        while levels[-1].shape[-1] > 1:
            left, right, rest = halves(levels[-1])
            levels.append(xp.concatenate([left * right, rest], axis=-1))
        dx = xp.reshape(dy, (*rows, 1))
        for x in reversed(levels[:-1]):
            left, right, rest = halves(x)
            both, last = dx[..., : left.shape[-1]], dx[..., left.shape[-1] :]
            dx = xp.concatenate([both * right, both * left, last], axis=-1)
        dx = xp.reshape(dx, tuple(shape[i] for i in order))
        return xp.transpose(dx, tuple(order.index(i) for i in range(len(shape))))


def halves(x: Array) -> tuple[Array, Array, Array]:
    """Two halves of the last axis, and the element that is left where its size is odd."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]


class CumSum(Function):
    """The running sum along an axis."""

    def forward(self, x: Array, *, dim: int) -> Array:
        self.dim = dim
        return accumulated(self, "cumsum", x, axis=dim)

    def backward(self, dy: Array, /) -> Array:
        xp, dim = self.xp, self.dim
        return xp.flip(xp.cumsum(xp.flip(dy, axis=dim), axis=dim), axis=dim)


def summable(input: Tensor, dtype: Any) -> Tensor:
    """The tensor in ``dtype`` where one is given; integers and booleans in int64."""
    require_tensor(input)
    if dtype is not None:
        return cast(input, as_dtype(dtype))  # type: ignore[no-any-return]
    return input if is_floating(input.array.dtype) else cast(input, int64)


@under_autocast
def sum(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The sum over ``dim``, over all axes by default; of integers and booleans in int64."""
    input = summable(input, dtype)
    return Sum.apply(input, dims=axes(dim, input.array.ndim), keepdim=keepdim)  # type: ignore[no-any-return]


def mean(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The mean over ``dim``, over all axes by default; NaN over no elements.

    Raises
    ------
    DtypeError
        For integers and booleans, whose mean has no dtype; give one.
    """
    require_tensor(input)
    if dtype is not None:
        input = cast(input, as_dtype(dtype))
    if not is_floating(input.array.dtype):
        raise DtypeError(
            f"expected floats to take the mean of, got {input.array.dtype}; give dtype="
        )
    return Mean.apply(input, dims=axes(dim, input.array.ndim), keepdim=keepdim)  # type: ignore[no-any-return]


@under_autocast
def prod(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The product over ``dim``, over all axes by default; of integers and booleans in int64."""
    input = summable(input, dtype)
    return Prod.apply(input, dims=axes(dim, input.array.ndim), keepdim=keepdim)  # type: ignore[no-any-return]


@under_autocast
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running sum along ``dim``; of integers and booleans in int64."""
    input = summable(input, dtype)
    at = one_axis(dim, input.array.ndim)
    return CumSum.apply(input, dim=at) if input.array.ndim else input.clone()


@under_autocast
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running product along ``dim``; of integers and booleans in int64.

    Notes
    -----
    Log n products of shifted copies, so that gradients of every order are right at zeros too.

    References
    ----------
    W. D. Hillis, G. L. Steele (1986), Data parallel algorithms.
    """
    input = summable(input, dtype)
    at, ndim, dtype = one_axis(dim, input.array.ndim), input.array.ndim, input.array.dtype
    y = cast(input, input.backend.accumulator(dtype)) if is_floating(dtype) else input
    shift, size = 1, input.array.shape[at] if ndim else 1
    while shift < size:
        first, others, before = (
            (slice(None),) * at + (part,)
            for part in (slice(shift), slice(shift, None), slice(-shift))
        )
        y = concatenate([y[first], y[others] * y[before]], at)
        shift *= 2
    return cast(y.clone() if y is input else y, dtype)  # type: ignore[no-any-return]


def all(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Whether every element over ``dim`` differs from 0; True of none."""
    return _logical("all", input, dim, keepdim)


def any(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Whether some element over ``dim`` differs from 0; False of none."""
    return _logical("any", input, dim, keepdim)


def _logical(word: str, input: Tensor, dim: int | Sequence[int] | None, keepdim: bool) -> Tensor:
    require_tensor(input)
    function, dims = getattr(input.backend.xp, word), axes(dim, input.array.ndim)
    return without_gradient(lambda x: function(x, axis=dims, keepdims=keepdim), input)


def count_nonzero(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """How many elements over ``dim`` differ from 0."""
    require_tensor(input)
    return sum(input != 0, dim)
