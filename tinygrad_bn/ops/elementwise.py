"""Operations on each element, with broadcasting: arithmetic, powers, comparison, choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, current
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError, TinygradError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.promotion import (
    FLOAT,
    cast,
    category,
    pair,
    promote,
    require_tensor,
    result_type,
)

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "add",
    "arctan2",
    "atan2",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "lerp",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "pow",
    "square",
    "sub",
    "subtract",
]


class Binary(Function):
    """An operation on two operands that broadcast."""

    broadcasts = True


class Add(Binary):
    """a + b."""

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        return dy, dy


class Sub(Binary):
    """a - b."""

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        return dy, -dy if self.needs[1] else None


class Mul(Binary):
    """a * b."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a = a if self.needs[1] else None
        self.b = b if self.needs[0] else None
        return a * b

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        return (
            None if self.b is None else dy * self.b,
            None if self.a is None else dy * self.a,
        )


class Square(Function):
    """x * x."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * x

    def backward(self, dy: Array, /) -> Array:
        return dy * (2 * self.x)


class Pow(Binary):
    """a ** b for tensors, or one tensor and one number."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b, self.y = a, b, a**b
        return self.y

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        xp, a, b, da, db = self.xp, self.a, self.b, None, None
        if self.needs[0]:
            if isinstance(b, (int, float)):
                da = xp.zeros_like(a) if b == 0 else dy * (b * a ** (b - 1))
            else:  # at b = 0 the power is constant, also where a is 0
                da = dy * xp.where(b == 0, 0.0, b * a ** xp.where(b == 0, 1.0, b - 1))
        if self.needs[1]:
            if isinstance(a, (int, float)):
                db = (
                    xp.zeros_like(dy)
                    if a == 0
                    else dy * self.y * xp.log(xp.full((), a, dtype=dy.dtype))
                )
            else:  # 0 ** b is constant for b > 0
                zero = xp.logical_and(a == 0, b >= 0)
                db = dy * xp.where(zero, 0.0, self.y * xp.log(xp.where(zero, 1.0, a)))
        return da, db


class Extremum(Binary):
    """The greater, or the smaller, of two; at a tie each gets half of the gradient."""

    def forward(self, a: Array, b: Array, *, greater: bool) -> Array:
        self.a, self.b = (a, b) if greater else (b, a)
        return self.xp.maximum(a, b) if greater else self.xp.minimum(a, b)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        xp = self.xp
        half = xp.astype(self.a == self.b, dy.dtype) * 0.5
        first = dy * (xp.astype(self.a > self.b, dy.dtype) + half)
        second = dy * (xp.astype(self.a < self.b, dy.dtype) + half)
        return first, second


class Atan2(Binary):
    """The angle of the point (x, y), in radians."""

    def forward(self, y: Array, x: Array) -> Array:
        self.y, self.x = y, x
        return self.xp.arctan2(y, x)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        square = self.x * self.x + self.y * self.y
        scaled = dy / self.xp.where(square == 0, 1.0, square)  # 0 at the origin, as in PyTorch
        return scaled * self.x, -scaled * self.y


class Where(Function):
    """a where the condition holds, b elsewhere."""

    broadcasts = True

    def forward(self, condition: Array, a: Array, b: Array) -> Array:
        self.condition = condition
        return self.xp.where(condition, a, b)

    def backward(self, dy: Array, /) -> tuple[None, Array | None, Array | None]:
        xp = self.xp
        return (
            None,
            xp.where(self.condition, dy, 0.0) if self.needs[1] else None,
            xp.where(self.condition, 0.0, dy) if self.needs[2] else None,
        )


class Clamp(Function):
    """x held within numbers; the gradient passes where x is within, bounds included."""

    def forward(self, x: Array, *, low: float | None, high: float | None) -> Array:
        self.x, self.low, self.high = x, low, high
        return self.xp.clip(x, low, high)

    def backward(self, dy: Array, /) -> Array:
        inside = True
        if self.low is not None:
            inside = self.x >= self.low
        if self.high is not None:
            inside = self.xp.logical_and(self.x <= self.high, inside)
        return dy * inside


def broadcastable(a: Any, b: Any) -> None:
    """Refuse shapes that do not broadcast, before anything is computed."""
    if not isinstance(a, Variable) or not isinstance(b, Variable):
        return
    p, q = a.array.shape, b.array.shape
    if p == q:
        return
    for m, n in zip(reversed(p), reversed(q), strict=False):
        if m != n and m != 1 and n != 1:
            raise ShapeError(f"expected shapes that broadcast, got {p} and {q}")


def binary(operation: type[Function], a: Any, b: Any, **attributes: Any) -> Tensor:
    """Bring two operands to one dtype, check that they broadcast, and apply.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For shapes that do not broadcast, booleans to subtract, and a number too large, or too
        small, for the tensor's integers.
    """
    a, b = pair(a, b)
    try:
        return operation.apply(a, b, **attributes)  # type: ignore[no-any-return]
    except TinygradError:
        raise
    except OverflowError as error:
        raise ArgumentError(f"expected a number that the tensor's dtype holds: {error}") from None
    except TypeError as error:
        raise DtypeError(f"expected dtypes that {operation.__name__} can take: {error}") from None
    except ValueError:
        broadcastable(a, b)
        raise


