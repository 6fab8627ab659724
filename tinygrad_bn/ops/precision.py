"""Sixteen-bit floats inside an operation: computed in float32, rounded once, at the end."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array
from tinygrad_bn.dtypes import float32
from tinygrad_bn.ops.promotion import is_floating


def wide(xp: Any, x: Array) -> Array:
    """Sixteen-bit floats in float32, anything else as it is."""
    return xp.astype(x, float32) if x.dtype.itemsize == 2 and is_floating(x.dtype) else x


def narrow(xp: Any, y: Array, like: Array) -> Array:
    """A result in the dtype of the operation's input."""
    return y if y.dtype == like.dtype else xp.astype(y, like.dtype)
