"""Batch norm with something added to its result, and the ReLU of the sum: what ends a block of a
residual network, as one operation.

References
----------
He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385,
equation 1 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.batch_normalization import Moments, by_channel
from tinygrad_bn.ops.moments import batch_normalize
from tinygrad_bn.ops.whole_norms import whole_batch_norm, whole_batch_norm_grad

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


@kernel_point
def whole_residual_norm(
    backend: Backend,
    x: Array,
    residual: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    eps: float,
) -> tuple[Array, Array, Array, Array]:
    """max(y + residual, 0) for the y that `whole_batch_norm` makes of x (N, C, S), and what that
    returns besides.
    """
    y, *statistics = whole_batch_norm(backend, x, weight, bias, mask, eps, False)
    return backend.xp.maximum(y + residual, 0), *statistics


@kernel_point
def whole_residual_norm_grad(
    backend: Backend,
    dy: Array,
    x: Array,
    residual: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    count: int,
) -> tuple[Array, Array, Array, Array]:
    """The gradients of x, of the residual, of β and of γ; the sum is computed once more."""
    y = batch_normalize(backend, x, mean, rstd, weight, bias)
    through = dy * (y + residual > 0)
    known = x, mean, rstd, weight, bias, mask, count, False
    dx, dbias, dweight = whole_batch_norm_grad(backend, through, *known)
    return dx, through, dbias, dweight


class ResidualBatchNorm(Function):
    """max(y + residual, 0) for x by its own statistics, of each channel along ``axis``; mean and
    biased variance come along, each (C,).
    """

    auxiliary = True

    def forward(
        self,
        x: Array,
        residual: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        eps: float,
        axis: int,
        count: int,
    ) -> tuple[Array, Array, Array]:
        xp, self.shape, self.axis, self.count = self.xp, x.shape, axis, count
        self.x, self.residual = by_channel(xp, x, axis), by_channel(xp, residual, axis)
        self.weight, self.bias = weight, bias
        y, self.mean, var, self.rstd = whole_residual_norm(
            self.backend, self.x, self.residual, weight, bias, None, eps
        )
        return xp.reshape(y, self.shape), self.mean, var

    def wrapped(self, source: Any, results: Any, tracked: bool) -> Any:
        """A tensor, and the moments as arrays."""
        y, mean, var = results
        return self.made(y, tracked), mean, var

    def backward(self, dy: Array, /) -> tuple[Array, Array, Array, Array]:
        xp, kept = self.xp, (self.x, self.residual, self.mean, self.rstd, self.weight, self.bias)
        dx, dresidual, dbias, dweight = whole_residual_norm_grad(
            self.backend, by_channel(xp, dy, self.axis), *kept, None, self.count
        )
        return xp.reshape(dx, self.shape), xp.reshape(dresidual, self.shape), dweight, dbias


def residual_norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    axis: int,
    counts: Sequence[int],
) -> tuple[Tensor, Moments]:
    """max(y + residual, 0) for the input y by the statistics of its batch, and those; what comes in
    has been checked, and the residual is of the input's shape and dtype.
    """
    count = sum(counts)
    y, mean, var = ResidualBatchNorm.apply(
        input, residual, weight, bias, eps=eps, axis=axis, count=count
    )
    return y, Moments.of(input.backend, mean, var, count)
