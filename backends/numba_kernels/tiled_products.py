"""Products of low matrices and of short sums, as those of a layer at a small batch: its output, and
the gradients of input and weights.

BLAS lays both matrices out anew before it multiplies. That pays where each number is used often; of
these products it is, with the wait for weights that left the cache meanwhile, the larger part. Here
tiles read the matrices where they are, and only what lies across is turned over.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from ..blas import thread_count
from .calling import Call, in_one_call
from .compilation import compiled, inlined
from .flat import FLOATS, flat
from .register_tiles import HEIGHTS, REGISTER, WIDTH, tile, transposed

LEAST, LEAST_ACROSS, MOST = 2**20, 2**18, 2**26
"""So many products of numbers BLAS takes as well without laying matrices out; it turns one that
lies across over from fewer on. With more than the most its way pays.
"""
FEW, LOW, SHORT = 24, 128, 64
"""So many rows are few, so many make a matrix that is low, so many terms a sum that is short."""
TERMS, FEW_TERMS = 128, 32
"""After so many terms the next ones are added up, for the parts of both matrices to stay in a
cache; fewer where rows are few, for memory to be read in order."""

tallest, tall, middle, low, single = map(tile, HEIGHTS)
TALLEST, TALL, MIDDLE, _, _ = HEIGHTS


@compiled
def strip(
    like: Any, a: Any, down: Any, along: Any, b: Any, after: Any, terms: Any, y: Any, apart: Any,
    fresh: Any, rows: Any,
) -> None:  # fmt: skip
    """What a tile does, for any number of rows."""
    size = np.int64(like.itemsize)
    while rows >= TALLEST:
        tallest(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + TALLEST * down * size, y + TALLEST * apart * size, rows - TALLEST
    if rows >= TALL:
        tall(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + TALL * down * size, y + TALL * apart * size, rows - TALL
    if rows >= MIDDLE:
        middle(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + MIDDLE * down * size, y + MIDDLE * apart * size, rows - MIDDLE
    if rows >= 2:
        low(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + 2 * down * size, y + 2 * apart * size, rows - 2
    if rows == 1:
        single(like, a, down, along, b, after, terms, y, apart, fresh)


@inlined
def laid_out(
    b: Any, first: Any, j: Any, after: Any, across: Any, terms: Any, columns: Any, panel: Any
) -> None:
    """The part of b with these terms and columns as tiles want it: one term behind the other, as
    wide as tiles are, with zeros where there are no columns.
    """
    width, side = WIDTH // b.itemsize, REGISTER // b.itemsize
    squares = terms // side * side if after == 1 and columns == width else 0
    for q in range(0, squares, side):
        for c in range(0, width, side):
            transposed(b, first + q + (j + c) * across, across, panel, q * width + c)
    for q in range(squares, terms):
        for c in range(columns):
            panel[q * width + c] = b[(first + q) * after + (j + c) * across]
        for c in range(columns, width):
            panel[q * width + c] = 0


@compiled
def multiplied(a: Any, b: Any, y: Any, sizes: Any, steps: Any, block: Any) -> None:
    """y (m, n) in C order = a (m, k) b (k, n), each along one axis. The ``steps`` are those from a
    row to the next and from a column to the next, of a and of b; so many terms make a ``block``.
    """
    (m, k, n), (down, along, after, across) = sizes, steps
    size = np.int64(a.itemsize)
    width = WIDTH // size
    whole, height = n - n % width, TALLEST if across == 1 else m
    panel = np.empty(block * width, a.dtype)
    rest = np.empty(m * width if n > whole else 0, a.dtype)
    for first in range(0, k, block):
        terms = min(block, k - first)
        for row in range(0, m, height):
            left, rows = address(a) + (row * down + first * along) * size, min(height, m - row)
            for j in range(0, n, width):
                right, step = address(b) + (first * after + j) * size, after
                if across != 1 or j == whole:
                    if row == 0:
                        laid_out(b, first, j, after, across, terms, min(width, n - j), panel)
                    right, step = address(panel), width
                out, apart = address(y) + (row * n + j) * size, n
                if j == whole:
                    out, apart = address(rest) + row * width * size, width
                strip(a, left, down, along, right, step, terms, out, apart,
                      first == 0, rows)  # fmt: skip
    for row in range(m if n > whole else 0):
        for c in range(n - whole):
            y[row * n + whole + c] = rest[row * width + c]


@inlined
def address(x: Any) -> Any:
    """Where an array begins. Strips take addresses: arrays in turns would each time be counted as
    used.
    """
    return np.int64(x.ctypes.data)


def steps(x: Array) -> tuple[int, int]:
    """How many numbers a row is from the next, and a column, in a matrix in C or in F order."""
    return (x.shape[1], 1) if x.flags.c_contiguous else (1, x.shape[0])


def product(outs: tuple[Array, ...], a: Array, b: Array) -> Call:
    (y,), (m, k), (after, across) = outs, a.shape, steps(b)
    block = TERMS if across == 1 else 2 * TERMS
    if across == 1 and m <= FEW:
        block = FEW_TERMS
    sizes = m, k, b.shape[1]
    return multiplied, (flat(a), flat(b), flat(y), sizes, (*steps(a), after, across), block)


def new(a: Array, b: Array) -> tuple[Array]:
    return (np.empty((a.shape[0], b.shape[1]), a.dtype),)


def accepts(a: Array, b: Array) -> bool:
    """Matrices of float32 or float64, in C or F order, whose product takes less time here."""
    if not a.ndim == b.ndim == 2:
        return False
    (m, k), n, width = a.shape, b.shape[1], WIDTH // a.itemsize
    work = m * k * n
    if k <= SHORT:
        pays = LEAST <= work <= MOST
    elif b.flags.c_contiguous:
        pays = 1 < m <= LOW and work >= LEAST and (work <= MOST or m <= FEW)
    else:
        pays = 1 < m <= 2 * LOW and work >= LEAST_ACROSS
    if not pays or 10 * (n + -n % width) > 11 * n or a.dtype != b.dtype or a.dtype not in FLOATS:
        return False
    threads = count()
    return readable(a) and readable(b) and (threads == 1 or threads * work <= 4 * LEAST)


def readable(x: Array) -> bool:
    how = x.flags
    return bool((how.c_contiguous or how.f_contiguous) and how.aligned)


count: Any = thread_count()
measured = count is not None and platform.machine() in ("x86_64", "AMD64")
TILED_PRODUCT = in_one_call(new, product, accepts) if measured else None
