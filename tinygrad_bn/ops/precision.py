"""Sixteen-bit floats: what is made of them is computed in float32, and rounded once, at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.backend import Array
from tinygrad_bn.dtypes import float32
from tinygrad_bn.ops.promotion import is_floating

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def wide(xp: Any, x: Array) -> Array:
    """Sixteen-bit floats in float32, anything else as it is."""
    return xp.astype(x, float32) if x.dtype.itemsize == 2 and is_floating(x.dtype) else x


def narrow(xp: Any, y: Array, like: Array) -> Array:
    """A result in the dtype of the operation's input."""
    return y if y.dtype == like.dtype else xp.astype(y, like.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Sixteen-bit floats in float32, anything else as it is: for several operations in a row."""
    return x.float() if x.element_size() < 4 else x
