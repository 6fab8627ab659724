"""Smooth activations: one function of each element and its derivative, in one node.

``inplace``, which PyTorch's have, is accepted and has no effect: the result is the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.promotion import is_floating, require_tensor
from tinygrad_bn.ops.shape import one_axis
from tinygrad_bn.ops.trigonometry import tanh

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class Activation(Function):
    """A function of each element by itself; subclasses write its value and its chain rule.

    They see float32 or wider.
    """

    def forward(self, x: Array, **options: Any) -> Array:
        self.x, self.options = x, options
        return narrow(self.xp, self.value(wide(self.xp, x), **options), x)

    def backward(self, dy: Array, /) -> Array:
        xp = self.xp
        return self.chain(wide(xp, dy), wide(xp, self.x), **self.options)

    def value(self, *x: Any, **options: Any) -> Array:
        """f(x)."""
        raise NotImplementedError

    def chain(self, *arrays: Any, **options: Any) -> Array:
        """dy f'(x), from dy and x."""
        raise NotImplementedError


def require_floats(input: Tensor, operation: str) -> None:
    """Refuse what is not a tensor of floats: an activation does not convert in silence."""
    require_tensor(input)
    if not is_floating(input.array.dtype):
        raise DtypeError(f"expected floats for {operation}, got {input.array.dtype}")


def activate(operation: type[Function], input: Tensor, **options: Any) -> Tensor:
    require_floats(input, operation.__name__.lower())
    return operation.apply(input, **options)  # type: ignore[no-any-return]


class Elu(Activation):
    """scale · x where it is positive, scale · alpha (exp(rate · x) - 1) elsewhere."""

    def value(self, x: Array, *, alpha: float, scale: float, rate: float) -> Array:
        xp = self.xp
        return scale * xp.where(x > 0, x, alpha * xp.expm1(rate * xp.minimum(x, 0)))

    def chain(self, dy: Array, x: Array, *, alpha: float, scale: float, rate: float) -> Array:
        xp = self.xp
        return scale * dy * xp.where(x > 0, 1.0, alpha * rate * xp.exp(rate * xp.minimum(x, 0)))


class Gelu(Activation):
    """x Φ(x), where Φ is the distribution function of the standard normal law."""

    def normal(self, x: Array) -> Array:
        return 0.5 * (1 + self.xp.erf(x * math.sqrt(0.5)))

    def value(self, x: Array) -> Array:
        return x * self.normal(x)

    def chain(self, dy: Array, x: Array) -> Array:
        x = self.xp.clip(x, -40, 40)  # where the derivative is 0 or 1, and x * x has no overflow
        density = self.xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return dy * (self.normal(x) + x * density)


class GeluTanh(Activation):
    """x Φ(x), with Φ approximated by (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2."""

    def curve(self, x: Array) -> Array:
        return self.xp.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))

    def value(self, x: Array) -> Array:
        return 0.5 * x * (1 + self.curve(self.xp.clip(x, -10, 10)))  # beyond, the tanh is ±1

    def chain(self, dy: Array, x: Array) -> Array:
        x = self.xp.clip(x, -10, 10)
        t = self.curve(x)
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return dy * 0.5 * ((1 + t) + x * (1 - t * t) * inner)


class Silu(Activation):
    """x σ(x)."""

    def value(self, x: Array) -> Array:
        return x * self.xp.sigmoid(x)

    def chain(self, dy: Array, x: Array) -> Array:
        s = self.xp.sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))


class Mish(Activation):
    """x tanh(log(1 + eˣ)), which is x n / (n + 2) for n = eˣ (eˣ + 2)."""

    def value(self, x: Array) -> Array:
        w = self.exponential(x)
        n = w * (w + 2)
        return x * (n / (n + 2))

    def chain(self, dy: Array, x: Array) -> Array:
        w = self.exponential(x)
        n = w * (w + 2)
        return dy * (n / (n + 2) + x * (4 * w * (w + 1) / ((n + 2) * (n + 2))))

    def exponential(self, x: Array) -> Array:
        return self.xp.exp(self.xp.minimum(x, 20))  # from where on n / (n + 2) is 1 to 1e-17


def log1p_exp(xp: Any, x: Array) -> Array:
    """log(1 + eˣ) without overflow."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


class Softplus(Activation):
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x is above the threshold."""

    def value(self, x: Array, *, beta: float, threshold: float) -> Array:
        return self.xp.where(beta * x > threshold, x, log1p_exp(self.xp, beta * x) / beta)

    def chain(self, dy: Array, x: Array, *, beta: float, threshold: float) -> Array:
        return dy * self.xp.where(beta * x > threshold, 1.0, self.xp.sigmoid(beta * x))


class LogSigmoid(Activation):
    """log σ(x)."""

    def value(self, x: Array) -> Array:
        return -log1p_exp(self.xp, -x)

    def chain(self, dy: Array, x: Array) -> Array:
        return dy * self.xp.sigmoid(-x)


class Softsign(Activation):
    """x / (1 + |x|)."""

    def value(self, x: Array) -> Array:
        return x / (1 + self.xp.abs(x))

    def chain(self, dy: Array, x: Array) -> Array:
        width = 1 + self.xp.abs(x)
        return dy / width / width  # in two steps, so that nothing overflows


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
    return activate(Elu, input, alpha=alpha, scale=1.0, rate=1.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, alpha * (exp(input / alpha) - 1) elsewhere."""
    if not alpha:
        raise ArgumentError("expected alpha other than 0, got 0")
    return activate(Elu, input, alpha=alpha, scale=1.0, rate=1 / alpha)


SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """An ELU, scaled so that mean 0 and variance 1 are its fixed point."""
    return activate(Elu, input, alpha=SELU_ALPHA, scale=SELU_SCALE, rate=1.0)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Φ(input), with the normal distribution function Φ, or its ``"tanh"`` estimate."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"expected approximate 'none' or 'tanh', got {approximate!r}")
    return activate(Gelu if approximate == "none" else GeluTanh, input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    return activate(Silu, input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input))."""
    return activate(Mish, input)


@under_autocast
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta; input itself where beta * input > threshold."""
    if not beta:
        raise ArgumentError("expected beta other than 0, got 0")
    return activate(Softplus, input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), exact to rounding in both tails."""
    return activate(LogSigmoid, input)


def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    return activate(Softsign, input)


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
