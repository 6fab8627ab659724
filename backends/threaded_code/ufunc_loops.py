"""Calls of NumPy's inner loops: those of a ufunc for given dtypes, along one axis, as its C API
documents them (``PyUFuncObject``, ``PyUFuncGenericFunction``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir

from tinygrad_bn.backend import Array

from ..numba_kernels.compilation import kept
from .assembly import NativeCall
from .entries import I64
from .objects import intrinsic

MOST = 4
"""Operands of a ufunc that there is room for, the result included."""


carray: Any = numba.carray  # type: ignore[attr-defined]


class PyUFuncObject(ctypes.Structure):
    """The head of a ufunc, as far as its loops."""

    _fields_ = (
        ("head", ctypes.c_char * object.__basicsize__),
        ("nin", ctypes.c_int),
        ("nout", ctypes.c_int),
        ("nargs", ctypes.c_int),
        ("identity", ctypes.c_int),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
    )


def loop_of(ufunc: np.ufunc, dtypes: str) -> tuple[int, int] | None:
    """The loop for dtypes such as ``"ff->f"``, and what it is given beside its operands.

    Where dtypes are listed twice, a call finds the first.
    """
    known = PyUFuncObject.from_address(id(ufunc))
    if known.ntypes != len(ufunc.types) or known.nin != ufunc.nin or known.nout != ufunc.nout:
        return None  # not the layout that is written above
    if dtypes not in ufunc.types:
        return None
    number = ufunc.types.index(dtypes)
    function = known.functions[number]
    return function and (function, known.data[number] or 0)


def loop_call(ufunc: np.ufunc, operands: Sequence[Any], out: Array) -> NativeCall | None:
    """The call of a ufunc's loop on arrays and numbers, which broadcast to ``out``; None if NumPy
    would have to convert one of them, or to walk along more than two axes.
    """
    given = with_arrays(operands)
    if given is None or not out.size:
        return None
    arrays = [*given, out]
    if len(arrays) > MOST or not all(x.flags.aligned and x.dtype.isnative for x in arrays):
        return None
    codes = [x.dtype.char for x in arrays]
    loop = loop_of(ufunc, f"{''.join(codes[:-1])}->{codes[-1]}")
    if loop is None:
        return None
    axes = coalesced(out.shape, [np.broadcast_to(x, out.shape).strides for x in arrays])
    if len(axes) > 2:
        return None
    idle = (1, (0,) * len(arrays))
    (outer, outer_steps), (inner, steps) = [idle] * (2 - len(axes)) + axes
    spare = (0,) * (MOST - len(arrays))
    address, data = loop
    operands = (len(arrays), outer, inner, data, *outer_steps, *spare, *steps, *spare, *arrays)
    return NativeCall(address, walk.address, (*operands, *spare, *(0,) * MOST), arrays)


def with_arrays(operands: Sequence[Any]) -> list[Array] | None:
    """The operands, numbers of Python's as arrays of the others' dtype, which they take on."""
    dtypes = {x.dtype for x in operands if isinstance(x, np.ndarray)}
    if len(dtypes) != 1:
        return [*operands] if all(isinstance(x, np.ndarray) for x in operands) else None
    (dtype,) = dtypes
    arrays = []
    for x in operands:
        if isinstance(x, np.ndarray):
            arrays.append(x)
        elif (type(x) is int and dtype.kind in "iuf") or (type(x) is float and dtype.kind == "f"):
            arrays.append(np.array(x, dtype))
        else:
            return None
    return arrays


def coalesced(
    shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]
) -> list[tuple[int, tuple[int, ...]]]:
    """The axes to walk, the longest way in memory first: neighbours that all arrays step through
    evenly are one.
    """
    axes = [(n, steps) for n, steps in zip(shape, zip(*strides, strict=True), strict=True) if n > 1]
    axes.sort(key=lambda axis: -max(map(abs, axis[1])))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for n, steps in axes:
        if merged and merged[-1][1] == tuple(n * step for step in steps):
            merged[-1] = (merged[-1][0] * n, steps)
        else:
            merged.append((n, steps))
    return merged


@intrinsic  # type: ignore[untyped-decorator]
def call_loop(typing: Any, loop: Any, operands: Any, dimensions: Any, steps: Any, data: Any) -> Any:
    """Call ``void loop(char **, npy_intp const *, npy_intp const *, void *)``, all by address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64.as_pointer()] * 4)
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [builder.inttoptr(x, I64.as_pointer()) for x in args[1:]])
        return context.get_dummy_value()

    return numba.void(*[numba.int64] * 5), generate


@intrinsic  # type: ignore[untyped-decorator]
def address(typing: Any, pointer: Any) -> Any:
    """A pointer as a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], I64)

    return numba.int64(pointer), generate


COUNT, OUTER, INNER, DATA = 1, 2, 3, 4
OUTER_STEPS = 5
STEPS, FIRST, NOW = OUTER_STEPS + MOST, OUTER_STEPS + 2 * MOST, OUTER_STEPS + 3 * MOST
"""Where in a block, whose first word is the loop, are the numbers and the rows of numbers."""


@kept(numba.cfunc, "int32(CPointer(int64))")
def walk(block: Any) -> Any:
    """Call a loop for every place of the outer axis."""
    words: Any = carray(block, (NOW + MOST,))
    base: Any = address(block)
    for i in range(words[OUTER]):
        for k in range(words[COUNT]):
            words[NOW + k] = words[FIRST + k] + i * words[OUTER_STEPS + k]
        call_loop(words[0], base + 8 * NOW, base + 8 * INNER, base + 8 * STEPS, words[DATA])
    return 0
