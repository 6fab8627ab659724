"""The dtypes: NumPy's own objects under PyTorch's names, so that either library's spelling is
accepted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.errors import DependencyError, DtypeError

__all__ = [
    "bool",
    "double",
    "finfo",
    "float16",
    "float32",
    "float64",
    "half",
    "iinfo",
    "int8",
    "int16",
    "int32",
    "int64",
    "long",
    "short",
    "uint8",
]

float16 = half = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = double = np.dtype(np.float64)
uint8 = np.dtype(np.uint8)
int8 = np.dtype(np.int8)
int16 = short = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = long = np.dtype(np.int64)
bool = np.dtype(np.bool_)


FLOATS = ("float16", "bfloat16", "float32", "float64")


def bfloat16() -> np.dtype[Any]:
    """The dtype bfloat16, which NumPy has through ml_dtypes.

    Raises
    ------
    DependencyError
        If ml_dtypes is not installed.
    """
    try:
        from ml_dtypes import bfloat16 as scalar
    except ModuleNotFoundError:
        raise DependencyError(
            "bfloat16 needs ml_dtypes, which is not installed; pip install ml_dtypes"
        ) from None
    found: np.dtype[Any] = np.dtype(scalar)
    return found


def as_dtype(spec: Any) -> np.dtype[Any]:
    """The dtype that a NumPy dtype, a scalar type or a name stands for.

    Raises
    ------
    DtypeError
        If it is none, or one that the library has no operations for.
    """
    if spec == "bfloat16":
        return bfloat16()
    try:
        dtype = np.dtype(spec)
    except TypeError:
        raise DtypeError(f"expected a dtype, got {spec!r}") from None
    if dtype.kind not in "biu" and dtype.name not in FLOATS:
        raise DtypeError(f"expected a bool, integer or floating dtype, got {dtype}")
    native: np.dtype[Any] = np.dtype(dtype.type)  # which all arrays of it share, as a rule
    return native


def finfo(dtype: Any) -> Any:
    """The limits of a floating dtype: ``eps``, ``max``, ``min``, ``tiny``."""
    found = as_dtype(dtype)
    if found.name == "bfloat16":
        from ml_dtypes import finfo as limits

        return limits(found)  # type: ignore[no-untyped-call]
    return np.finfo(found)


def iinfo(dtype: Any) -> np.iinfo[Any]:
    """The limits of an integer dtype: ``max`` and ``min``."""
    return np.iinfo(as_dtype(dtype))
