"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.engine import unbroadcast
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.ops.promotion import pair, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensor import Tensor

__all__ = [
    "matmul",
]


def transposed(xp: object, x: Array) -> Array:
    """The last two axes exchanged."""
    order = tuple(range(len(x.shape)))
    return xp.transpose(x, (*order[:-2], order[-1], order[-2]))  # type: ignore[attr-defined]


class MatMul(Function):
    """a @ b for ranks of at least 2; the leading axes broadcast."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.matmul(a, b)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        xp, a, b = self.xp, self.a, self.b
        da = xp.matmul(dy, transposed(xp, b)) if self.needs[0] else None
        db = xp.matmul(transposed(xp, a), dy) if self.needs[1] else None
        return (
            None if da is None else unbroadcast(xp, da, a.shape),
            None if db is None else unbroadcast(xp, db, b.shape),
        )


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, of stacks of them (leading axes broadcast), or with vectors.

    Shapes
    ------
    (..., n, k) @ (..., k, m) -> (..., n, m); a vector (k,) counts as a row on the left and a column on the right.
    """
    require_tensor(input)
    require_tensor(other, "other")
    a, b = pair(input, other)
    if not a.array.ndim or not b.array.ndim:
        raise ShapeError(f"expected ranks of at least 1, got {a.shape} @ {b.shape}")
    row, column = a.array.ndim == 1, b.array.ndim == 1
    if a.array.shape[-1] != b.array.shape[-1 if column else -2]:
        raise ShapeError(f"expected (..., n, k) @ (..., k, m), got {a.shape} @ {b.shape}")
    a = a.unsqueeze(0) if row else a
    b = b.unsqueeze(1) if column else b
    for m, n in zip(a.array.shape[-3::-1], b.array.shape[-3::-1], strict=False):
        if m != n and 1 not in (m, n):
            raise ShapeError(f"expected leading axes that broadcast, got {a.shape} @ {b.shape}")
    y: Tensor = MatMul.apply(a, b)
    if column:
        y = y.squeeze(-1)
    return y.squeeze(-1 if column else -2) if row else y
