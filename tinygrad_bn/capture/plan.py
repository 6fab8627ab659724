"""Which instructions are needed, and where in one block of memory their results lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

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
    if is_dense(value):
        return value.strides
    return np.empty(value.shape, np.void(value.dtype.itemsize).dtype).strides


def is_dense(value: Value) -> bool:
    """Whether a value's elements are neighbours in memory, in whatever order of its axes."""
    axes = sorted(zip(value.strides, value.shape, strict=True))
    step = value.dtype.itemsize
    for stride, n in axes:
        if n > 1:
            if stride != step:
                return False
            step *= n
    return True


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


Overlap: TypeAlias = Callable[[Array, Array], bool]


def homes(
    instructions: Sequence[Instruction],
    spans: dict[Value, tuple[int, int]],
    overlap: Overlap = np.may_share_memory,
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
            and math.prod(root.shape) == place.size
            and same_layout(value, target)
            and is_dense(root)
            and is_dense(value)
        )
        if fits and not touched(instructions[first:number], place, overlap):
            found[instruction] = root
            taken.add(root)
    return found


def same_layout(a: Value, b: Value) -> bool:
    """Whether two values have one shape, and lie in memory alike."""
    steps = zip(a.strides, b.strides, a.shape, strict=False)
    return a.shape == b.shape and all(x == y for x, y, n in steps if n > 1)


def touched(instructions: Sequence[Instruction], place: Array, overlap: Overlap) -> bool:
    """Whether one of the instructions may read or write this memory of the state's."""
    for instruction in instructions:
        if instruction.action is Action.CALL:
            return True
        for value in instruction.operands:
            array = value.root.array
            if value.root.kind is Kind.INPUT:
                continue
            if array is not None and overlap(array, place):
                return True
    return False
