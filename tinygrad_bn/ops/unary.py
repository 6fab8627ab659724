"""Functions of one variable, element by element."""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.curves import sigmoid_grad, sigmoid_value
from tinygrad_bn.errors import DtypeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import without_gradient
from tinygrad_bn.ops.promotion import FLOAT, category, floating, is_floating, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "abs",
    "absolute",
    "ceil",
    "erf",
    "erfinv",
    "exp",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "log2",
    "log10",
    "neg",
    "negative",
    "positive",
    "reciprocal",
    "round",
    "rsqrt",
    "sgn",
    "sigmoid",
    "sign",
    "sqrt",
    "trunc",
]


class Neg(Function):
    """-x."""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Array, /) -> Array:
        return -dy


class Abs(Function):
    """|x|; at 0 the gradient is 0."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.abs(x)

    def backward(self, dy: Array, /) -> Array:
        return dy * self.xp.sign(self.x)


class Exp(Function):
    """e ** x."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.exp(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy * self.y


class Expm1(Function):
    """e ** x - 1, without cancellation near 0."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.expm1(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy * (self.y + 1)


class Log(Function):
    """The natural logarithm."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.log(x)

    def backward(self, dy: Array, /) -> Array:
        return dy / self.x


class Log1p(Function):
    """log(1 + x), without cancellation near 0."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.log1p(x)

    def backward(self, dy: Array, /) -> Array:
        return dy / (1 + self.x)


class Sqrt(Function):
    """The square root."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.sqrt(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy / (2 * self.y)


class Rsqrt(Function):
    """1 / sqrt(x)."""

    def forward(self, x: Array) -> Array:
        self.y = 1 / self.xp.sqrt(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy * (-0.5 * self.y * self.y * self.y)


class Reciprocal(Function):
    """1 / x."""

    def forward(self, x: Array) -> Array:
        self.y = 1 / x
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return -dy * self.y * self.y


class Sigmoid(Function):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        self.y = sigmoid_value(self.backend, x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return sigmoid_grad(self.backend, dy, self.y)


class Erf(Function):
    """2/√π ∫₀ˣ exp(-t²) dt."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.erf(x)

    def backward(self, dy: Array, /) -> Array:
        return dy * (2 / math.sqrt(math.pi)) * self.xp.exp(-self.x * self.x)


class Erfinv(Function):
    """The number whose erf is x."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.erfinv(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy * (math.sqrt(math.pi) / 2) * self.xp.exp(self.y * self.y)


class Step(Function):
    """A function that is constant between its jumps: sign, floor, ceil, round, trunc; its gradient
    is 0.
    """

    def forward(self, x: Array, *, function: str) -> Array:
        return getattr(self.xp, function)(x)

    def backward(self, dy: Array, /) -> Array:
        return self.xp.zeros_like(dy)


def neg(input: Tensor) -> Tensor:
    """-input."""
    require_tensor(input)
    if category(input.array.dtype) == 0:
        raise DtypeError("expected numbers to negate, got bool; use logical_not() or ~")
    return Neg.apply(input)  # type: ignore[no-any-return]


def positive(input: Tensor) -> Tensor:
    """input itself."""
    return input


def abs(input: Tensor) -> Tensor:
    """|input|."""
    require_tensor(input)
    return Abs.apply(input)  # type: ignore[no-any-return]


@under_autocast
def exp(input: Tensor) -> Tensor:
    """e ** input."""
    return Exp.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def expm1(input: Tensor) -> Tensor:
    """e ** input - 1, without cancellation near 0."""
    return Expm1.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def log(input: Tensor) -> Tensor:
    """The natural logarithm; -inf at 0, NaN below."""
    return Log.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return log(input) * (1 / math.log(2))


@under_autocast
def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return log(input) * (1 / math.log(10))


@under_autocast
def log1p(input: Tensor) -> Tensor:
    """log(1 + input), without cancellation near 0."""
    return Log1p.apply(floating(input))  # type: ignore[no-any-return]


def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN below 0."""
    return Sqrt.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return Rsqrt.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return Reciprocal.apply(floating(input))  # type: ignore[no-any-return]


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input))."""
    return Sigmoid.apply(floating(input))  # type: ignore[no-any-return]


def erf(input: Tensor) -> Tensor:
    """The error function, 2/√π ∫₀ˣ exp(-t²) dt."""
    return Erf.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def erfinv(input: Tensor) -> Tensor:
    """The number whose erf is input, for input within (-1, 1)."""
    return Erfinv.apply(floating(input))  # type: ignore[no-any-return]


def step(input: Tensor, function: str) -> Tensor:
    require_tensor(input)
    if not is_floating(input.array.dtype) and (function != "sign" or input.array.dtype.kind == "b"):
        return input.clone()  # whole numbers are their own
    return Step.apply(input, function=function)  # type: ignore[no-any-return]


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1; NaN for NaN."""
    return step(input, "sign")


def floor(input: Tensor) -> Tensor:
    """The greatest whole number not above input."""
    return step(input, "floor")


def ceil(input: Tensor) -> Tensor:
    """The smallest whole number not below input."""
    return step(input, "ceil")


def trunc(input: Tensor) -> Tensor:
    """The whole part, towards zero."""
    return step(input, "trunc")


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number of so many decimals, whole by default; halves go to the even one."""
    if not decimals:
        return step(input, "round")
    require_tensor(input)
    if not is_floating(input.array.dtype):
        raise DtypeError(f"expected floats to round to decimals, got {input.array.dtype}")
    scale = 10.0 ** builtins.abs(decimals)
    if decimals < 0:
        return step(input / scale, "round") * scale
    return step(input * scale, "round") / scale


def isnan(input: Tensor) -> Tensor:
    """Whether each element is NaN."""
    return _classify(input, "isnan")


def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite, of either sign."""
    return _classify(input, "isinf")


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    return _classify(input, "isfinite")


def _classify(input: Tensor, function: str) -> Tensor:
    require_tensor(input)
    if category(input.array.dtype) < FLOAT:
        input = floating(input)
    return without_gradient(getattr(input.backend.xp, function), input)


absolute = abs
negative = neg
sgn = sign
