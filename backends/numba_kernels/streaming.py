"""Vectors written past the caches, for results too large for any of them.

An ordinary store has its line read from memory first, a third of what a normalization moves. A
vector that fills its lines, and says that nobody needs it soon, has not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from tinygrad_bn.backend import Array

from .compilation import inlined
from .vectors import BYTES, address, intrinsic

LARGE = 3 * 2**23
"""Bytes from which on a result is written past the caches."""
UNMAPPED = 2**25
"""Bytes from which on the C library takes memory from the system, and gives it back when freed."""
LINE = min(BYTES, 64)


def is_unmapped(out: Array) -> bool:
    """Whether an array is so large and so new that its pages are cleared when they are written to
    first, which leaves their lines in the caches.
    """
    return out.nbytes >= UNMAPPED and out.base is None


@intrinsic
def stream(typing: Any, array: Any, i: Any, vector: Any) -> Any:
    """Put a vector where array[i] begins, past the caches; a line begins there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args[:2])
        whole = builder.bitcast(place, args[2].type.as_pointer())
        instruction = builder.store(args[2], whole, align=LINE)
        once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", once)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def arithmetic(name: str) -> Any:
    """An instruction on the elements of two vectors."""

    @intrinsic
    def run(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return a(a, b), generate

    return run


plus, minus, times = arithmetic("fadd"), arithmetic("fsub"), arithmetic("fmul")


@intrinsic
def rectified(typing: Any, vector: Any) -> Any:
    """max(v, 0) of each element; NaN stays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<=", args[0], zero), zero, args[0])

    return vector(vector), generate


@intrinsic
def let_back(typing: Any, grad: Any, vector: Any) -> Any:
    """The gradient where the vector is positive, and its product with 0 elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, None)
        positive = builder.fcmp_ordered(">", args[1], zero)
        return builder.select(positive, args[0], builder.fmul(args[0], zero))

    return grad(grad, vector), generate


@inlined
def whole_vectors(out: Any) -> tuple[int, int, int]:
    """Where the vectors of an array begin, where they end, and how many elements each has."""
    width = BYTES // out.itemsize
    start = min(-out.ctypes.data % LINE // out.itemsize, out.size)
    return start, start + (out.size - start) // width * width, width


@inlined
def repeat(values: Any, period: Any) -> None:
    """Let the first ``period`` values follow one another to the end of the array."""
    for k in range(period, len(values)):
        values[k] = values[k - period]
