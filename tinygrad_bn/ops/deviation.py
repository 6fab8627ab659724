"""√(var + ε) of channels and of rows, by the phases of batch norm and of layer norm: what norms
divide by that are no difference from the mean.
"""

from __future__ import annotations

import math

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.ops.batch_normalization import by_channel
from tinygrad_bn.ops.moments import batch_moments, batch_normalize, wide
from tinygrad_bn.ops.row_moments import row_moments, row_normalize


class BatchDeviation(Function):
    """√(var + ε) of each channel of x (N, C, *S) over the batch, (C,) in the dtype of x; mean and
    biased variance come along.
    """

    auxiliary = True

    def forward(self, x: Array, *, eps: float) -> tuple[Array, Array, Array]:
        xp, self.shape = self.xp, x.shape
        self.x = by_channel(xp, x, 1)
        self.mean, var = batch_moments(self.backend, self.x, None)
        self.y = xp.sqrt(var + eps)
        return xp.astype(self.y, x.dtype), self.mean, var

    def backward(self, dy: Array, /) -> Array:
        n, _, space = self.x.shape
        scale = wide(self.backend, dy) / (self.y * (n * space))
        dx = batch_normalize(self.backend, self.x, self.mean, scale, None, None)
        return self.xp.reshape(dx, self.shape)


class RowDeviation(Function):
    """√(var + ε) of each row of x, seen as ``rows`` (N, G, K, S): (N, G) in the dtype of x."""

    def forward(self, x: Array, *, rows: tuple[int, int, int, int], eps: float) -> Array:
        xp, self.shape = self.xp, x.shape
        self.x = xp.reshape(x, rows)
        self.mean, var = row_moments(self.backend, self.x)
        self.y = xp.sqrt(var + eps)
        return xp.astype(self.y, x.dtype)

    def backward(self, dy: Array, /) -> Array:
        scale = wide(self.backend, dy) / (self.y * math.prod(self.x.shape[2:]))
        dx = row_normalize(self.backend, self.x, self.mean, scale, None, None)
        return self.xp.reshape(dx, self.shape)
