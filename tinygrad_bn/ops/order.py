"""The greatest and the smallest: their values, where they are, and all elements in order.

NaN counts as greater than every number, and equal elements keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.elementwise import maximum, minimum, without_gradient
from tinygrad_bn.ops.placement import gather
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.reduce import count_of, kept, reduced
from tinygrad_bn.ops.shape import axes, one_axis, reshape, squeeze

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "amax",
    "amin",
    "argmax",
    "argmin",
    "argsort",
    "max",
    "min",
    "sort",
    "topk",
]


class ValuesAndIndices(NamedTuple):
    """Chosen elements along an axis, and where they were."""

    values: Tensor
    indices: Tensor


class Extreme(Function):
    """The greatest, or the smallest, over some axes; equal ones share the gradient evenly."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool, word: str) -> Array:
        self.x, self.dims = x, dims
        self.y = getattr(self.xp, word)(x, axis=dims, keepdims=True)
        return self.xp.reshape(self.y, reduced(x.shape, dims, keepdim))

    def backward(self, dy: Array, /) -> Array:
        xp, x = self.xp, self.x
        chosen = xp.logical_or(x == self.y, xp.isnan(x))
        share = xp.astype(chosen, self.backend.accumulator(x.dtype))
        dy = xp.reshape(dy, kept(x.shape, self.dims))
        return share * (dy / xp.sum(share, axis=self.dims, keepdims=True))


def require_elements(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    """Refuse to choose among no elements."""
    if not count_of(shape, dims):
        raise ShapeError(f"expected elements along the axes {dims}, got shape {shape}")


def extreme(input: Tensor, dim: int | Sequence[int] | None, keepdim: bool, word: str) -> Tensor:
    require_tensor(input)
    dims = axes(dim, input.array.ndim)
    require_elements(input.array.shape, dims)
    return Extreme.apply(input, dims=dims, keepdim=keepdim, word=word)  # type: ignore[no-any-return]


def amax(input: Tensor, dim: int | Sequence[int] | None = (), keepdim: bool = False) -> Tensor:
    """The greatest over ``dim``, over all axes by default; equal ones share the gradient evenly."""
    return extreme(input, dim, keepdim, "max")


def amin(input: Tensor, dim: int | Sequence[int] | None = (), keepdim: bool = False) -> Tensor:
    """The smallest over ``dim``, over all axes by default; equal ones share the gradient evenly."""
    return extreme(input, dim, keepdim, "min")


def position(input: Tensor, dim: int | None, keepdim: bool, word: str) -> Tensor:
    """Where the first of the greatest, or of the smallest, is."""
    require_tensor(input)
    shape, ndim = input.array.shape, input.array.ndim
    function = getattr(input.backend.xp, word)
    if dim is None or not ndim:
        require_elements(shape, tuple(range(ndim)))
        found = without_gradient(function, input)
        return reshape(found, (1,) * ndim) if keepdim else found
    at = one_axis(dim, ndim)
    require_elements(shape, (at,))
    return without_gradient(lambda x: function(x, axis=at, keepdims=keepdim), input)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the first of the greatest is, along ``dim`` or in the flattened tensor; int64."""
    return position(input, dim, keepdim, "argmax")


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the first of the smallest is, along ``dim`` or in the flattened tensor; int64."""
    return position(input, dim, keepdim, "argmin")


def chosen(input: Tensor, dim: int, indices: Tensor) -> ValuesAndIndices:
    """The elements at ``indices`` along an axis; the gradient goes to them alone."""
    return ValuesAndIndices(
        gather(input, dim, indices) if input.array.ndim else input.clone(), indices
    )


def first(input: Tensor, dim: int, keepdim: bool, word: str) -> ValuesAndIndices:
    require_tensor(input)
    at = one_axis(dim, input.array.ndim)
    found = chosen(input, at, position(input, at, True, word))
    if keepdim or not input.array.ndim:
        return found
    return ValuesAndIndices(squeeze(found.values, at), squeeze(found.indices, at))


def max(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False
) -> Tensor | ValuesAndIndices:
    """The greatest element; along ``dim``, with where it is; of two tensors, pair by pair.

    Over all elements equal ones share the gradient evenly; along ``dim`` the first gets it.
    """
    if isinstance(dim, Variable):
        return maximum(input, dim)
    return amax(input, None, keepdim) if dim is None else first(input, dim, keepdim, "argmax")


def min(
    input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False
) -> Tensor | ValuesAndIndices:
    """The smallest element; along ``dim``, with where it is; of two tensors, pair by pair.

    Over all elements equal ones share the gradient evenly; along ``dim`` the first gets it.
    """
    if isinstance(dim, Variable):
        return minimum(input, dim)
    return amin(input, None, keepdim) if dim is None else first(input, dim, keepdim, "argmin")


def ranking(input: Tensor, dim: int, descending: bool, count: int | None = None) -> Tensor:
    """Where the elements along ``dim`` are, in order: the first ``count``, or all."""
    xp, size = input.backend.xp, input.array.shape[dim]

    def order(x: Array) -> Array:
        if not descending:
            found = xp.argsort(x, axis=dim, kind="stable")
        else:  # sorting the reverse leaves equal elements in order when it is turned round
            found = xp.argsort(xp.flip(x, axis=dim), axis=dim, kind="stable")
            found = size - 1 - xp.flip(found, axis=dim)
        return found[(slice(None),) * dim + (slice(count),)]

    return without_gradient(order, input)


def argsort(
    input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> Tensor:
    """The indices that put the elements along ``dim`` in order; always stable."""
    require_tensor(input)
    at = one_axis(dim, input.array.ndim)
    if not input.array.ndim:
        return position(input, None, False, "argmax")
    return ranking(input, at, descending)


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> ValuesAndIndices:
    """The elements along ``dim`` in order, and where they were; always stable."""
    indices = argsort(input, dim, descending)
    return chosen(input, one_axis(dim, input.array.ndim), indices)


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesAndIndices:
    """The ``k`` greatest (or smallest) along ``dim``, and where they are; always in order.

    Raises
    ------
    ArgumentError
        If there are fewer than ``k``.
    """
    require_tensor(input)
    at = one_axis(dim, input.array.ndim)
    size = input.array.shape[at] if input.array.ndim else 1
    if not 0 <= k <= size:
        raise ArgumentError(f"expected k within [0, {size}], got {k}")
    if not input.array.ndim:
        return chosen(input, at, position(input, None, False, "argmax"))
    return chosen(input, at, ranking(input, at, largest, k))
