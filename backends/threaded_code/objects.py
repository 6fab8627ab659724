"""Python's own objects as they lie in memory, for looks that take machine code a few nanoseconds an
object, where Python would take dozens.

Fields are read that CPython's and NumPy's header files lay open, and that every extension module
has compiled into it: ``PyVarObject``, ``PyTupleObject``, ``PyListObject``, ``PyCellObject``,
``PyArrayObject_fields``, ``PyArray_Descr``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from types import CellType, FunctionType
from typing import Any, TypeAlias

import numba
import numpy as np
from llvmlite import ir
from numba import extending

from tinygrad_bn.backend import Array

from ..numba_kernels.compilation import kept
from .entries import I32, I64

byte_bounds = np.lib.array_utils.byte_bounds
intrinsic: Any = extending.intrinsic

HEAD = object.__basicsize__
"""Bytes of an object before what is its own."""
TYPE, COUNT, LIST_ITEMS, CELL_ITEM = HEAD - 8, HEAD, HEAD + 8, HEAD
TUPLE_ITEMS = tuple.__basicsize__
DATA, NDIM, SHAPE, STRIDES, DTYPE, FLAGS = (HEAD + 8 * i for i in (0, 1, 2, 3, 5, 6))
"""Of an array; its base, the fifth field, is left out."""
SCALAR, NUMBER = HEAD, HEAD + 8
"""Of a dtype: the type of its scalars; and kind, letter, order of bytes and number in one word. All
objects of one dtype, and NumPy makes many, have both in common.
"""
ALIGNED = 0x0100
"""Of an array's flags, as `numpy/ndarraytypes.h` numbers them."""
INT = 0xFFFFFFFF
"""What of a word a C int is, in the order of bytes that Numba's processors have."""


@intrinsic  # type: ignore[untyped-decorator]
def at(typing: Any, address: Any) -> Any:
    """The word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], I64.as_pointer()))

    return numba.int64(numba.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def put(typing: Any, address: Any, word: Any) -> Any:
    """Store a word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()))
        return context.get_dummy_value()

    return numba.void(numba.int64, numba.int64), generate


def calling(builder: Any, result: ir.Type, function: Any, operands: Sequence[Any]) -> Any:
    """The call of a function of pointers, all by their addresses."""
    pointer = I64.as_pointer()
    kind = ir.FunctionType(result, [pointer] * len(operands))
    return builder.call(
        builder.inttoptr(function, kind.as_pointer()),
        [builder.inttoptr(x, pointer) for x in operands],
    )


@intrinsic  # type: ignore[untyped-decorator]
def next_item(typing: Any, function: Any, mapping: Any, position: Any, key: Any, value: Any) -> Any:
    """``PyDict_Next``: whether there is another item, which goes where the pointers say."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return calling(builder, I32, args[0], args[1:])

    return numba.int32(*[numba.int64] * 5), generate


@intrinsic  # type: ignore[untyped-decorator]
def item(typing: Any, function: Any, mapping: Any, key: Any) -> Any:
    """``PyDict_GetItemWithError``: where a value is, or 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return calling(builder, I64, args[0], args[1:])

    return numba.int64(*[numba.int64] * 3), generate


@intrinsic  # type: ignore[untyped-decorator]
def part(typing: Any, function: Any, whole: Any) -> Any:
    """``PyFunction_GetCode`` and its like: where a part of an object is, or 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return calling(builder, I64, args[0], args[1:])

    return numba.int64(*[numba.int64] * 2), generate


def directly(function: Any) -> Callable[..., Any]:
    """The compiled function without Numba's dispatcher, which would look at the arguments' types
    first, in as much time as the call takes.
    """
    return function.overloads[function.signatures[0]].entry_point  # type: ignore[no-any-return]


def words_of(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """What says which dtype it is."""
    return tuple(ctypes.c_int64.from_address(id(dtype) + i).value for i in (SCALAR, NUMBER))


def address_of(x: Array) -> int:
    """Where an array's data begin."""
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]


def address_of_function(name: str) -> int:
    """Where a function of Python's C API is."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


# Containers

Row: TypeAlias = dict[Any, Any] | list[Any] | CellType | FunctionType | tuple[dict[Any, Any], str]
"""A dict with its keys in order, a list, a closure's variable, the code and the defaults of a
function, or what a dict has under a name.
"""
WHOLE, LIST, CELL, FUNCTION, NAMED = range(5)
C_API = (
    "PyDict_Next",
    "PyDict_GetItemWithError",
    "PyFunction_GetCode",
    "PyFunction_GetDefaults",
    "PyFunction_GetKwDefaults",
)
NEXT_ITEM, ITEM, PARTS = 0, 8, 16
END, POSITION, KEY, VALUE, ROWS = (8 * (len(C_API) + i) for i in range(5))
"""Where in a block are these functions, the end, what `PyDict_Next` is to leave, and the rows."""


class Held:
    """What containers hold, and which hold something else later: other objects, or in another
    order. Python's lock is held meanwhile, so that nobody changes them.

    Parameters
    ----------
    sections : containers that are asked for together.
    """

    def __init__(self, sections: Sequence[Iterable[Row]]) -> None:
        self._objects: list[Any] = []  # alive, so that no other object has their address
        words = [address_of_function(name) for name in C_API]
        words += [0] * (ROWS // 8 - len(words))
        for number, section in enumerate(sections):
            for row in section:
                kind, container, objects, found = described(row)
                words += [kind, 1 << number, id(container), len(found), *found]
                self._objects += [container, *objects]
        self._words = np.array(words, np.int64)
        self._address = address_of(self._words)
        self._words[END // 8] = self._address + 8 * len(words)

    def changed(self) -> int:
        """A bit for each section, which is set if something in it is not what it was."""
        return changed_directly(self._address)  # type: ignore[no-any-return]


def described(row: Row) -> tuple[int, Any, list[Any], list[int]]:
    """A row's kind, its container, what that holds, and the addresses of it; 0 for nothing."""
    if isinstance(row, dict):
        objects = [x for pair in row.items() for x in pair]
        return WHOLE, row, objects, [*map(id, objects)]
    if isinstance(row, list):
        return LIST, row, [*row], [*map(id, row)]
    if isinstance(row, CellType):
        try:
            return CELL, row, [row.cell_contents], [id(row.cell_contents)]
        except ValueError:
            return CELL, row, [], [0]
    if isinstance(row, FunctionType):
        objects = [row.__code__, row.__defaults__, row.__kwdefaults__]
        return FUNCTION, row, objects, [0 if x is None else id(x) for x in objects]
    mapping, name = row
    if name not in mapping:
        return NAMED, mapping, [name], [id(name), 0]
    return NAMED, mapping, [name, mapping[name]], [id(name), id(mapping[name])]