def add(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input + alpha * other."""
    return binary(Add, input, other if alpha == 1 else other * alpha)


def sub(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input - alpha * other."""
    return binary(Sub, input, other if alpha == 1 else other * alpha)


def mul(input: Tensor, other: Tensor | float) -> Tensor:
    """input * other, element by element."""
    return binary(Mul, input, other)


def rsub(input: Tensor, other: Tensor | float) -> Tensor:
    """other - input."""
    return binary(Sub, other, input)


@under_autocast
def pow(input: Tensor | float, exponent: Tensor | float) -> Tensor:
    """input ** exponent; integers to negative powers are refused, as in NumPy.

    Raises
    ------
    ArgumentError
        For an integer to a negative power, tensors of such too, where PyTorch has 0.
    """
    if exponent.__class__ in (int, float) and exponent == 2:
        return square(input)  # type: ignore[arg-type]
    a, b = pair(input, exponent)
    if (
        isinstance(a, Variable)
        and category(a.array.dtype) < FLOAT
        and isinstance(b, (int, float))
        and b < 0
    ):
        raise ArgumentError(f"expected a power ≥ 0 of integers, got {b}")
    broadcastable(a, b)
    try:
        return Pow.apply(a, b)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ArgumentError(f"expected powers ≥ 0 of integers, got others: {error}") from None


@under_autocast
def rpow(input: Tensor, other: float) -> Tensor:
    """other ** input."""
    return pow(other, input)


def square(input: Tensor) -> Tensor:
    """input * input; of booleans in int64."""
    require_tensor(input)
    if input.array.dtype.kind == "b":
        input = cast(input, np.dtype(np.int64))
    return Square.apply(input)  # type: ignore[no-any-return]


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The greater of the two, element by element; NaN if either is."""
    return binary(Extremum, input, other, greater=True)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of the two, element by element; NaN if either is."""
    return binary(Extremum, input, other, greater=False)


@under_autocast
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle, in radians, of the point with height input and abscissa other."""
    return Atan2.apply(*promote(input, other, floating=True))  # type: ignore[no-any-return]


def where(condition: Tensor, input: Tensor | float, other: Tensor | float) -> Tensor:
    """input where the condition (bool) holds, other elsewhere; all three broadcast."""
    require_tensor(condition, "the condition")
    if condition.array.dtype.kind != "b":
        condition = condition != 0
    if isinstance(input, Variable) or isinstance(other, Variable):
        input, other = pair(input, other)
    else:
        dtype = result_type(input, other)
        input = condition.wrap_like(condition.backend.asarray(input, dtype))
    broadcastable(input, other)
    broadcastable(condition, input)
    broadcastable(condition, other)
    return Where.apply(condition, input, other)  # type: ignore[no-any-return]


def clamp(
    input: Tensor, min: Tensor | float | None = None, max: Tensor | float | None = None
) -> Tensor:
    """input held within [min, max]; either may be missing, a number or a tensor."""
    require_tensor(input)
    if min is None and max is None:
        raise ArgumentError("expected min, max or both, got neither")
    if isinstance(min, Variable) or isinstance(max, Variable):
        y = input if min is None else clamp_below(input, min)
        return y if max is None else clamp_above(y, max)
    bounds = [bound for bound in (min, max) if bound is not None]
    (input, *_) = promote(input, *bounds)
    return Clamp.apply(input, low=min, high=max)  # type: ignore[no-any-return]


def clamp_min(input: Tensor, min: Tensor | float) -> Tensor:
    """input where it is at least min, else min."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Tensor | float) -> Tensor:
    """input where it is at most max, else max."""
    return clamp(input, max=max)


def clamp_below(x: Tensor, bound: Tensor | float) -> Tensor:
    """x where it is at least the bound; there, and at a tie, x gets the whole gradient.

    NaN where either is.
    """
    return where((x < bound) | (bound != bound), bound, x)


def clamp_above(x: Tensor, bound: Tensor | float) -> Tensor:
    return where((x > bound) | (bound != bound), bound, x)


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """input + weight * (end - input)."""
    return input + weight * (end - input)


def without_gradient(function: Any, *operands: Any) -> Tensor:
    """The result of a function of arrays that has no gradient; operands share a backend."""
    tensors = [x for x in operands if isinstance(x, Variable)]
    backend = tensors[0].backend
    for x in tensors:
        if x.backend is not backend:
            raise BackendError(
                f"expected tensors on {backend.device}, got one on {x.backend.device}"
            )
    arrays = [x.array if isinstance(x, Variable) else x for x in operands]
    with current(backend):
        result = backend.asarray(function(*arrays))
    return Variable.tensor_class.wrap(result, backend)  # type: ignore[return-value]


subtract = sub
multiply = mul
clip = clamp
arctan2 = atan2
