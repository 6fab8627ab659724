"""Mean-only batch normalization as operations: batch norm whose variance is 1 by decree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, current
from tinygrad_bn.ops.batch_normalization import (
    FixedBatchNorm,
    Moments,
    as_met,
    by_channel,
    by_position,
)
from tinygrad_bn.ops.moments import batch_moments, batch_normalize, column, every_channel, wide

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class MeanCentring(Function):
    """x less its mean for each channel along ``axis``, plus a bias; mean and biased variance come
    along, each (C,).
    """

    auxiliary = True

    def forward(
        self, x: Array, bias: Array | None, mask: Array | None, *, axis: int, count: int
    ) -> tuple[Array, Array, Array]:
        xp = self.xp
        self.shape, self.axis, self.count = x.shape, axis, count
        x, self.mask = by_channel(xp, x, axis), by_position(xp, mask, axis)
        mean, var = batch_moments(self.backend, x, self.mask)
        self.one = xp.ones_like(mean)
        y = batch_normalize(self.backend, x, mean, self.one, None, bias)
        return xp.reshape(y, self.shape), mean, var

    def backward(self, dy: Array, /) -> tuple[Array, Array, None]:
        xp, dy = self.xp, by_channel(self.xp, dy, self.axis)
        if self.mask is None:  # centring is its own adjoint
            mean_dy, _ = batch_moments(self.backend, dy, None)
            dx = batch_normalize(self.backend, dy, mean_dy, self.one, None, None)
            return xp.reshape(dx, self.shape), mean_dy * self.count, None
        dbias = xp.sum(wide(self.backend, dy), axis=(0, 2))
        mean_dy = xp.where(every_channel(xp, self.mask), column(xp, dbias / self.count), 0)
        dx = xp.astype(wide(self.backend, dy) - mean_dy, dy.dtype)
        return xp.reshape(dx, self.shape), dbias, None


def centred_by_batch(
    input: Tensor, bias: Tensor | None, mask: Tensor | None, *, axis: int, count: int
) -> tuple[Tensor, Moments]:
    """The input less the mean of its batch, and the moments; what comes in has been checked."""
    y, mean, var = MeanCentring.apply(input, bias, mask, axis=axis, count=count)
    return y, Moments(mean, var, count)


def centred_by_running(input: Tensor, mean: Tensor, bias: Tensor | None, *, axis: int) -> Tensor:
    """The input less a running mean; what comes in has been checked."""
    (mean,) = as_met(mean)
    with current(mean.backend):
        ones = mean.wrap_like(mean.backend.xp.ones_like(mean.array))
    return FixedBatchNorm.apply(  # type: ignore[no-any-return]
        input, mean, ones, None, bias, eps=0.0, axis=axis
    )
