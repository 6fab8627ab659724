"""Packed sequences: rows without padding, taken at an index that names none of them twice, and met
step by step.

The rows hold step 0 of every sequence, then step 1 of those that have one, and so on, the longest
sequence first. ``sizes`` says how many rows each step has, and never grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.ops.join import cut

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class TakeRows(Function):
    """The rows of x at an index, with rows of ``fill`` where it is -1.

    The index names no row twice, so that the gradient takes rows too, at the ``inverse``: for each
    row of x its place in the result, or -1.
    """

    def forward(self, x: Array, *, index: Array, inverse: Array, fill: float = 0.0) -> Array:
        self.index, self.inverse = index, inverse
        return taken(self.xp, x, index, fill)

    def backward(self, dy: Array, /) -> Array:
        return taken(self.xp, dy, self.inverse, 0.0)


def taken(xp: Any, x: Array, index: Array, fill: float) -> Array:
    """The rows of x and, behind them as row -1, one of ``fill``, at an index."""
    last = xp.full((1, *x.shape[1:]), fill, dtype=x.dtype)
    return xp.concatenate([x, last], axis=0)[(index,)]


def take_rows(x: Tensor, index: Any, inverse: Any, fill: float = 0.0) -> Tensor:
    """`TakeRows` with an index that is known on the host."""
    there = [x.backend.asarray(rows) for rows in (index, inverse)]
    return TakeRows.apply(x, index=there[0], inverse=there[1], fill=fill)  # type: ignore[no-any-return]


def spans(sizes: Sequence[int]) -> list[slice]:
    """The rows of each step."""
    return [slice(end - n, end) for n, end in zip(sizes, accumulate(sizes), strict=True)]


def by_step(x: Array, sizes: Sequence[int], reverse: bool = False) -> list[Array]:
    """The rows of each step, in the order of a walk: in ``reverse`` from the last step."""
    if isinstance(x, Variable):  # in one node: the gradient of each view is as large as x
        found = list(cut(x, sizes, 0))  # type: ignore[arg-type]
    else:
        found = [x[rows] for rows in spans(sizes)]
    return found[::-1] if reverse else found


def in_order(xp: Any, steps: Sequence[Array], reverse: bool = False) -> Array:
    """What a walk found for the rows of each step, in the order of rows."""
    return xp.concatenate(steps[::-1] if reverse else steps, axis=0)


class Running:
    """The rows of a state that belong to sequences running at a step of a walk.

    Sequences that end are put aside, sequences that begin come from what is ``given`` for all.
    """

    def __init__(self, xp: Any, given: Array) -> None:
        self.xp, self.given = xp, given
        self.rows = given[:0]
        self.ended: list[Array] = []

    def at(self, count: int) -> Array:
        """The rows of the first ``count`` sequences, which are those that run now."""
        known = self.rows.shape[0]
        if not known:
            self.rows = self.given[:count]
        elif known < count:
            self.rows = self.xp.concatenate([self.rows, self.given[known:count]], axis=0)
        elif known > count:
            self.ended.append(self.rows[count:])
            self.rows = self.rows[:count]
        return self.rows

    def all(self) -> Array:
        """The rows of all sequences after the last step of the walk."""
        if not self.ended:
            return self.rows
        return self.xp.concatenate([self.rows, *reversed(self.ended)], axis=0)


def states_before(xp: Any, initial: Array, after: Sequence[Array]) -> list[Array]:
    """A state before each step of a walk, from what it was before the first and after each."""
    running, found = Running(xp, initial), []
    for rows in after:
        found.append(running.at(rows.shape[0]))
        running.rows = rows
    return found
