"""Sums by a table, and the greatest values of windows, over three axes; those that are missing have
one position.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, inlined

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@compiled
def mix(x: Any, bounds: Any, places: Any, weights: Any, y: Any) -> None:
    """y[a, o, b] = Σ weights[j] x[a, places[j], b] over the entries j of row o."""
    outer, rows, inner = y.shape
    for a in range(outer):
        for o in range(rows):
            if inner == 1:
                total = y.dtype.type(0)
                for j in range(bounds[o], bounds[o + 1]):
                    total += weights[j] * x[a, places[j], 0]
                y[a, o, 0] = total
                continue
            target = y[a, o]
            for b in range(inner):
                target[b] = 0
            for j in range(bounds[o], bounds[o + 1]):
                source, weight = x[a, places[j]], weights[j]
                for b in range(inner):
                    target[b] += weight * source[b]


@inlined
def keep_greater(row: Any, places: Any, base: Any, y: Any, indices: Any) -> None:
    """Where row[places] is greater than y, it and its place take over; NaN is greatest."""
    for r in range(places.size):
        value, best = row[places[r]], y[r]
        ahead = (value > best) | ((value != value) & (best == best))
        y[r] = value if ahead else best
        indices[r] = base + places[r] if ahead else indices[r]


@compiled
def greatest(x: Any, planes: Any, rows: Any, columns: Any, y: Any, indices: Any) -> None:
    """y (M, P, Q, R) and where it was, of x (M, D, H, W), by the positions (K, windows) of each
    axis. The points of a window come in C order, and the first of equals stays.
    """
    images, _, height, width = x.shape
    for m in range(images):
        for p in range(planes.shape[1]):
            for q in range(rows.shape[1]):
                best, at = y[m, p, q], indices[m, p, q]
                start = planes[0, p] * height + rows[0, q]
                for r in range(best.size):
                    at[r] = start * width + columns[0, r]
                    best[r] = x[m, planes[0, p], rows[0, q], columns[0, r]]
                for i in range(planes.shape[0]):
                    for j in range(rows.shape[0]):
                        d, h = planes[i, p], rows[j, q]
                        base = (d * height + h) * width
                        for k in range(columns.shape[0]):
                            keep_greater(x[m, d, h], columns[k], base, best, at)


@compiled
def place(values: Any, indices: Any, y: Any) -> None:
    """y (M, size): the values (M, P) at their places, added up, and zeros."""
    for m in range(values.shape[0]):
        for i in range(y.shape[1]):
            y[m, i] = 0
        for p in range(values.shape[1]):
            y[m, indices[m, p]] += values[m, p]


@lru_cache(maxsize=256)
def entries(table: Any, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Where rows of a table begin and end, and the places and weights of all."""
    flat = [entry for row in table.rows for entry in row]
    places = np.array([place for place, _ in flat], np.int64)
    weights = np.array([weight for _, weight in flat], dtype)
    return np.array(table.bounds, np.int64), places, weights


@lru_cache(maxsize=256)
def positions(spans: tuple[range, ...]) -> Array:
    """Those of each window along an axis as (K, windows), its last again where others have more."""
    longest = max(map(len, spans))
    each = [[*span, *[span[-1]] * (longest - len(span))] for span in spans]
    return np.array(each, np.int64).T.copy()


def mixed(outs: tuple[Array, ...], x: Array, table: Any, axis: int) -> Call:
    y = outs[0]
    outer, inner = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
    whole = x.reshape(outer, table.size, inner)
    return mix, (whole, *entries(table, x.dtype), y.reshape(outer, y.shape[axis], inner))


def maxima(outs: tuple[Array, ...], x: Array, spans: tuple[Any, ...]) -> Call:
    axes = tuple(map(positions, ((range(1),),) * (3 - len(spans)) + spans))
    volume = (x.shape[0], *(1,) * (3 - len(spans)), *x.shape[1:])
    count = (x.shape[0], *(table.shape[1] for table in axes))
    return greatest, (x.reshape(volume), *axes, *(out.reshape(count) for out in outs))


def placed(outs: tuple[Array, ...], values: Array, indices: Array, size: int) -> Call:
    return place, (values, indices, *outs)


def of_rows(x: Array, table: Any, axis: int) -> tuple[Array, ...]:
    return (np.empty((*x.shape[:axis], len(table.rows), *x.shape[axis + 1 :]), x.dtype),)


def of_windows(x: Array, spans: tuple[Any, ...]) -> tuple[Array, ...]:
    shape = (x.shape[0], *map(len, spans))
    return np.empty(shape, x.dtype), np.empty(shape, np.int64)


def of_places(values: Array, indices: Array, size: int) -> tuple[Array, ...]:
    return (np.empty((values.shape[0], size), values.dtype),)


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def accepts_both(values: Array, indices: Array, size: int) -> bool:
    return accepts(values) and bool(indices.flags.c_contiguous)


KERNELS = {
    "mixed": in_one_call(of_rows, mixed, accepts),
    "maxima": in_one_call(of_windows, maxima, accepts),
    "placed": in_one_call(of_places, placed, accepts_both),
}
