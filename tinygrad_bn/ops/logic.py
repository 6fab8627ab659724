"""Comparison, and the logic of what it gives: no gradient leads through either."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from tinygrad_bn.errors import DtypeError
from tinygrad_bn.ops.elementwise import broadcastable, without_gradient
from tinygrad_bn.ops.promotion import FLOAT, category, pair, require_tensor, result_type

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "eq",
    "ge",
    "gt",
    "le",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
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
