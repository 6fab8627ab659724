"""Quotients, exact or rounded to whole numbers, and what such rounding leaves."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import Binary, binary, broadcastable, without_gradient
from tinygrad_bn.ops.promotion import cast, is_floating, pair, promote, result_type

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "div",
    "divide",
    "floor_divide",
    "fmod",
    "remainder",
    "true_divide",
]


class Div(Binary):
    """a / b."""

    def forward(self, a: Array, b: Array) -> Array:
        self.b, self.y = b, a / b
        return self.y

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        da = dy / self.b
        return da, -da * self.y if self.needs[1] else None


class Quotient(Binary):
    """a / b rounded down, or with ``trunc`` towards zero; its gradient is 0."""

    def forward(self, a: Array, b: Array, *, trunc: bool) -> Array:
        return self.xp.trunc(a / b) if trunc else a // b

    def backward(self, dy: Array, /) -> tuple[Array, Array]:
        return self.xp.zeros_like(dy), self.xp.zeros_like(dy)


class Remainder(Binary):
    """a - b * floor(a / b), of b's sign; with ``trunc`` rounded towards zero, of a's sign."""

    def forward(self, a: Array, b: Array, *, trunc: bool) -> Array:
        xp = self.xp
        if self.needs[1]:
            self.quotient = xp.trunc(a / b) if trunc else a // b
        return xp.fmod(a, b) if trunc else xp.remainder(a, b)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        return dy, -dy * self.quotient if self.needs[1] else None


def div(input: Tensor, other: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; rounded towards zero (``"trunc"``) or down (``"floor"``) if asked."""
    if rounding_mode is None:
        a, b = pair(input, other)
        dtype = (a if isinstance(a, Variable) else b).array.dtype
        return binary(Div, *((a, b) if is_floating(dtype) else promote(a, b, floating=True)))
    if rounding_mode not in ("trunc", "floor"):
        raise ArgumentError(
            f"expected rounding_mode None, 'trunc' or 'floor', got {rounding_mode!r}"
        )
    return cast(  # type: ignore[no-any-return]
        binary(Quotient, input, other, trunc=rounding_mode == "trunc"), result_type(input, other)
    )


@under_autocast
def rdiv(input: Tensor, other: Tensor | float) -> Tensor:
    """other / input."""
    return div(other, input)  # type: ignore[arg-type]


def floor_divide(input: Tensor, other: Tensor | float) -> Tensor:
    """input / other rounded down; no gradient leads through it."""
    a, b = pair(input, other)
    broadcastable(a, b)
    return without_gradient(operator.floordiv, a, b)


def rfloor_divide(input: Tensor, other: Tensor | float) -> Tensor:
    """other / input rounded down."""
    return floor_divide(other, input)  # type: ignore[arg-type]


def remainder(input: Tensor, other: Tensor | float) -> Tensor:
    """What is left of input after whole multiples of other, with the sign of other."""
    return binary(Remainder, input, other, trunc=False)


def rremainder(input: Tensor, other: float) -> Tensor:
    """What is left of other after whole multiples of input."""
    return binary(Remainder, other, input, trunc=False)


def fmod(input: Tensor, other: Tensor | float) -> Tensor:
    """What is left of input after whole multiples of other, with the sign of input."""
    return binary(Remainder, input, other, trunc=True)


divide = true_divide = div
