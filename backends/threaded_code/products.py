"""Calls of the matrix product in the BLAS that NumPy brings, with the arguments that `numpy.matmul`
gives it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir

from tinygrad_bn.backend import Array

from ..blas import function
from .assembly import NativeCall
from .entries import I32, I64

ROW_MAJOR, COLUMN_MAJOR, NO_TRANS, TRANS = 101, 102, 111, 112
"""cblas.h: CblasRowMajor, CblasColMajor, CblasNoTrans, CblasTrans."""
LETTERS = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


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


def gemv_kind(dtype: np.dtype[Any]) -> ir.FunctionType:
    """The type of cblas_sgemv and cblas_dgemv."""
    number = real(dtype)
    array = number.as_pointer()
    return ir.FunctionType(
        ir.VoidType(), [I32, I32, I64, I64, number, array, I64, array, I64, number, array, I64]
    )


def address(name: str, dtype: np.dtype[Any]) -> int | None:
    """Where the function ``"gemm"`` or ``"gemv"`` of this dtype is."""
    found = function(f"cblas_{LETTERS[dtype]}{name}") if dtype in LETTERS else None
    return ctypes.cast(found, ctypes.c_void_p).value if found else None


def product(a: Array, b: Array, out: Array) -> NativeCall | None:
    """The call that leaves a (m, k) times b (k, n) in ``out`` (m, n), in C order; None where
    `numpy.matmul` does without BLAS, as for sums of one product, and for a matrix times itself.
    """
    if not a.ndim == b.ndim == out.ndim == 2 or not a.dtype == b.dtype == out.dtype:
        return None
    if not (out.flags.c_contiguous and out.flags.aligned):
        return None
    (m, k), n = a.shape, b.shape[1]
    if min(m, n) < 2:
        return of_row(a, b, out) if m == 1 else of_row(b.T, a.T, out.T)
    target = address("gemm", out.dtype)
    if target is None or k < 1:
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


def of_row(a: Array, b: Array, out: Array) -> NativeCall | None:
    """The call that leaves a row a (1, k) times b (k, n) in ``out`` (1, n)."""
    target, (k, n), size = address("gemv", out.dtype), b.shape, out.itemsize
    step = a.strides[1]
    if target is None or min(k, n) < 2 or not a.flags.aligned or step % size or step < size:
        return None
    found = oriented(b)
    if found is None:
        return None
    order = ROW_MAJOR if found[0] == NO_TRANS else COLUMN_MAJOR
    one, zero = (out.dtype.type(1), out.dtype.type(0))
    matrix, row = (b, found[1]), (a, step // size)
    operands = (order, TRANS, k, n, one, *matrix, *row, zero, out, out.strides[1] // size)
    return NativeCall(target, gemv_kind(out.dtype), operands, (a, b, out))


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
