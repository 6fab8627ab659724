"""Rows taken at an index that names none of them twice, as packing and padding do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class TakeRows(Function):
    """The rows of x at an index, with rows of ``fill`` where it is -1.

    The index names no row twice, so that the gradient takes rows too, at the ``inverse``: for each
    row of x its place in the result, or -1.
    """

    def forward(self, x: Array, *, index: Array, inverse: Array, fill: float = 0.0) -> Array:
        self.index, self.inverse = index, inverse
        return taken(self.xp, x, index, fill)

    def backward(self, dy: Array, /) -> Array:
        return taken(self.xp, dy, self.inverse, 0.0)


def taken(xp: Any, x: Array, index: Array, fill: float) -> Array:
    """The rows of x and, behind them as row -1, one of ``fill``, at an index."""
    last = xp.full((1, *x.shape[1:]), fill, dtype=x.dtype)
    return xp.concatenate([x, last], axis=0)[(index,)]


def take_rows(x: Tensor, index: Any, inverse: Any, fill: float = 0.0) -> Tensor:
    """`TakeRows` with an index that is known on the host."""
    there = [x.backend.asarray(rows) for rows in (index, inverse)]
    return TakeRows.apply(x, index=there[0], inverse=there[1], fill=fill)  # type: ignore[no-any-return]
