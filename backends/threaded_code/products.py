"""Calls of the matrix product in the BLAS that NumPy brings, with the arguments that `numpy.matmul`
gives it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir

from tinygrad_bn.backend import Array

from .assembly import NativeCall
from .entries import I32, I64

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112
"""cblas.h: CblasRowMajor, CblasNoTrans, CblasTrans."""
SYMBOLS = {
    np.dtype(np.float32): "scipy_cblas_sgemm64_",
    np.dtype(np.float64): "scipy_cblas_dgemm64_",
}
"""The names under which NumPy's wheels carry OpenBLAS with 64-bit integers."""


def real(dtype: np.dtype[Any]) -> ir.Type:
    return ir.FloatType() if dtype.itemsize == 4 else ir.DoubleType()


def gemm_kind(dtype: np.dtype[Any]) -> ir.FunctionType:
    """The type of cblas_sgemm and cblas_dgemm."""
    number = real(dtype)
    array = number.as_pointer()
    return ir.FunctionType(
        ir.VoidType(),
        [I32, I32, I32, I64, I64, I64, number, array, I64, array, I64, number, array, I64],
    )


@cache
def library() -> ctypes.CDLL | None:
    """The BLAS of NumPy's wheel, which is loaded already; None where NumPy was built otherwise."""
    spec = find_spec("numpy")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas64_*")):
            return ctypes.CDLL(str(path))
    return None


@cache
def gemm_address(dtype: np.dtype[Any]) -> int | None:
    """Where the product of this dtype is."""
    found = library()
    if found is None or dtype not in SYMBOLS or not hasattr(found, SYMBOLS[dtype]):
        return None
    return ctypes.cast(getattr(found, SYMBOLS[dtype]), ctypes.c_void_p).value


def product(a: Array, b: Array, out: Array) -> NativeCall | None:
    """The call that leaves a (m, k) times b (k, n) in ``out`` (m, n), in C order; None where
    `numpy.matmul` does without this function of BLAS, as for vectors and a matrix times itself.
    """
    if not a.ndim == b.ndim == out.ndim == 2 or not a.dtype == b.dtype == out.dtype:
        return None
    (m, k), n = a.shape, b.shape[1]
    target = gemm_address(out.dtype)
    if target is None or min(m, n) < 2 or k < 1 or not out.flags.c_contiguous:
        return None
    if address_and_strides(a) == address_and_strides(b.T) and a.shape == b.T.shape:
        return None  # symmetric, by another function
    left, right = oriented(a), oriented(b)
    if left is None or right is None:
        return None
    one, zero = (out.dtype.type(1), out.dtype.type(0))
    sizes = (ROW_MAJOR, left[0], right[0], m, n, k)
    operands = (*sizes, one, a, left[1], b, right[1], zero, out, n)
    return NativeCall(target, gemm_kind(out.dtype), operands, (a, b, out))


def address_and_strides(x: Array) -> tuple[int, tuple[int, ...]]:
    return x.__array_interface__["data"][0], x.strides


def oriented(x: Array) -> tuple[int, int] | None:
    """How BLAS reads a matrix: as it stands or transposed, and its leading dimension; None if its
    neighbours are no neighbours in memory.
    """
    if not x.flags.aligned:
        return None
    (rows, columns), size = x.shape, x.itemsize
    for transposed, (long, step), least in (
        (NO_TRANS, x.strides, columns),
        (TRANS, x.strides[::-1], rows),
    ):
        if step == size and long % size == 0 and long // size >= least and long < 2**31 * size:
            return transposed, long // size
    return None
