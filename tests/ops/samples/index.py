"""Samples of reading and distributing elements by their places."""

from __future__ import annotations

import numpy as np

from tests.ops.samples import Sample, normal, whole

X = (normal(3, 4, 5),)
INDEX = np.array([[0, 2, 1], [1, 1, 0]])
PLACES = np.array([2, 0, 2])


def at(*index):
    return lambda t, x: x[index if len(index) != 1 else index[0]]


SAMPLES = [
    Sample("getitem", at(1), X, notes="integer"),
    Sample("getitem", at(-1, 2, 3), X, notes="integers"),
    Sample("getitem", at(slice(None, None, 2), ..., slice(-3, -1)), X, notes="slices"),
    Sample("getitem", at(None, 0, ..., None), X, notes="new axes"),
    Sample("getitem", at([0, 2, 0]), X, notes="list"),
    Sample("getitem", at([0, 2, 0], slice(None), [1, 1, 4]), X, notes="lists apart"),
    Sample("getitem", at(0, slice(None), [1, -1]), X, notes="integer and list"),
    Sample("getitem", lambda t, x, i: x[:, i], (*X, INDEX), notes="tensor"),
    Sample("getitem", lambda t, x, m: x[m > 0], (*X, normal(3, 4)), notes="mask"),
    Sample("getitem", lambda t, x, m, i: x[m > 0, i], (*X, normal(3), PLACES[:2]), notes="mixed"),
    Sample("getitem", at([]), X, notes="empty"),
    Sample("gather", lambda t, x, i: t.gather(x, 1, i), (normal(2, 4), INDEX)),
    Sample("gather", lambda t, x, i: t.gather(x, 0, i), (normal(3, 4), INDEX), notes="shorter"),
    Sample("take_along_dim", lambda t, x, i: t.take_along_dim(x, i, 1), (normal(2, 4), INDEX[:1])),
    Sample("take_along_dim", lambda t, x, i: t.take_along_dim(x, i), (normal(2, 4), INDEX)),
    Sample(
        "take_along_dim",
        lambda t, x, i: t.take_along_dim(x, i, 1),
        (normal(2, 4), INDEX - 3),
        notes="from the end",
    ),
    Sample(
        "index_select",
        lambda t, x, i: t.index_select(x, 0, i),
        (normal(), PLACES[1:2]),
        notes="scalar",
    ),
    Sample(
        "index_add",
        lambda t, x, i, y: t.index_add(x, 0, i, y),
        (normal(), PLACES[1:2], normal(seed=1)),
        notes="scalar",
    ),
    Sample(
        "scatter",
        lambda t, x, i: t.scatter(x > 0, 1, i, i > 0),
        (normal(3, 4), INDEX),
        differentiable=False,
        notes="bool",
    ),
    Sample(
        "scatter_add",
        lambda t, x, i, y: t.scatter_add(x, 1, i, y),
        (normal(3, 4), INDEX, normal(2, 3)),
    ),
    Sample(
        "scatter",
        lambda t, x, i, y: t.scatter(x, 1, i, y),
        (normal(3, 4), np.array([[3, 0], [1, 2]]), normal(2, 2)),
    ),
    Sample("scatter", lambda t, x, i: t.scatter(x, 1, i, 0.5), (normal(3, 4), INDEX)),
    Sample("index_select", lambda t, x, i: t.index_select(x, 1, i), (normal(2, 4), PLACES)),
    Sample(
        "index_add",
        lambda t, x, i, y: t.index_add(x, 1, i, y, alpha=2),
        (normal(2, 4), PLACES, normal(2, 3)),
    ),
    Sample("masked_fill", lambda t, x, m: x.masked_fill(m > 0, 2), (normal(3, 4), normal(4))),
    Sample(
        "masked_fill",
        lambda t, x, m, y: x.masked_fill(m > 0, y),
        (normal(3, 4), whole(3, 4), normal()),
        notes="tensor",
    ),
    Sample("masked_select", lambda t, x, m: t.masked_select(x, m > 0), (normal(3, 4), whole(3, 1))),
    Sample("take", lambda t, x, i: t.take(x, i), (normal(3, 4), INDEX)),
    Sample("where", lambda t, m: t.where(m > 0)[1], (normal(3, 4),), differentiable=False),
    Sample("nonzero", lambda t, m: t.nonzero(m > 0), (normal(3, 4),), differentiable=False),
    Sample("one_hot", lambda t, i: t.nn.functional.one_hot(i, 4), (INDEX,), differentiable=False),
]
