"""Sums along axes by a table: what averages of windows and interpolation have in common.

A table says for each place of the result which values of the input it is the weighted sum of. That
is a matrix with few entries; its transpose is such a table as well, so that the one operation is
its own gradient, to every order. Nothing is scattered: the same sums in the same order, every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.dtypes import int64
from tinygrad_bn.ops.precision import narrow, wide

Row = tuple[tuple[int, float], ...]


class Table:
    """A matrix with few entries.

    Parameters
    ----------
    rows : for each place of the result, the places of the input in its sum, and their weights.
    size : how many places the input has.
    """

    def __init__(self, rows: Sequence[Row], size: int) -> None:
        self.rows, self.size = tuple(rows), size
        self._arrays: dict[Any, tuple[Array, Array]] = {}

    @cached_property
    def transposed(self) -> Table:
        """The table that takes results for inputs."""
        columns: list[list[tuple[int, float]]] = [[] for _ in range(self.size)]
        for place, row in enumerate(self.rows):
            for source, weight in row:
                columns[source].append((place, weight))
        table = Table([tuple(column) for column in columns], len(self.rows))
        table.transposed = self
        return table

    @cached_property
    def selects(self) -> bool:
        """Whether each place takes a single value as it is."""
        return bool(self.rows) and all(len(row) == 1 and row[0][1] == 1 for row in self.rows)

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where the entries of each row start among those of all rows, and where the last ends."""
        ends = [0]
        for row in self.rows:
            ends.append(ends[-1] + len(row))
        return tuple(ends)

    def arrays(self, backend: Backend, dtype: Any) -> tuple[Array, Array]:
        """Places and weights (J, O), with weight 0 where a row has fewer than J; kept."""
        found = self._arrays.get((id(backend), dtype))
        if found is None:
            longest = max(map(len, self.rows), default=0)
            filled = [(*row, *(((0, 0.0),) * (longest - len(row)))) for row in self.rows]
            places = [[row[j][0] for row in filled] for j in range(longest)]
            weights = [[row[j][1] for row in filled] for j in range(longest)]
            found = backend.asarray(places, int64), backend.asarray(weights, dtype)
            self._arrays[id(backend), dtype] = found
        return found


@kernel_point
def mixed(backend: Backend, x: Array, table: Table, axis: int) -> Array:
    """Along one axis of x, y[o] = Σ weight[o, j] x[place[o, j]]."""
    xp, before = backend.xp, (slice(None),) * axis
    places, weights = table.arrays(backend, x.dtype)
    if table.selects:
        return x[(*before, places[0])]
    shape = (len(table.rows), *(1 for _ in x.shape[axis + 1 :]))
    total = xp.zeros((*x.shape[:axis], len(table.rows), *x.shape[axis + 1 :]), dtype=x.dtype)
    for place, weight in zip(places, weights, strict=True):
        factor = xp.reshape(weight, shape)
        term = x[(*before, place)] * factor
        total = total + xp.where(factor != 0, term, 0)  # NaN times 0 is NaN
    return total


Tables = tuple[tuple[int, Table], ...]


class Mix(Function):
    """Sums by a table along each of some axes."""

    def forward(self, x: Array, *, tables: Tables) -> Array:
        self.tables = tables
        return mixed_by(self.backend, x, tables)

    def backward(self, dy: Array, /) -> Array:
        back = tuple((axis, table.transposed) for axis, table in reversed(self.tables))
        return mixed_by(self.backend, dy, back)


def mixed_by(backend: Backend, x: Array, tables: Tables) -> Array:
    """What `Mix` computes; of Tensors, as in a replay, an operation with a history."""
    if isinstance(x, Variable):
        return Mix.apply(x, tables=tables)
    y = wide(backend.xp, x)
    for axis, table in tables:
        y = mixed(backend, y, table, axis)
    return narrow(backend.xp, y, x)
