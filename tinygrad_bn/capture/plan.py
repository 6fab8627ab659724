"""Which instructions are needed, and where in one block of memory their results lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinygrad_bn.backend import Array
from tinygrad_bn.capture.values import Action, Instruction, Kind, Value

LINE = 64
"""Bytes: every result begins on its own cache line."""


def needed(instructions: Sequence[Instruction], outputs: Iterable[Value]) -> list[Instruction]:
    """Without those whose results nothing reads."""
    live = {value.root for value in outputs}
    seen = set(outputs)
    kept = []
    for instruction in reversed(instructions):
        if instruction.action is Action.VIEW:
            wanted = any(value in seen for value in instruction.results)
        elif instruction.action is Action.WRITE:
            roots = [target.root for target in instruction.targets]
            wanted = any(root.kind is not Kind.RESULT or root in live for root in roots)
        else:
            wanted = instruction.action is Action.CALL or any(
                value.root in live for value in instruction.results
            )
        if wanted:
            kept.append(instruction)
            seen.update(instruction.operands)
            live.update(value.root for value in instruction.operands)
    return kept[::-1]


def lifetimes(
    instructions: Sequence[Instruction], outputs: Iterable[Value]
) -> dict[Value, tuple[int, int]]:
    """For every result the numbers of the instructions that make it and that use it last."""
    spans: dict[Value, tuple[int, int]] = {}
    for number, instruction in enumerate(instructions):
        for value in (*instruction.results, *instruction.operands):
            root = value.root
            if root.kind is Kind.RESULT:
                spans[root] = spans.get(root, (number, number))[0], number
    for value in outputs:
        if value.root in spans:
            spans[value.root] = spans[value.root][0], len(instructions)
    return spans


def size_of(value: Value) -> int:
    """Bytes in the arena."""
    return -(-math.prod(value.shape) * value.dtype.itemsize // LINE) * LINE


def layout(value: Value) -> tuple[int, ...]:
    """The strides of a result: as it was traced if that has no gaps, else C order."""
    order = sorted(range(len(value.shape)), key=lambda axis: -value.strides[axis])
    step, strides = value.dtype.itemsize, [0] * len(order)
    for axis in reversed(order):
        strides[axis] = step
        step *= value.shape[axis]
    if all(a == b for a, b, n in zip(strides, value.strides, value.shape, strict=True) if n > 1):
        return value.strides
    return np.empty(value.shape, np.void(value.dtype.itemsize).dtype).strides


@dataclass
class Arena:
    """One block of memory, and where in it each result begins."""

    size: int
    offsets: dict[Value, int]

    def memory(self) -> Array:
        """The block, aligned."""
        raw = np.empty(self.size + LINE, np.uint8)
        skip = -raw.ctypes.data % LINE
        return raw[skip : skip + self.size]


def arranged(spans: dict[Value, tuple[int, int]]) -> Arena:
    """Results in one block: each takes the tightest gap among those that live when it does."""
    placed: list[tuple[int, int, int, int]] = []  # first and last use, offset, end
    offsets: dict[Value, int] = {}
    size = 0
    for value, (first, last) in sorted(spans.items(), key=lambda item: -size_of(item[0])):
        length = size_of(value)
        taken = sorted((a, b) for f, e, a, b in placed if f <= last and first <= e)
        best, position, tightest = None, 0, math.inf
        for start, end in [*taken, (size, size)]:
            gap = start - position
            if length <= gap < tightest:
                best, tightest = position, gap
            position = max(position, end)
        if best is None:
            best = max((end for _, end in taken), default=0)
        offsets[value] = best
        placed.append((first, last, best, best + length))
        size = max(size, best + length)
    return Arena(size, offsets)


def homes(
    instructions: Sequence[Instruction], spans: dict[Value, tuple[int, int]]
) -> dict[Instruction, Value]:
    """Stores that need not be: what is stored may be made where it is stored to.

    By the store's instruction, the result that is made there. It must be read by nothing later,
    and nothing between may read or write the place.
    """
    found: dict[Instruction, Value] = {}
    taken: set[Value] = set()
    for number, instruction in enumerate(instructions):
        if instruction.name != "store" or not isinstance(instruction.args[1], Value):
            continue
        target, value = instruction.args
        root = value.root
        if root not in spans or root in taken or target.kind is not Kind.STATE:
            continue
        first, last = spans[root]
        place = target.array
        fits = (
            last == number
            and instructions[first].action is Action.MAKE
            and root.dtype == target.dtype
            and value.shape == target.shape
            and math.prod(root.shape) == place.size
            and place.flags.c_contiguous
            and is_c_order(root)
            and is_c_order(value)
        )
        if fits and not touched(instructions[first:number], place):
            found[instruction] = root
            taken.add(root)
    return found


def is_c_order(value: Value) -> bool:
    """Whether a value lies in C order without gaps."""
    step = value.dtype.itemsize
    for n, stride in zip(reversed(value.shape), reversed(value.strides), strict=True):
        if n > 1 and stride != step:
            return False
        step *= n
    return True


def touched(instructions: Sequence[Instruction], place: Array) -> bool:
    """Whether one of the instructions may read or write this memory of the state's."""
    for instruction in instructions:
        if instruction.action is Action.CALL:
            return True
        for value in instruction.operands:
            array = value.root.array
            if value.root.kind is Kind.INPUT:
                continue
            if array is not None and np.may_share_memory(array, place):
                return True
    return False
