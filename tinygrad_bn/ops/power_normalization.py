"""Power normalization as an operation, with the backward pass that its paper defines for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, current
from tinygrad_bn.ops.batch_normalization import (
    FixedBatchNorm,
    as_met,
    by_channel,
    by_position,
)
from tinygrad_bn.ops.moments import (
    batch_grad_input,
    batch_grad_sums,
    batch_moments,
    batch_normalize,
    wide,
)

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class PowerNormalization(Function):
    """x over its quadratic mean ψ for each channel along ``axis``; the batch's ψ² and 1/ψ come
    along, each (C,).

    While ``warm`` is true ψ² is the batch's, and backward is the derivative. Later ψ² is the
    running one, from before this batch, which no gradient could go through: in the place of what
    would, mean(g x̂) of this batch, stands ν, its average over the batches before.
    """

    auxiliary = True

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        mask: Array | None,
        running: Array,
        nu: Array,
        warm: Array,
        *,
        eps: float,
        axis: int,
        count: int,
    ) -> tuple[Array, Array, Array]:
        xp = self.xp
        self.shape, self.axis, self.count = x.shape, axis, count
        x, self.mask = by_channel(xp, x, axis), by_position(xp, mask, axis)
        mean, var = batch_moments(self.backend, x, self.mask)
        square = var + xp.square(mean)
        rstd = 1 / xp.sqrt(xp.where(warm, square, wide(self.backend, running)) + eps)
        self.x, self.weight, self.rstd, self.nu, self.warm = x, weight, rstd, nu, warm
        self.zero = xp.zeros_like(rstd)
        y = batch_normalize(self.backend, x, self.zero, rstd, weight, bias)
        return xp.reshape(y, self.shape), square, rstd

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        xp, x, dy = self.xp, self.x, by_channel(self.xp, dy, self.axis)
        zero, rstd, g = self.zero, self.rstd, dy
        dbias, dweight = batch_grad_sums(self.backend, dy, x, zero, rstd, self.mask)
        mean_g_x_hat = dweight / max(self.count, 1)
        if self.weight is not None:
            weight = wide(self.backend, self.weight)
            g = wide(self.backend, dy) if dy.dtype.itemsize == 2 else dy  # to be rounded once
            g = batch_normalize(self.backend, g, zero, weight, None, None)  # γ (dy - 0)
            mean_g_x_hat = mean_g_x_hat * weight
        share = xp.where(self.warm, mean_g_x_hat, wide(self.backend, self.nu))
        dx = batch_grad_input(self.backend, g, x, zero, rstd, None, zero, share, self.mask)
        return xp.reshape(dx, self.shape), dweight, dbias, None, None, None, None


def power_normalized(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    running: Tensor,
    nu: Tensor,
    warm: Tensor,
    *,
    eps: float,
    axis: int,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The input over its quadratic mean, the batch's ψ² and the 1/ψ that was taken; what comes in
    has been checked.
    """
    return PowerNormalization.apply(  # type: ignore[no-any-return]
        input, weight, bias, mask, running, nu, warm, eps=eps, axis=axis, count=count
    )


def power_normalized_by_running(
    input: Tensor,
    running: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    axis: int,
) -> Tensor:
    """The input over a running quadratic mean, of which its square is given; what comes in has been
    checked.
    """
    (running,) = as_met(running)
    with current(running.backend):
        zero = running.wrap_like(running.backend.xp.zeros_like(running.array))
    return FixedBatchNorm.apply(  # type: ignore[no-any-return]
        input, zero, running, weight, bias, eps=eps, axis=axis
    )


def moved_nu(
    nu: Tensor,
    rate: float,
    dy: Tensor,
    input: Tensor,
    weight: Tensor | None,
    mask: Tensor | None,
    square: Tensor,
    rstd: Tensor,
    *,
    axis: int,
    count: int,
) -> Array:
    """ν (1 - rate Γ) + rate Λ, where Γ = mean(x̂²) and Λ = mean(γ dy x̂); channels in which that is
    not finite keep their ν.
    """
    backend, kept = nu.backend, None if mask is None else mask.array
    xp = backend.xp
    with current(backend):
        x, g = by_channel(xp, input.array, axis), by_channel(xp, dy.array, axis)
        zero, kept = xp.zeros_like(rstd.array), by_position(xp, kept, axis)
        _, total = batch_grad_sums(backend, g, x, zero, rstd.array, kept)
        if weight is not None:
            total = total * wide(backend, weight.array)
        gamma, known = square.array * xp.square(rstd.array), wide(backend, nu.array)
        moved = known * (1 - rate * gamma) + total * (rate / max(count, 1))
        return xp.where(xp.isfinite(moved), moved, known)
