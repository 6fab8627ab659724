"""What walks through time know before they begin: their steps, in blocks, and what they keep.

What all steps have in common is done a block of them at a time: the products with x before their
steps, and the gradients of weights after theirs, so that steps find the one and leave the other in
the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinygrad_bn.backend import Array

from .sequence_cells import CELLS
from .sequence_norms import At, in_walk

BLOCK = 2**17
"""How many elements the products with x have in a block: half a megabyte of float32."""


class Forward(NamedTuple):
    """The arguments of `walk_forward`."""

    cell: str
    x: Array
    weights: Any
    states: tuple[Array, ...]
    norms: Any
    sizes: tuple[int, ...]
    reverse: bool


class Backward(NamedTuple):
    """The arguments of `walk_backward`."""

    cell: str
    dy: Array
    dstates: tuple[Array, ...]
    x: Array
    weights: Any
    states: tuple[Array, ...]
    norms: Any
    y: Array
    kept: tuple[Array, ...]
    sizes: tuple[int, ...]
    reverse: bool
    needs: tuple[bool, ...]


class Block(NamedTuple):
    """Steps one after the other, and the rows of all of them."""

    rows: slice
    steps: tuple[At, ...]


@lru_cache(maxsize=256)
def blocks_of(sizes: tuple[int, ...], reverse: bool, least: int) -> tuple[Block, ...]:
    """The steps of a walk, in blocks of at least so many rows but for the last."""
    ends = np.cumsum(sizes).tolist()
    spans = [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    found, steps = [], list[tuple[int, slice]]()
    for k, span in enumerate(spans[::-1] if reverse else spans):
        steps.append((k, span))
        start = min(steps[0][1].start, span.start)
        stop = max(steps[0][1].stop, span.stop)
        if stop - start >= least or k == len(spans) - 1:
            found.append(Block(slice(start, stop), tuple(placed(*each, start) for each in steps)))
            steps = []
    return tuple(found)


def placed(step: int, rows: slice, start: int) -> At:
    """A step in a block that begins at a row."""
    inside = slice(rows.start - start, rows.stop - start)
    return At(step, rows, rows.stop - rows.start, inside)


class Running:
    """A state along a walk: the rows of sequences that run, and in ``final`` those of the ended."""

    def __init__(self, first: Array, final: Array | None = None) -> None:
        self.first, self.final, self.rows = first, final, first[:0]

    def at(self, count: int) -> Array:
        """The rows of the first ``count`` sequences, which are those that run now."""
        known = len(self.rows)
        if not known:
            self.rows = self.first[:count]
        elif known < count:
            self.rows = np.concatenate([self.rows, self.first[known:count]])
        elif known > count:
            self.end(count)
            self.rows = self.rows[:count]
        return self.rows

    def end(self, count: int = 0) -> None:
        """All but the first ``count`` sequences have ended."""
        if self.final is not None:
            np.copyto(self.final[count : len(self.rows)], self.rows[count:])


def states_before(initial: Array, after: Array, blocks: Sequence[Block]) -> list[Array]:
    """A state before each step, from what it was before the first and after each."""
    running, found = Running(initial), []
    for block in blocks:
        for at in block.steps:
            found.append(running.at(at.n))
            running.rows = after[at.rows]
    return found


class Plan:
    """What a walk knows before it begins.

    Attributes
    ----------
    blocks : its steps.
    count, size, columns : how many sequences and hidden units there are, and sums in the gates.
    longest : the rows of the largest block.
    """

    def __init__(self, given: Forward | Backward) -> None:
        self.kind, self.dtype, self.norms = CELLS[given.cell], given.x.dtype, given.norms
        self.columns, self.count = len(given.weights[0]), max(given.sizes)
        self.size, self.rows = self.columns // self.kind.gates, sum(given.sizes)
        self.projected = given.weights[4] is not None
        self.places = [arrays[0].place for arrays in given.norms]
        self.blocks = blocks_of(given.sizes, given.reverse, max(BLOCK // self.columns, 1))
        self.longest = max(block.rows.stop - block.rows.start for block in self.blocks)

    @property
    def raw(self) -> int:
        """How many arrays of products are kept as they were before their norms."""
        return 1 if "sum" in self.places else 2 if "x" in self.places else 0

    def kept(self) -> list[Array]:
        """Memory for what a walk keeps: statistics, then arrays with a row for each of x.

        The rows are one piece: of pieces that are given back one by one, the system takes some, and
        has to find and clear them again for the next walk.
        """
        found, steps = list[Array](), sum(len(block.steps) for block in self.blocks)
        for norm, weight, *_ in self.norms:
            shape = (self.rows, len(norm.widths)) if norm.widths else (steps, len(weight))
            found += (np.empty(shape), np.empty(shape))
        widths = (self.columns,) * self.raw + self.kind.widths(self.size, "c" in self.places)
        widths += (self.size,) * self.projected
        piece, start = np.empty(self.rows * sum(widths), self.dtype), 0
        for width in widths:
            stop = start + self.rows * width
            found.append(piece[start:stop].reshape(self.rows, width))
            start = stop
        return found

    def found(self, kept: Sequence[Array]) -> tuple[dict[str, Any], Sequence[Array], Any]:
        """The norms, the products before their norms, and the cell, on what is kept."""
        statistics = 2 * len(self.norms)
        norms = in_walk(self.norms, kept[:statistics])
        rows = kept[statistics:]
        of_cell = rows[self.raw : len(rows) - self.projected]
        shape = (self.count, self.size)
        return norms, rows[: self.raw], self.kind(of_cell, norms.get("c"), shape, self.dtype)
