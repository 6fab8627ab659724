"""Reductions: many elements to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.dtypes import as_dtype, int64
from tinygrad_bn.errors import DtypeError
from tinygrad_bn.ops.promotion import cast, is_floating, require_tensor
from tinygrad_bn.ops.shape import axes

if TYPE_CHECKING:
    from tinygrad_bn.tensor import Tensor

__all__ = [
    "mean",
    "sum",
]


def kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced axes as 1."""
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


class Sum(Function):
    """The sum over some axes."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        self.shape, self.dims = x.shape, dims
        return self.xp.sum(x, axis=dims, keepdims=keepdim)

    def backward(self, dy: Array, /) -> Array:
        dy = self.xp.reshape(dy, kept(self.shape, self.dims))
        return self.xp.broadcast_to(dy, self.shape)


class Mean(Function):
    """The mean over some axes."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        self.shape, self.dims = x.shape, dims
        return self.xp.mean(x, axis=dims, keepdims=keepdim)

    def backward(self, dy: Array, /) -> Array:
        count = 1
        for i in self.dims:
            count *= self.shape[i]
        dy = self.xp.reshape(dy, kept(self.shape, self.dims))
        return self.xp.broadcast_to(dy / max(count, 1), self.shape)


def sum(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The sum over ``dim``, over all axes by default; of integers and booleans in int64."""
    require_tensor(input)
    if dtype is not None:
        input = cast(input, as_dtype(dtype))
    elif not is_floating(input.array.dtype):
        input = cast(input, int64)
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
