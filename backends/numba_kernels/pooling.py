"""Sums by a table, and the greatest values of windows, over three axes; those that are missing have
one position.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import compiled

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


@compiled
def greatest(x: Any, planes: Any, rows: Any, columns: Any, y: Any, indices: Any) -> None:
    """y (M, P, Q, R) and where it was, of x (M, D, H, W); a window goes along each axis from start
    until stop by step.
    """
    images, _, height, width = x.shape
    for m in range(images):
        for p in range(planes.shape[0]):
            for q in range(rows.shape[0]):
                for r in range(columns.shape[0]):
                    at = (planes[p, 0] * height + rows[q, 0]) * width + columns[r, 0]
                    best = x[m, planes[p, 0], rows[q, 0], columns[r, 0]]
                    for d in range(planes[p, 0], planes[p, 1], planes[p, 2]):
                        for h in range(rows[q, 0], rows[q, 1], rows[q, 2]):
                            for w in range(columns[r, 0], columns[r, 1], columns[r, 2]):
                                value = x[m, d, h, w]
                                if value > best or (value != value and best == best):
                                    best, at = value, (d * height + h) * width + w
                    y[m, p, q, r], indices[m, p, q, r] = best, at


@compiled
def place(values: Any, indices: Any, y: Any) -> None:
    """Add values (M, P) to y (M, size), which is zeros."""
    for m in range(values.shape[0]):
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
def limits(spans: tuple[range, ...]) -> Array:
    """Start, stop and step of each window along an axis."""
    return np.array([(span.start, span.stop, span.step) for span in spans], np.int64)


def mixed(x: Array, table: Any, axis: int) -> Array:
    shape = (*x.shape[:axis], len(table.rows), *x.shape[axis + 1 :])
    y = np.empty(shape, x.dtype)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    whole = x.reshape(outer, table.size, inner)
    mix(whole, *entries(table, x.dtype), y.reshape(outer, shape[axis], inner))
    return y


def maxima(x: Array, spans: tuple[Any, ...]) -> tuple[Array, Array]:
    planes, rows, columns = map(limits, ((range(1),),) * (3 - len(spans)) + spans)
    shape = (x.shape[0], *map(len, spans))
    y, indices = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    volume = (x.shape[0], *(1,) * (3 - len(spans)), *x.shape[1:])
    count = (x.shape[0], len(planes), len(rows), len(columns))
    found = y.reshape(count), indices.reshape(count)
    greatest(x.reshape(volume), planes, rows, columns, *found)
    return y, indices


def placed(values: Array, indices: Array, size: int) -> Array:
    y = np.zeros((values.shape[0], size), values.dtype)
    place(values, indices, y)
    return y


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def accepts_both(values: Array, indices: Array, size: int) -> bool:
    return accepts(values) and bool(indices.flags.c_contiguous)


KERNELS = {
    "mixed": Kernel(mixed, accepts),
    "maxima": Kernel(maxima, accepts),
    "placed": Kernel(placed, accepts_both),
}
