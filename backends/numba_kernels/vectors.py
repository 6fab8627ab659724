"""Vectors for compiled code that must say itself what stands in registers.

LLVM makes vectors of the innermost loop, and of 256 bits where it may. Tiles of sums that stay in
registers while a loop passes are nothing that it finds: kernels that need them take, from arrays of
one axis in C order, vectors of as many floats as half of a tile's row holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model
from numba.np import arrayobj

intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic

BYTES = 128 if llvm.get_host_cpu_features().get("avx512f") else 32
"""How many bytes a vector has: two registers of 512 bits, or one of 256. Eight vectors, and what is
multiplied into them, then stay in registers in either case.
"""


class Vector(types.Type):
    """As many floats as `BYTES` hold."""

    def __init__(self, real: Any) -> None:
        self.real = real
        super().__init__(name=f"Vector({real})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector of LLVM."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        real = manager.lookup(kind.real).get_value_type()
        whole = ir.VectorType(real, 8 * BYTES // kind.real.bitwidth)
        super().__init__(manager, kind, whole)  # type: ignore[no-untyped-call]


def address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    """Where array[i] is; i is never negative, and nothing checks it."""
    make: Any = arrayobj.make_array
    return builder.gep(make(kind)(context, builder, array).data, [i])


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """The vector that begins with array[i]."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args)
        whole = builder.bitcast(place, context.get_value_type(kind).as_pointer())
        return builder.load(whole, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, vector: Any) -> Any:
    """Put a vector where array[i] begins."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args[:2])
        whole = builder.bitcast(place, args[2].type.as_pointer())
        builder.store(args[2], whole, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def repeated(typing: Any, array: Any, i: Any) -> Any:
    """array[i] in every place of a vector."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(address(context, builder, signature.args[0], *args))
        whole = context.get_value_type(kind)
        one = builder.insert_element(ir.Constant(whole, ir.Undefined), value, ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), whole.count), [0] * whole.count)
        return builder.shuffle_vector(one, ir.Constant(whole, ir.Undefined), order)

    return kind(array, types.intp), generate


@intrinsic
def zeros(typing: Any, array: Any) -> Any:
    """A vector of zeros, of the floats of an array."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array), generate


@intrinsic
def fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = args[0].type
        letter = "f32" if isinstance(whole.element, ir.FloatType) else "f64"
        name = f"llvm.fmuladd.v{whole.count}{letter}"
        find: Any = cgutils.get_or_insert_function
        return builder.call(find(builder.module, ir.FunctionType(whole, [whole] * 3), name), args)

    return a(a, b, c), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """The sum of a vector's floats, half with half, half of that with its other half, and so on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (part,) = args
        index = ir.IntType(32)
        while part.type.count > 1:
            half, nothing = part.type.count // 2, ir.Constant(part.type, ir.Undefined)
            order = ir.VectorType(index, half)
            low = builder.shuffle_vector(part, nothing, ir.Constant(order, [*range(half)]))
            high = ir.Constant(order, [*range(half, 2 * half)])
            part = builder.fadd(low, builder.shuffle_vector(part, nothing, high))
        return builder.extract_element(part, index(0))

    return vector.real(vector), generate
