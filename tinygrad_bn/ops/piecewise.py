"""Activations made of straight pieces; at a kink the derivative is the one PyTorch takes.

``inplace``, which PyTorch's have, is accepted and has no effect: the result is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.curves import (
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyRelu,
    Softshrink,
    Threshold,
)
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops import dense
from tinygrad_bn.ops.activation import activate, require_floats
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.promotion import require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["relu"]


class Relu(Function):
    """max(x, 0)."""

    def forward(self, x: Array) -> Array:
        y = self.y = dense.relu(self.backend, x)
        return y

    def backward(self, dy: Array, /) -> Array:
        return dense.relu_grad(self.backend, dy, self.y)


class Prelu(Function):
    """x where it is positive, w x elsewhere; w broadcasts."""

    broadcasts = True

    def forward(self, x: Array, w: Array) -> Array:
        self.x, self.w = x, w
        x, w = wide(self.xp, x), wide(self.xp, w)
        return narrow(self.xp, self.xp.where(x > 0, x, w * x), self.x)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        xp = self.xp
        dy, x, w = wide(xp, dy), wide(xp, self.x), wide(xp, self.w)
        return (
            xp.where(x > 0, dy, w * dy) if self.needs[0] else None,
            xp.minimum(x, 0) * dy if self.needs[1] else None,
        )


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0), of floats or integers."""
    require_tensor(input)
    if input.array.dtype.kind == "b":
        raise DtypeError("expected numbers for relu, got bool")
    return Relu.apply(input)  # type: ignore[no-any-return]


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where it is positive, negative_slope * input elsewhere."""
    return activate(LeakyRelu(negative_slope), input)


@under_autocast
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """input where it is positive, weight * input elsewhere.

    Shapes
    ------
    input: (N, C, *S) and weight (C,) or (1,); or input (*) and weight (1,).
    """
    require_floats(input, "prelu")
    require_floats(weight, "prelu")
    if weight.dtype != input.dtype:
        raise DtypeError(f"expected the weight in {input.dtype}, as the input, got {weight.dtype}")
    count, shape = weight.numel(), input.shape
    channels = shape[1] if len(shape) > 1 else 1
    if weight.ndim > 1 or count not in (1, channels):
        raise ShapeError(f"expected a weight (1,) or ({channels},) for {shape}, got {weight.shape}")
    along = (count, *(1,) * (len(shape) - 2)) if shape else ()
    return Prelu.apply(input, weight.reshape(along))  # type: ignore[no-any-return]


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """input held within [min_val, max_val]."""
    if min_val > max_val:
        raise ArgumentError(f"expected min_val ≤ max_val, got {min_val} and {max_val}")
    return activate(Hardtanh(min_val, max_val), input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """input held within [0, 6]."""
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """(input + 3) / 6 held within [0, 1]."""
    return activate(Hardsigmoid(), input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * hardsigmoid(input)."""
    return activate(Hardswish(), input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved towards 0 by lambd, and 0 where that would pass it."""
    if lambd < 0:
        raise ArgumentError(f"expected lambd ≥ 0, got {lambd}")
    return activate(Softshrink(lambd), input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input, and 0 where |input| ≤ lambd."""
    return activate(Hardshrink(lambd), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is above the threshold, value elsewhere."""
    return activate(Threshold(threshold, value), input)
