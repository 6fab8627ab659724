"""Products of shifted lines: a tile of sums stays in registers while all that it is made of passes.

A line is all places of a channel, one after the other, and at[j] is where the j-th line to be
multiplied begins. Outputs come in fours, places in vectors; what is beyond them has to be there.
"""

from __future__ import annotations

from typing import Any

from .compilation import compiled, inlined
from .vectors import BYTES, fused, load, repeated, store, total, zeros

TERMS = 256
"""So many lines are multiplied before the next tile: places of about 30 channels fit into a first
cache."""
CHUNK = 8192
"""So many bytes of each line are summed in the dtype of x before their sum is, in float64."""


@inlined
def accumulate(x: Any, at: Any, first: Any, beyond: Any, w: Any, k: Any, r: Any, y: Any) -> None:
    """y (4, ...)[:, r : r + two vectors] += Σ w[k + 4 j :][:4] x[at[j] + r :]."""
    v = BYTES // x.itemsize
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    a0, a1, a2, a3 = load(y0, r), load(y1, r), load(y2, r), load(y3, r)
    b0, b1, b2, b3 = load(y0, r + v), load(y1, r + v), load(y2, r + v), load(y3, r + v)
    for j in range(first, beyond):
        a, b, i = load(x, at[j] + r), load(x, at[j] + r + v), k + 4 * j
        c, d = repeated(w, i), repeated(w, i + 1)
        a0, b0, a1, b1 = fused(c, a, a0), fused(c, b, b0), fused(d, a, a1), fused(d, b, b1)
        c, d = repeated(w, i + 2), repeated(w, i + 3)
        a2, b2, a3, b3 = fused(c, a, a2), fused(c, b, b2), fused(d, a, a3), fused(d, b, b3)
    store(y0, r, a0), store(y1, r, a1), store(y2, r, a2), store(y3, r, a3)
    store(y0, r + v, b0), store(y1, r + v, b1), store(y2, r + v, b2), store(y3, r + v, b3)


@compiled
def products(x: Any, at: Any, w: Any, start: Any, places: Any, y: Any) -> None:
    """y (O, …)[o, r] = start[o] + Σ w[o, j] x[at[j] + r], where w is (O/4, J, 4) in a row."""
    step = 2 * (BYTES // x.itemsize)
    for r in range(0, places, step):
        for o in range(start.size):
            y[o, r : r + step] = start[o]
        for first in range(0, at.size, TERMS):
            beyond = min(first + TERMS, at.size)
            for o in range(0, start.size, 4):
                accumulate(x, at, first, beyond, w, o * at.size, r, y[o : o + 4])


@inlined
def correlate(x: Any, i: Any, j: Any, k: Any, first: Any, beyond: Any, y: Any, sums: Any) -> None:
    """sums (4, 3) += Σ y (4, ...)[:, r] times x[i + r], x[j + r] and x[k + r]."""
    v = BYTES // x.itemsize
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    a0, a1, a2, a3 = zeros(x), zeros(x), zeros(x), zeros(x)
    b0, b1, b2, b3 = zeros(x), zeros(x), zeros(x), zeros(x)
    c0, c1, c2, c3 = zeros(x), zeros(x), zeros(x), zeros(x)
    for r in range(first, beyond, v):
        a, b, c = load(x, i + r), load(x, j + r), load(x, k + r)
        s, t = load(y0, r), load(y1, r)
        a0, b0, c0 = fused(s, a, a0), fused(s, b, b0), fused(s, c, c0)
        a1, b1, c1 = fused(t, a, a1), fused(t, b, b1), fused(t, c, c1)
        s, t = load(y2, r), load(y3, r)
        a2, b2, c2 = fused(s, a, a2), fused(s, b, b2), fused(s, c, c2)
        a3, b3, c3 = fused(t, a, a3), fused(t, b, b3), fused(t, c, c3)
    add(sums[0], total(a0), total(b0), total(c0))
    add(sums[1], total(a1), total(b1), total(c1))
    add(sums[2], total(a2), total(b2), total(c2))
    add(sums[3], total(a3), total(b3), total(c3))


@inlined
def add(sums: Any, a: Any, b: Any, c: Any) -> None:
    sums[0] += a
    sums[1] += b
    sums[2] += c


@compiled
def correlations(x: Any, at: Any, places: Any, y: Any, sums: Any) -> None:
    """sums (O, J), in float64, += Σ y[o, r] x[at[j] + r]; J is a multiple of three."""
    length = CHUNK // x.itemsize
    for first in range(0, places, length):
        beyond = min(first + length, places)
        for o in range(0, sums.shape[0], 4):
            for j in range(0, at.size, 3):
                i, k = at[j], at[j + 2]
                correlate(x, i, at[j + 1], k, first, beyond, y[o : o + 4], sums[o : o + 4, j:])
