"""A tile of a matrix product, all of whose sums stay in registers while everything that they are
made of passes: what BLAS calls its micro-kernel (Goto, van de Geijn: Anatomy of High-Performance
Matrix Multiplication, 2008, section 6).

LLVM is told here what it would not find: a loop over the terms whose body is a load of one or two
registers, and a multiply-add into those of each row. Matrices are arrays of one axis, and numbers
say how far apart in it their rows and columns are: one compiled tile serves all layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .vectors import BYTES, address, intrinsic

REGISTER = min(BYTES, 64)
WIDTH = 2 * REGISTER
"""How many bytes a register has, and a row of a tile."""
HEIGHTS = (12, 8, 4, 2, 1) if REGISTER == 64 else (6, 5, 4, 2, 1)
"""How many rows tiles have. The sums of the tallest and what they are made of, two registers and a
third for a number in all places, fill the 32 registers of AVX-512 or the 16 of AVX2.
"""
GROUP = 4
"""So many rows are found from where the first of them is. From one start LLVM would find each row
from the one before, and a tile would wait for its addresses.
"""
I32, I64 = ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class Registers:
    """Instructions on whole registers of floats."""

    builder: Any
    real: ir.Type
    size: int

    @property
    def type(self) -> ir.VectorType:
        return ir.VectorType(self.real, REGISTER // self.size)

    def opaque(self, number: Any) -> Any:
        """The same number, of which LLVM does not know how it was found."""
        return self.builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", (number,), False)

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, self.real.as_pointer())

    def places(self, start: Any, step: Any, count: int = WIDTH // REGISTER) -> list[Any]:
        """Where so many registers side by side have their values, that many floats on."""
        along = range(0, count * self.type.count, self.type.count)
        places = [self.builder.gep(start, [self.builder.add(step, I64(c))]) for c in along]
        return [self.builder.bitcast(place, self.type.as_pointer()) for place in places]

    def load(self, place: Any) -> Any:
        return self.builder.load(place, align=self.size)

    def store(self, values: Any, place: Any) -> None:
        self.builder.store(values, place, align=self.size)

    def everywhere(self, value: Any) -> Any:
        """A value in all places of a register."""
        nothing = ir.Constant(self.type, ir.Undefined)
        one = self.builder.insert_element(nothing, value, I32(0))
        order = ir.Constant(ir.VectorType(I32, self.type.count), [0] * self.type.count)
        return self.builder.shuffle_vector(one, nothing, order)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once where the machine can."""
        name = f"llvm.fmuladd.v{self.type.count}{'f32' if self.size == 4 else 'f64'}"
        find: Any = cgutils.get_or_insert_function
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.builder.call(find(self.builder.module, kind, name), [a, b, c])

    def prefetch(self, place: Any) -> None:
        """Have the line of a place brought to the first cache, for reading."""
        find: Any = cgutils.get_or_insert_function
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = find(self.builder.module, kind, "llvm.prefetch.p0i8")
        where = self.builder.bitcast(place, byte)
        self.builder.call(function, [where, I32(0), I32(3), I32(1)])

    def interleaved(self, a: Any, b: Any, half: int) -> Any:
        """The first half of each, or the second, in turns."""
        n = self.type.count
        order = [p for i in range(half * n // 2, (half + 1) * n // 2) for p in (i, n + i)]
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, n), order))


def registers(context: Any, builder: Any, real: Any) -> Registers:
    """Of floats of this type."""
    return Registers(builder, context.get_value_type(real), real.bitwidth // 8)


def tile(rows: int, ahead: int = 0) -> Any:
    """The function that adds up a tile of so many rows, as wide as `WIDTH`; and asks for what lies
    so many bytes ahead of a's first row, if any, when it comes by.
    """

    @intrinsic
    def multiply(
        typing: Any, like: Any, a: Any, down: Any, along: Any, b: Any, after: Any, terms: Any,
        y: Any, apart: Any, fresh: Any,
    ) -> Any:  # fmt: skip
        """y[r, :] += Σ a[r, l] b[l, :] over so many terms l, of which there are some; what is in y
        counts for nothing if it is ``fresh``. The three are addresses, of numbers as an array
        ``like`` them holds; ``down``, ``after`` and ``apart`` say how many numbers lie between the
        beginnings of their rows, ``along`` between those of columns of a.
        """
        n, real = types.intp, like.dtype
        given = (like, n, n, n, n, n, n, n, n, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            of = registers(context, builder, real)
            left, right, out = (of.pointer(args[p]) for p in (1, 4, 7))
            down, along, after, terms, apart, fresh = (args[p] for p in (2, 3, 5, 6, 8, 9))
            steps = [builder.mul(apart, I64(r)) for r in range(rows)]
            places = [place for step in steps for place in of.places(out, step)]
            new: Any = cgutils.alloca_once
            sums = [new(builder, of.type) for _ in places]
            with builder.if_else(fresh) as (anew, on):
                with anew:
                    for total in sums:
                        of.store(ir.Constant(of.type, None), total)
                with on:
                    for place, total in zip(places, sums, strict=True):
                        of.store(of.load(place), total)
            offsets = [of.opaque(builder.mul(down, I64(r))) for r in range(0, rows, GROUP)]
            groups = [builder.gep(left, [offset]) for offset in offsets]
            with cgutils.for_range(builder, terms) as loop:
                begin = builder.mul(along, loop.index)
                if ahead:
                    of.prefetch(builder.gep(left, [builder.add(begin, I64(ahead // of.size))]))
                vectors = [*map(of.load, of.places(right, builder.mul(after, loop.index)))]
                for r in range(rows):
                    at = builder.add(begin, builder.mul(down, I64(r % GROUP)))
                    x = of.everywhere(builder.load(builder.gep(groups[r // GROUP], [at])))
                    for c, vector in enumerate(vectors, r * len(vectors)):
                        of.store(of.fused(x, vector, of.load(sums[c])), sums[c])
            for place, total in zip(places, sums, strict=True):
                of.store(of.load(total), place)
            return context.get_dummy_value()

        return types.void(*given), generate

    return multiply


@intrinsic
def transposed(typing: Any, a: Any, i: Any, apart: Any, y: Any, at: Any) -> Any:
    """y[at + c·width + r] = a[i + r·apart + c], for a square of as many rows as a register holds
    numbers, where the width is that of a tile.

    Rows are interleaved with those half a square away, as cards are shuffled, until each has met
    all others.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = address(context, builder, a, *args[:2])
        target = address(context, builder, y, *args[3:])
        of = registers(context, builder, a.dtype)
        n, width = of.type.count, WIDTH // of.size
        places = [of.places(source, builder.mul(args[2], I64(r)), 1)[0] for r in range(n)]
        rows = [of.load(place) for place in places]
        for _ in range(n.bit_length() - 1):
            rows = [of.interleaved(rows[r // 2], rows[r // 2 + n // 2], r % 2) for r in range(n)]
        for r, row in enumerate(rows):
            of.store(row, of.places(target, I64(r * width), 1)[0])
        return context.get_dummy_value()

    n = types.intp
    return types.void(a, n, n, y, n), generate
