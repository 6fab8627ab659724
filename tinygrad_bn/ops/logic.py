"""Comparison, and the logic of what it gives: no gradient leads through either."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.ops.elementwise import broadcastable, without_gradient
from tinygrad_bn.ops.promotion import FLOAT, category, pair, require_tensor, result_type
from tinygrad_bn.ops.unary import abs, isfinite, isnan

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "allclose",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "eq",
    "equal",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "le",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
    "not_equal",
]


def compare(function: Any, a: Any, b: Any) -> Tensor:
    a, b = pair(a, b)
    broadcastable(a, b)
    return without_gradient(function, a, b)


def eq(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input == other, element by element."""
    return compare(operator.eq, input, other)


def ne(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input != other, element by element."""
    return compare(operator.ne, input, other)


def equals(input: Tensor, other: Any) -> Any:
    """``input == other``: False for None and strings, which no number equals."""
    return NotImplemented if other is None or isinstance(other, str) else eq(input, other)


def differs(input: Tensor, other: Any) -> Any:
    """``input != other``: True for None and strings."""
    return NotImplemented if other is None or isinstance(other, str) else ne(input, other)


def lt(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input < other, element by element."""
    return compare(operator.lt, input, other)


def le(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input <= other, element by element."""
    return compare(operator.le, input, other)


def gt(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input > other, element by element."""
    return compare(operator.gt, input, other)


def ge(input: Tensor, other: Tensor | float) -> Tensor:
    """Whether input >= other, element by element."""
    return compare(operator.ge, input, other)


def isclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Tensor:
    """Whether input == other, or both are finite and |input - other| <= atol + rtol * |other|.

    Parameters
    ----------
    equal_nan : whether NaN counts as equal to NaN.
    """
    require_tensor(input)
    require_tensor(other, "other")
    if input.dtype != other.dtype:
        raise DtypeError(f"expected one dtype, got {input.dtype} and {other.dtype}")
    if rtol < 0 or atol < 0:
        raise ArgumentError(f"expected tolerances ≥ 0, got {rtol} and {atol}")
    a, b = input.detach().double(), other.detach().double()
    error = abs(a - b)
    close: Tensor = (a == b) | (isfinite(error) & (error <= atol + rtol * abs(b)))
    return close | (isnan(a) & isnan(b)) if equal_nan else close


def allclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> bool:
    """Whether all elements are close, as `isclose` has it."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape, and equal elements."""
    require_tensor(input)
    require_tensor(other, "other")
    return input.shape == other.shape and bool(eq(input, other).all())


def bitwise(function: Any, a: Any, b: Any, sign: str) -> Tensor:
    if category(result_type(a, b)) == FLOAT:
        raise DtypeError(f"expected booleans or integers for {sign}, got {result_type(a, b)}")
    return compare(function, a, b)


def bitwise_and(input: Tensor, other: Tensor | int) -> Tensor:
    """input & other, of booleans or of the bits of integers."""
    return bitwise(operator.and_, input, other, "&")


def bitwise_or(input: Tensor, other: Tensor | int) -> Tensor:
    """input | other, of booleans or of the bits of integers."""
    return bitwise(operator.or_, input, other, "|")


def bitwise_xor(input: Tensor, other: Tensor | int) -> Tensor:
    """input ^ other, of booleans or of the bits of integers."""
    return bitwise(operator.xor, input, other, "^")


def bitwise_not(input: Tensor) -> Tensor:
    """~input, of booleans or of the bits of integers."""
    require_tensor(input)
    if category(input.array.dtype) == FLOAT:
        raise DtypeError(f"expected booleans or integers for ~, got {input.array.dtype}")
    return without_gradient(operator.invert, input)


def logical(word: str, input: Tensor, other: Tensor) -> Tensor:
    require_tensor(input)
    require_tensor(other, "other")
    broadcastable(input, other)
    return without_gradient(getattr(input.backend.xp, word), input, other)


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are not zero."""
    return logical("logical_and", input, other)


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether either is not zero."""
    return logical("logical_or", input, other)


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether one is not zero and the other is."""
    return logical("logical_xor", input, other)


def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero or False."""
    require_tensor(input)
    return without_gradient(input.backend.xp.logical_not, input)


not_equal = ne
less = lt
less_equal = le
greater = gt
greater_equal = ge
