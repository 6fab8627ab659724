"""Chains: neighbouring loops of ufuncs over as many elements, run together a block at a time, so
that what one leaves for the next is still in the first cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from tinygrad_bn.backend import Array

from ..numba_kernels.compilation import kept
from .assembly import NativeCall
from .objects import address_of
from .ufunc_loops import (
    COUNT,
    DATA,
    INNER,
    MOST,
    OUTER,
    STEPS,
    address,
    call_loop,
    carray,
    walk,
)

BLOCK = 2048
"""Elements at a time: a handful of operands fit into the first cache, and a call counts little."""

CALLS, LENGTH, BLOCK_LENGTH, HEAD = 1, 2, 3, 4
LOOP, LOOP_DATA, NARGS, LOOP_STEPS = 0, 1, 2, 3
FIRST = LOOP_STEPS + MOST
NOW = FIRST + MOST
SIZE = NOW + MOST
"""Where in a block of operands, and behind its head in the part of each call, the words are."""


@dataclass(frozen=True, slots=True)
class Span:
    """The memory of an operand that a loop steps through, from start to end."""

    start: int
    end: int
    step: int

    def apart(self, other: Span) -> bool:
        return self.end <= other.start or other.end <= self.start

    def beside(self, other: Span) -> bool:
        """Whether block by block is as good as one after the other, if one of them is written."""
        return self.apart(other) or (self.start, self.step) == (other.start, other.step)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop along one axis, as a part of a chain."""

    call: NativeCall
    length: int
    operands: tuple[Array, ...]
    spans: tuple[Span, ...]
    given: bool

    @property
    def written(self) -> Span:
        return self.spans[-1]

    def follows(self, chain: Sequence[Loop], own: Span) -> bool:
        """Whether it may join a chain: as long, and no place is written before its time. What is
        given from outside may be anywhere, and then all that is written must be the program's own.
        """
        together = [*chain, self]
        if any(loop.given for loop in together):
            inside = (own.start <= x.written.start < own.end for x in together)
            if not all(inside):
                return False
        return all(
            loop.length == self.length
            and all(self.written.beside(span) for span in loop.spans)
            and all(loop.written.beside(span) for span in self.spans)
            for loop in chain
        )


def loop_of(call: NativeCall, inputs: Sequence[Span]) -> Loop | None:
    """The call as a loop along one axis that pays to be cut; None if it is none."""
    if call.kind != walk.address or call.operands[OUTER - 1] != 1:
        return None
    count, length = call.operands[COUNT - 1], call.operands[INNER - 1]
    steps = call.operands[STEPS - 1 : STEPS - 1 + count]
    arrays = call.operands[STEPS - 1 + MOST : STEPS - 1 + MOST + count]
    if length <= BLOCK or any(step < 0 for step in steps) or not steps[-1]:
        return None
    spans = []
    for x, step in zip(arrays, steps, strict=True):
        start = address_of(x)
        spans.append(Span(start, start + (length - 1) * step + x.itemsize, step))
    given = any(not span.apart(place) for span in spans for place in inputs)
    return Loop(call, length, arrays, tuple(spans), given)


def chained(
    calls: Sequence[NativeCall], inputs: Sequence[Array], own: Array
) -> Iterator[tuple[NativeCall, int]]:
    """The calls, loops that can be taken together as one, each with the number of its first.

    Parameters
    ----------
    inputs : stand-ins for what a run may bring from anywhere.
    own : memory that nobody else has.
    """
    places = [Span(*np.lib.array_utils.byte_bounds(x), 1) for x in inputs]
    here = Span(*np.lib.array_utils.byte_bounds(own), 1)
    chain: list[Loop] = []
    for number, call in enumerate(calls):
        loop = loop_of(call, places)
        if chain and (loop is None or not loop.follows(chain, here)):
            yield together(chain), number - len(chain)
            chain = []
        if loop is None:
            yield call, number
        else:
            chain.append(loop)
    if chain:
        yield together(chain), len(calls) - len(chain)


def together(chain: Sequence[Loop]) -> NativeCall:
    """One call for a chain."""
    if len(chain) == 1:
        return chain[0].call
    words: list[Any] = [len(chain), chain[0].length, 0]
    for loop in chain:
        spare = (0,) * (MOST - len(loop.operands))
        steps = [span.step for span in loop.spans]
        words += [loop.call.target, loop.call.operands[DATA - 1], len(steps), *steps, *spare]
        words += [*loop.operands, *spare, *(0,) * MOST]
    return NativeCall(0, in_blocks.address, tuple(words), [loop.call.held for loop in chain])


@kept(numba.cfunc, "int32(CPointer(int64))")
def in_blocks(block: Any) -> Any:
    """Call all loops for a block of elements, then for the next."""
    head: Any = carray(block, (HEAD,))
    count, length = head[CALLS], head[LENGTH]
    words: Any = carray(block, (HEAD + count * SIZE,))
    base: Any = address(block)
    for start in range(0, length, BLOCK):
        words[BLOCK_LENGTH] = min(BLOCK, length - start)
        for i in range(count):
            part = HEAD + i * SIZE
            for k in range(words[part + NARGS]):
                words[part + NOW + k] = (
                    words[part + FIRST + k] + start * words[part + LOOP_STEPS + k]
                )
            call_loop(
                words[part + LOOP],
                base + 8 * (part + NOW),
                base + 8 * BLOCK_LENGTH,
                base + 8 * (part + LOOP_STEPS),
                words[part + LOOP_DATA],
            )
    return 0
