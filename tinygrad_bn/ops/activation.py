"""Smooth functions of each element: activations, one node each.

``inplace``, which PyTorch's have, is accepted and has no effect: the result is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.curves import (
    Curve,
    Elu,
    Gelu,
    GeluTanh,
    LogSigmoid,
    Mish,
    Silu,
    Softplus,
    Softsign,
    curve_grad,
    curve_value,
)
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.promotion import is_floating, require_tensor
from tinygrad_bn.ops.shape import one_axis
from tinygrad_bn.ops.trigonometry import tanh

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class Activation(Function):
    """A curve, for each element by itself; it sees float32 or wider."""

    def forward(self, x: Array, *, curve: Curve) -> Array:
        self.x, self.curve = x, curve
        return narrow(self.xp, curve_value(self.backend, wide(self.xp, x), curve), x)

    def backward(self, dy: Array, /) -> Array:
        xp = self.xp
        return curve_grad(self.backend, wide(xp, dy), wide(xp, self.x), self.curve)

    @property
    def name(self) -> str:
        """What the curve is called."""
        return type(self.__dict__.get("curve", self)).__name__  # a freed node has none any more


def require_floats(input: Tensor, operation: str) -> None:
    """Refuse what is not a tensor of floats: an activation does not convert in silence."""
    require_tensor(input)
    if not is_floating(input.array.dtype):
        raise DtypeError(f"expected floats for {operation}, got {input.array.dtype}")


def activate(curve: Curve, input: Tensor) -> Tensor:
    """The curve's values at the input's elements."""
    require_floats(input, type(curve).__name__.lower())
    return Activation.apply(input, curve=curve)  # type: ignore[no-any-return]


class Glu(Function):
    """a σ(b) for the halves a and b of x."""

    def forward(self, x: Array, *, dim: int) -> Array:
        self.x, self.dim = x, dim
        a, b = self.halves()
        return narrow(self.xp, a * self.xp.sigmoid(b), x)

    def backward(self, dy: Array, /) -> Array:
        a, b = self.halves()
        dy, s = wide(self.xp, dy), self.xp.sigmoid(b)
        return self.xp.concatenate([dy * s, dy * a * s * (1 - s)], axis=self.dim)

    def halves(self) -> tuple[Array, Array]:
        x, leading = wide(self.xp, self.x), (slice(None),) * self.dim
        half = x.shape[self.dim] // 2
        return x[(*leading, slice(half))], x[(*leading, slice(half, None))]


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, alpha * (exp(input) - 1) elsewhere."""
    return activate(Elu(alpha, 1.0, 1.0), input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, alpha * (exp(input / alpha) - 1) elsewhere."""
    if not alpha:
        raise ArgumentError("expected alpha other than 0, got 0")
    return activate(Elu(alpha, 1.0, 1 / alpha), input)


SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """An ELU, scaled so that mean 0 and variance 1 are its fixed point."""
    return activate(Elu(SELU_ALPHA, SELU_SCALE, 1.0), input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Φ(input), with the normal distribution function Φ, or its ``"tanh"`` estimate."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"expected approximate 'none' or 'tanh', got {approximate!r}")
    return activate(Gelu() if approximate == "none" else GeluTanh(), input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    return activate(Silu(), input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input))."""
    return activate(Mish(), input)


@under_autocast
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta; input itself where beta * input > threshold."""
    if not beta:
        raise ArgumentError("expected beta other than 0, got 0")
    return activate(Softplus(beta, threshold), input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), exact to rounding in both tails."""
    return activate(LogSigmoid(), input)


def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    return activate(Softsign(), input)


def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    require_floats(input, "tanhshrink")
    return input - tanh(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the two halves a and b of input along dim."""
    require_floats(input, "glu")
    at = one_axis(dim, input.ndim)
    if not input.ndim or input.shape[at] % 2:
        raise ShapeError(f"expected an even size along axis {dim}, got {input.shape}")
    return Glu.apply(input, dim=at)  # type: ignore[no-any-return]
