"""Filter response normalization as an operation, with an ε that may be learned."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array
from tinygrad_bn.ops.moments import wide
from tinygrad_bn.ops.row_moments import each_channel, standardized_rows
from tinygrad_bn.ops.row_normalization import RowNorm


class FilterResponse(RowNorm):
    """γ x / √(ν² + ε + |ε_l|) + β with the mean square ν² of each row of x, seen as ``rows``
    (N, G, K, S); ε_l holds one number, or is None.
    """

    def forward(  # type: ignore[override]  # one input more
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        learned: Array | None,
        *,
        rows: tuple[int, int, int, int],
        eps: float,
    ) -> Array:
        self.learned, total = learned, eps
        if learned is not None:
            total = self.xp.abs(wide(self.backend, learned)) + eps
        return super().forward(x, weight, bias, rows=rows, eps=total, centred=False)

    def backward(self, dy: Array, /) -> Any:
        grads, dlearned = super().backward(dy), None
        if self.needs[3]:
            xp, g = self.xp, wide(self.backend, self.xp.reshape(dy, self.rows))
            if self.weight is not None:
                g = g * each_channel(xp, wide(self.backend, self.weight))
            x_hat = standardized_rows(self.backend, self.x, None, self.rstd)
            dvar = xp.sum(g * x_hat, axis=(2, 3)) * xp.square(self.rstd) * -0.5
            dlearned = xp.sum(dvar) * xp.sign(self.learned)
        return *grads, dlearned