@kept(numba.njit, "boolean(int64, int64, int64, int64)")
def same_dict(block: Any, mapping: Any, count: Any, items: Any) -> Any:
    """Whether a dict has these keys with these values, in this order."""
    put(block + POSITION, 0)
    function, position = at(block + NEXT_ITEM), block + POSITION
    for i in range(0, count, 2):
        if not next_item(function, mapping, position, block + KEY, block + VALUE):
            return False
        if at(block + KEY) != at(items + 8 * i) or at(block + VALUE) != at(items + 8 * i + 8):
            return False
    return not next_item(function, mapping, position, block + KEY, block + VALUE)


@kept(numba.njit, "boolean(int64, int64, int64)")
def same_list(found: Any, count: Any, items: Any) -> Any:
    """Whether a list has these items."""
    if at(found + COUNT) != count:
        return False
    start = at(found + LIST_ITEMS)
    i = 0
    while i < count and at(start + 8 * i) == at(items + 8 * i):
        i += 1
    return i == count


@kept(numba.njit, "boolean(int64, int64, int64)")
def same_function(block: Any, function: Any, items: Any) -> Any:
    """Whether a function has this code and these defaults of both kinds."""
    i = 0
    while i < 24 and part(at(block + PARTS + i), function) == at(items + i):
        i += 8
    return i == 24


@kept(numba.njit, "int64(int64)")
def changed(block: Any) -> Any:
    """See `Held.changed`."""
    found = 0
    row, end = block + ROWS, at(block + END)
    while row < end:
        kind, section, container, count = at(row), at(row + 8), at(row + 16), at(row + 24)
        items = row + 32
        if kind == WHOLE:
            same = same_dict(block, container, count, items)
        elif kind == LIST:
            same = same_list(container, count, items)
        elif kind == CELL:
            same = at(container + CELL_ITEM) == at(items)
        elif kind == FUNCTION:
            same = same_function(block, container, items)
        else:
            same = item(at(block + ITEM), container, at(items)) == at(items + 8)
        if not same:
            found |= section
        row = items + 8 * count
    return found


changed_directly = directly(changed)


# Arrays


class Expected:
    """What arrays must be for a program to read them, wherever they are: of the same layout and
    dtype, aligned, and apart from what the program writes to.

    Parameters
    ----------
    arrays : of the layouts and dtypes that are expected.
    written : the memory that the program writes to.
    """

    def __init__(self, arrays: Sequence[Array], written: Sequence[Array]) -> None:
        words = [len(arrays), len(written)]
        for x in written:
            words += byte_bounds(x)
        for x in arrays:
            before, after = (end - address_of(x) for end in byte_bounds(x))
            words += [id(np.ndarray), *words_of(x.dtype), before, after, x.ndim]
            words += [*x.shape, *x.strides]
        self._words = np.array(words, np.int64)
        self._address = address_of(self._words)

    def fit(self, arrays: tuple[Array, ...]) -> bool:
        """Whether these are such arrays."""
        return fit_directly(self._address, id(arrays))  # type: ignore[no-any-return]


@kept(numba.njit, "boolean(int64, int64)")
def fit(block: Any, arrays: Any) -> Any:
    """See `Expected.fit`."""
    if at(arrays + COUNT) != at(block):
        return False
    areas = block + 16
    wanted = first = areas + 16 * at(block + 8)
    for i in range(at(block)):
        x = at(arrays + TUPLE_ITEMS + 8 * i)
        if at(x + TYPE) != at(wanted):
            return False
        dtype = at(x + DTYPE)
        if at(dtype + SCALAR) != at(wanted + 8) or at(dtype + NUMBER) != at(wanted + 16):
            return False
        start, end = at(x + DATA) + at(wanted + 24), at(x + DATA) + at(wanted + 32)
        ndim = at(wanted + 40)
        if not at(x + FLAGS) & ALIGNED or at(x + NDIM) & INT != ndim:
            return False
        shape, strides = at(x + SHAPE), at(x + STRIDES)
        wanted += 48
        for k in range(ndim):
            if at(shape + 8 * k) != at(wanted + 8 * k):
                return False
            if at(strides + 8 * k) != at(wanted + 8 * (ndim + k)):
                return False
        wanted += 16 * ndim
        for area in range(areas, first, 16):
            if start < at(area + 8) and at(area) < end:
                return False
    return True


fit_directly = directly(fit)
