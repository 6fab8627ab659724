"""Sines and their kin, of angles in radians, and of hyperbolas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.curves import tanh_grad
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.promotion import floating

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "acos",
    "arccos",
    "arcsin",
    "arctan",
    "asin",
    "atan",
    "cos",
    "cosh",
    "sin",
    "sinh",
    "tan",
    "tanh",
]


class Sin(Function):
    """The sine of x in radians."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.sin(x)

    def backward(self, dy: Array, /) -> Array:
        return dy * self.xp.cos(self.x)


class Cos(Function):
    """The cosine of x in radians."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.cos(x)

    def backward(self, dy: Array, /) -> Array:
        return -dy * self.xp.sin(self.x)


class Tan(Function):
    """The tangent of x in radians."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.tan(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return dy * (1 + self.y * self.y)


class Asin(Function):
    """The angle, in radians, whose sine is x."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.arcsin(x)

    def backward(self, dy: Array, /) -> Array:
        return dy / self.xp.sqrt((1 - self.x) * (1 + self.x))


class Acos(Function):
    """The angle, in radians, whose cosine is x."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.arccos(x)

    def backward(self, dy: Array, /) -> Array:
        return -dy / self.xp.sqrt((1 - self.x) * (1 + self.x))


class Atan(Function):
    """The angle, in radians, whose tangent is x."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.arctan(x)

    def backward(self, dy: Array, /) -> Array:
        return dy / (1 + self.x * self.x)


class Sinh(Function):
    """The hyperbolic sine."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.sinh(x)

    def backward(self, dy: Array, /) -> Array:
        return dy * self.xp.cosh(self.x)


class Cosh(Function):
    """The hyperbolic cosine."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.cosh(x)

    def backward(self, dy: Array, /) -> Array:
        return dy * self.xp.sinh(self.x)


class Tanh(Function):
    """The hyperbolic tangent."""

    def forward(self, x: Array) -> Array:
        self.y = self.xp.tanh(x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return tanh_grad(self.backend, dy, self.y)


def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians."""
    return Sin.apply(floating(input))  # type: ignore[no-any-return]


def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians."""
    return Cos.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians."""
    return Tan.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def asin(input: Tensor) -> Tensor:
    """The angle, in radians, whose sine is input."""
    return Asin.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def acos(input: Tensor) -> Tensor:
    """The angle, in radians, whose cosine is input."""
    return Acos.apply(floating(input))  # type: ignore[no-any-return]


def atan(input: Tensor) -> Tensor:
    """The angle, in radians, whose tangent is input."""
    return Atan.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return Sinh.apply(floating(input))  # type: ignore[no-any-return]


@under_autocast
def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return Cosh.apply(floating(input))  # type: ignore[no-any-return]


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh.apply(floating(input))  # type: ignore[no-any-return]


arcsin = asin
arccos = acos
arctan = atan
