"""Normalization as operations: the phases of ``moments.py`` with shapes, gradients and running
statistics around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, current
from tinygrad_bn.config import recomputing
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.moments import (
    batch_grad_input,
    batch_grad_sums,
    batch_moments,
    batch_normalize,
    column,
    moving_average,
    row_grad_input,
    row_grad_sums,
    row_moments,
    row_normalize,
    wide,
)
from tinygrad_bn.ops.promotion import is_floating, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def by_channel(xp: Any, x: Array) -> Array:
    """x (N, C, *S) as (N, C, S)."""
    n, c, *space = x.shape
    return xp.reshape(x, (n, c, math.prod(space)))


class BatchNorm(Function):
    """x (N, C, *S) by its own statistics; mean and biased variance come along, each (C,)."""

    auxiliary = True

    def forward(
        self, x: Array, weight: Array | None, bias: Array | None, *, eps: float
    ) -> tuple[Array, Array, Array]:
        self.shape, x = x.shape, by_channel(self.xp, x)
        mean, var = batch_moments(self.backend, x)
        rstd = 1 / self.xp.sqrt(var + eps)
        self.x, self.weight, self.mean, self.rstd = x, weight, mean, rstd
        y = batch_normalize(self.backend, x, mean, rstd, weight, bias)
        return self.xp.reshape(y, self.shape), mean, var

    def backward(self, dy: Array, /) -> tuple[Array | None, Array, Array]:
        x, mean, rstd, dy = self.x, self.mean, self.rstd, by_channel(self.xp, dy)
        dbias, dweight = batch_grad_sums(self.backend, dy, x, mean, rstd)
        if not self.needs[0]:
            return None, dweight, dbias
        count = x.shape[0] * x.shape[2]
        dx = batch_grad_input(
            self.backend, dy, x, mean, rstd, self.weight, dbias / count, dweight / count
        )
        return self.xp.reshape(dx, self.shape), dweight, dbias


class FixedBatchNorm(Function):
    """x (N, C, *S) by given statistics, such as the running ones."""

    def forward(
        self,
        x: Array,
        mean: Array,
        var: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        eps: float,
    ) -> Array:
        self.shape, x = x.shape, by_channel(self.xp, x)
        mean = wide(self.backend, mean)
        rstd = 1 / self.xp.sqrt(wide(self.backend, var) + eps)
        self.x, self.weight, self.mean, self.rstd = x, weight, mean, rstd
        y = batch_normalize(self.backend, x, mean, rstd, weight, bias)
        return self.xp.reshape(y, self.shape)

    def backward(self, dy: Array, /) -> tuple[Array, None, None, Array | None, Array | None]:
        xp, dy = self.xp, by_channel(self.xp, dy)
        scale = self.rstd if self.weight is None else self.rstd * wide(self.backend, self.weight)
        dx = xp.astype(wide(self.backend, dy) * column(xp, scale), self.x.dtype)
        dbias = dweight = None
        if self.needs[3] or self.needs[4]:
            dbias, dweight = batch_grad_sums(self.backend, dy, self.x, self.mean, self.rstd)
        return xp.reshape(dx, self.shape), None, None, dweight, dbias


class LayerNorm(Function):
    """The trailing axes of x by their own statistics, ``size`` elements at a time; γ and β have
    their shape.
    """

    def forward(
        self, x: Array, weight: Array | None, bias: Array | None, *, size: int, eps: float
    ) -> Array:
        xp = self.xp
        self.shape = x.shape
        self.rows = (math.prod(x.shape) // size, size)
        x = xp.reshape(x, self.rows)
        self.affine_shape = None if weight is None else weight.shape
        weight = None if weight is None else xp.reshape(weight, (size,))
        bias = None if bias is None else xp.reshape(bias, (size,))
        mean, var = row_moments(self.backend, x)
        rstd = 1 / xp.sqrt(var + eps)
        self.x, self.weight, self.mean, self.rstd = x, weight, mean, rstd
        return xp.reshape(row_normalize(self.backend, x, mean, rstd, weight, bias), self.shape)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None, Array | None]:
        xp, dy = self.xp, self.xp.reshape(dy, self.rows)
        kept = (self.x, self.mean, self.rstd)
        dx = dweight = dbias = None
        if self.needs[0]:
            dx = xp.reshape(row_grad_input(self.backend, dy, *kept, self.weight), self.shape)
        if self.needs[1] or self.needs[2]:
            sums = row_grad_sums(self.backend, dy, *kept)
            dbias, dweight = (xp.reshape(s, self.affine_shape) for s in sums)
        return dx, dweight, dbias


def require_floats(x: Any, name: str = "input") -> None:
    require_tensor(x, name)
    if not is_floating(x.array.dtype):
        raise DtypeError(f"expected floats as {name}, got {x.array.dtype}")


def require_channels(channels: int, **tensors: Any) -> None:
    """Refuse vectors that do not have one value for each channel."""
    for name, x in tensors.items():
        if x is not None and x.shape != (channels,):
            raise ShapeError(f"expected {name} of shape ({channels},), got {x.shape}")


def require_eps(eps: float, training: bool = False) -> None:
    """Refuse an ε below 0; also 0 itself in ``training``."""
    if not (eps > 0 if training else eps >= 0):
        raise ArgumentError(f"expected eps {'> 0 in training' if training else '≥ 0'}, got {eps}")


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β for each channel; by the batch's statistics in training, else
    by the running ones.

    In training the running statistics, where given, move towards the batch's by ``momentum``, in
    place; the variance they see is the unbiased one.

    Shapes
    ------
    input (N, C, *S); running_mean, running_var, weight, bias (C,); the result as input.

    Raises
    ------
    ShapeError
        For a rank below 2, vectors of another length than C, or less than two values a channel in
        training.
    ArgumentError
        If there are neither running statistics nor ``training``, or ε is negative, or 0 in
        training: a channel of equal values would be divided by it.

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
    """
    require_floats(input)
    if input.ndim < 2:
        raise ShapeError(f"expected (N, C, *S) of rank 2 or more, got {input.shape}")
    require_eps(eps, training)
    channels = input.shape[1]
    require_channels(
        channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("expected running_mean and running_var, or training=True")
        return FixedBatchNorm.apply(input, running_mean, running_var, weight, bias, eps=eps)  # type: ignore[no-any-return]
    count = require_several(input)
    y, mean, var = BatchNorm.apply(input, weight, bias, eps=eps)
    if not recomputing.get():
        if running_mean is not None:
            move_towards(running_mean, mean, momentum)
        if running_var is not None:
            move_towards(running_var, var, momentum, count / (count - 1))
    return y  # type: ignore[no-any-return]


def require_several(x: Tensor) -> int:
    """The number of values a channel, of which batch statistics need two.

    Raises
    ------
    ShapeError
        If there is but one, or none.
    """
    count = x.shape[0] * math.prod(x.shape[2:])
    if count < 2:
        raise ShapeError(
            f"expected more than one value for each channel in training, got {x.shape}: batch "
            "statistics of a single value are its own; use eval(), a larger batch, or drop_last"
        )
    return count


def move_towards(
    running: Tensor, value: Tensor, momentum: float | Tensor, scale: float = 1.0
) -> None:
    """running += momentum (scale · value - running), in place."""
    rate = momentum.array if isinstance(momentum, Variable) else momentum
    backend = running.backend
    with current(backend):
        moved = moving_average(backend, running.array, value.array, rate, scale)
    running.overwrite(moved)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β over the trailing axes, for each sample by itself.

    Shapes
    ------
    input (*, *normalized_shape); weight, bias normalized_shape; the result as input.

    Raises
    ------
    ShapeError
        If the input does not end in ``normalized_shape``, or weight or bias do not have it.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
    """
    require_floats(input)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"expected (*, {', '.join(map(str, shape))}) with at least one axis, got {input.shape}"
        )
    for name, x in (("weight", weight), ("bias", bias)):
        if x is not None and x.shape != shape:
            raise ShapeError(f"expected {name} of shape {shape}, got {x.shape}")
    if not math.prod(shape):
        return input.clone()  # there is nothing to normalise
    return LayerNorm.apply(input, weight, bias, size=math.prod(shape), eps=eps)  # type: ignore[no-any-return]
