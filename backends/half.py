"""The 16-bit floats, on every array library: computed in 32 bits, rounded once at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

HALF = ("float16", "bfloat16")


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of the floats of 16 bits."""
    return dtype.itemsize == 2 and dtype.name in HALF


def wide_inside(function: Callable[..., Array]) -> Callable[..., Array]:
    """Let ``function``, which takes a ``dtype`` to compute in, reduce 16-bit floats in float32.

    Both libraries then read the 16 bits and accumulate in 32, without a wide copy of the input.
    """

    @wraps(function)
    def run(x: Array, *args: Any, dtype: Any = None, **kwargs: Any) -> Array:
        if dtype is not None:
            return function(x, *args, dtype=dtype, **kwargs)
        if is_half(x.dtype):
            return function(x, *args, dtype=np.float32, **kwargs).astype(x.dtype)
        return function(x, *args, **kwargs)

    return run


def common_half(values: Iterable[object], names: tuple[str, ...] = HALF) -> np.dtype[Any] | None:
    """The dtype among ``names`` that all floating arrays have, or None where one has another."""
    found = None
    for value in values:
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype.kind in "biu":
            continue
        if dtype.itemsize != 2 or dtype.name not in names or found not in (None, dtype):
            return None
        found = dtype
    return found


def in_float32(
    function: Callable[..., Array], names: tuple[str, ...] = HALF
) -> Callable[..., Array]:
    """Let ``function`` see 16-bit arrays in float32, and round what it returns.

    That is for arrays given by position, of one dtype among ``names``; nothing changes where a
    wider float is among them.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Array:
        half = common_half(args, names)
        if half is None:
            return function(*args, **kwargs)
        wide = (x.astype(np.float32) if getattr(x, "dtype", None) == half else x for x in args)
        result = function(*wide, **kwargs)
        return result.astype(half) if result.dtype == np.float32 else result

    return run
