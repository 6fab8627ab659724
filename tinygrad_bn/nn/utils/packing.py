"""Sequences of several lengths as rows without padding, and back.

Packed, the rows hold step 0 of every sequence, then step 1 of those that have one, and so on, the
longest sequence first: what PyTorch calls a packed sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.packing import take_rows
from tinygrad_bn.tensors import Tensor

Whole = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Packing:
    """How sequences of several lengths are packed.

    ``lengths`` are the sequences', the longest first; ``order`` says which one comes where.
    """

    lengths: Whole
    order: Whole

    @classmethod
    def of(cls, lengths: Sequence[int], ordered: bool = False) -> Self:
        """The packing of sequences of these lengths; ``ordered`` leaves them in their order.

        Raises
        ------
        ArgumentError
            If there is none, one is empty or, ``ordered``, longer than the one before it.
        """
        known = np.array(lengths, dtype=np.int64)
        if not known.size or known.min() < 1:
            raise ArgumentError(f"expected lengths of at least 1, got {list(lengths)}")
        if ordered and (known[1:] > known[:-1]).any():
            raise ArgumentError(
                f"expected lengths in descending order, or enforce_sorted=False, got "
                f"{list(lengths)}"
            )
        order = np.argsort(-known, kind="stable")
        return cls(known[order], order)

    @classmethod
    def with_sizes(cls, sizes: Sequence[int]) -> Self:
        """The packing, with sequences in the order they have, of so many rows at each step.

        Raises
        ------
        ShapeError
            If there is no step, or a step has no row or more than the one before it.
        """
        known = np.array(sizes, dtype=np.int64)
        if not known.size or known[-1] < 1 or (known[1:] > known[:-1]).any():
            raise ShapeError(
                f"expected sizes of steps of at least 1 that never grow, got {list(sizes)}"
            )
        order = np.arange(known[0])
        return cls((known[:, None] > order).sum(0), order)

    @cached_property
    def running(self) -> tuple[Whole, Whole]:
        """The step and the sequence, in packed order, of every row."""
        steps = np.arange(self.lengths[0])[:, None]
        step, sequence = np.nonzero(steps < self.lengths)
        return step, sequence

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many rows each step has."""
        return tuple(np.bincount(self.running[0]).tolist())

    @cached_property
    def mirror(self) -> Whole:
        """For every row that of the same sequence, read from its end."""
        step, sequence = self.running
        starts = np.cumsum(self.sizes) - self.sizes
        return np.asarray(starts[self.lengths[sequence] - 1 - step] + sequence)

    def places(self, steps: int) -> tuple[Whole, Whole]:
        """For every row its place in (T · N) padded ones, for every padded one its row or -1."""
        step, sequence = self.running
        padded = step * len(self.order) + self.order[sequence]
        rows = np.full(steps * len(self.order), -1)
        rows[padded] = np.arange(len(padded))
        return padded, rows

    def pack(self, x: Tensor) -> Tensor:
        """The rows of x (T, N, *)."""
        steps, n, *rest = x.shape
        padded, rows = self.places(steps)
        return take_rows(x.reshape(steps * n, *rest), padded, rows)

    def interleave(self, x: Tensor) -> Tensor:
        """The rows of x, which has one sequence after the other, in the order they came in."""
        given = self.lengths[np.argsort(self.order)]
        starts = np.cumsum(given) - given
        step, sequence = self.running
        index = starts[self.order][sequence] + step
        return take_rows(x, index, np.argsort(index))

    def pad(self, x: Tensor, steps: int | None = None, fill: float = 0.0) -> Tensor:
        """Rows as (T, N, *), by default with as many steps as the longest sequence has."""
        steps = int(self.lengths[0]) if steps is None else steps
        padded, rows = self.places(steps)
        y = take_rows(x, rows, padded, fill)
        return y.reshape(steps, len(self.order), *x.shape[1:])

    def mirrored(self, x: Tensor) -> Tensor:
        """The rows with every sequence read from its end."""
        return take_rows(x, self.mirror, self.mirror)

    def sorted(self, state: Tensor) -> Tensor:
        """A state (L, N, H) of sequences as given, in packed order."""
        return self._moved(state, self.order, np.argsort(self.order))

    def unsorted(self, state: Tensor) -> Tensor:
        """A state (L, N, H) in packed order, of sequences as given."""
        return self._moved(state, np.argsort(self.order), self.order)

    def _moved(self, state: Tensor, index: Whole, inverse: Whole) -> Tensor:
        if (index == np.arange(len(index))).all():
            return state
        return take_rows(state.transpose(0, 1), index, inverse).transpose(0, 1)
