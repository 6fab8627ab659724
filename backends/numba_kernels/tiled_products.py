"""Products of matrices of which one stays in a cache, as those of a layer: its output, and the
gradients of input and weights.

BLAS lays both matrices out anew before it multiplies. That pays where they are large; of these
products it is, with the wait for weights that left the cache meanwhile, a good part. Here tiles
read the matrices where they are, and only what lies across, or beside the lines of a cache, is laid
out, panel by panel. Sums are the same either way, bit for bit.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from ..blas import thread_count
from .borrowing import copied
from .calling import Call, in_one_call
from .compilation import compiled, inlined
from .flat import FLOATS, flat
from .register_tiles import HEIGHTS, REGISTER, WIDTH, tile, transposed

LINE = 64
"""How many bytes a line of a cache has."""
TERMS_ACROSS = 64
"""So many terms are added up before the next ones where rows of a lie across and are many."""
TALL = 1020
"""A panel is laid out once for so many rows; more of them would leave the second cache."""

tallest, second, middle, low, single = map(tile, HEIGHTS)
TALLEST, SECOND, MIDDLE, _, _ = HEIGHTS
asking = tile(TALLEST, 2 * LINE)
"""The tallest, which asks for its neighbour's columns: rows a page apart no processor foresees."""


@compiled
def strip(
    like: Any, a: Any, down: Any, along: Any, b: Any, after: Any, terms: Any, y: Any, apart: Any,
    fresh: Any, rows: Any, ahead: Any,
) -> None:  # fmt: skip
    """What a tile does, for any number of rows; and with an eye on those ahead."""
    size = np.int64(like.itemsize)
    while rows >= TALLEST and ahead:
        asking(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + TALLEST * down * size, y + TALLEST * apart * size, rows - TALLEST
    while rows >= TALLEST:
        tallest(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + TALLEST * down * size, y + TALLEST * apart * size, rows - TALLEST
    if rows >= SECOND:
        second(like, a, down, along, b, after, terms, y, apart, fresh)
        a, y, rows = a + SECOND * down * size, y + SECOND * apart * size, rows - SECOND
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
        row, at = panel[q * width : (q + 1) * width], (first + q) * after + j * across
        if across == 1:
            copied(b[at : at + columns], row)
        else:
            for c in range(columns):
                row[c] = b[at + c * across]
        for c in range(columns, width):
            row[c] = 0


@compiled
def multiplied(a: Any, b: Any, y: Any, sizes: Any, steps: Any, block: Any) -> None:
    """y (m, n) in C order = a (m, k) b (k, n), each along one axis. The ``steps`` are those from a
    row to the next and from a column to the next, of a and of b; so many terms make a ``block``.
    """
    (m, k, n), (down, along, after, across) = sizes, steps
    size = np.int64(a.itemsize)
    width = WIDTH // size
    direct = across == 1 and (address(b) | after * size) % LINE == 0
    whole, height = n - n % width, TALLEST if direct else TALL
    panel = aligned(block * width, a.dtype)
    rest = aligned(m * width if n > whole else 0, a.dtype)
    for first in range(0, k, block):
        terms = min(block, k - first)
        for row in range(0, m, height):
            left, rows = address(a) + (row * down + first * along) * size, min(height, m - row)
            for j in range(0, n, width):
                right, step = address(b) + (first * after + j) * size, after
                if not direct or j == whole:
                    if not direct or row == 0:
                        laid_out(b, first, j, after, across, terms, min(width, n - j), panel)
                    right, step = address(panel), width
                out, apart = address(y) + (row * n + j) * size, n
                if j == whole:
                    out, apart = address(rest) + row * width * size, width
                strip(a, left, down, along, right, step, terms, out, apart,
                      first == 0, rows, block == TERMS_ACROSS)  # fmt: skip
    for row in range(m if n > whole else 0):
        for c in range(n - whole):
            y[row * n + whole + c] = rest[row * width + c]


@inlined
def address(x: Any) -> Any:
    """Where an array begins. Strips take addresses: arrays in turns would each time be counted as
    used.
    """
    return np.int64(x.ctypes.data)


@inlined
def aligned(size: Any, dtype: Any) -> Any:
    """Memory that begins where a cache line does."""
    memory = np.empty(size + LINE // 4, dtype)
    start = -address(memory) % LINE // memory.itemsize
    return memory[start : start + size]


def steps(x: Array) -> tuple[int, int]:
    """How many numbers a row is from the next, and a column, in a matrix in C or in F order."""
    return (x.shape[1], 1) if x.flags.c_contiguous else (1, x.shape[0])


def product(outs: tuple[Array, ...], a: Array, b: Array) -> Call:
    (y,), (m, k), n, (after, across) = outs, a.shape, b.shape[1], steps(b)
    tall = not a.flags.c_contiguous and m * k * n > 2**24
    block = TERMS_ACROSS if tall else terms_at_once(m, n, across == 1)
    return multiplied, (flat(a), flat(b), flat(y), (m, k, n), (*steps(a), after, across), block)


def terms_at_once(rows: int, columns: int, direct: bool) -> int:
    """How many terms are added up before the next ones, for the parts of both matrices to stay in
    a cache; fewer where rows are few, for memory to be read in order.
    """
    if not direct:
        return 256
    return 32 if rows <= FEW else 256 if columns <= 512 else 128


def new(a: Array, b: Array) -> tuple[Array]:
    return (np.empty((a.shape[0], b.shape[1]), a.dtype),)


def accepts(a: Array, b: Array) -> bool:
    """Matrices of float32 or float64, in C or F order, whose product takes less time here."""
    if not a.ndim == b.ndim == 2 or a.dtype != b.dtype or a.dtype not in FLOATS:
        return False
    (m, k), n, width = a.shape, b.shape[1], WIDTH // a.itemsize
    if m < 2 or not pays(m, k, n, a.flags.c_contiguous, b.flags.c_contiguous, a.itemsize):
        return False
    if 10 * (n + -n % width) > 11 * n or not (readable(a) and readable(b)):
        return False
    threads = count()
    return bool(threads == 1 or threads * m * k * n <= 2**22)


FEW = 24
"""So many rows BLAS does not make up for, however large the other matrix is."""


def pays(m: int, k: int, n: int, a_by_rows: bool, b_by_rows: bool, size: int) -> bool:
    """Whether OpenBLAS took longer, on one thread, for numbers of so many bytes; NOTES.md of the
    benchmarks has the figures.

    It lays nothing out itself for less than 2²⁰ products of numbers. With the registers of AVX2
    only low matrices and short sums were quicker.
    """
    work, matrix = m * k * n, k * n * size
    if work < 2**20 or (REGISTER < 64 and min(m, k) > 32):
        return False
    if k <= 64:
        return work <= 2**26
    if not a_by_rows:
        return work <= 2**24 or m * n * size <= 13 * 2**16
    if not b_by_rows:
        return matrix <= 2**18 or m <= (512 if matrix <= 2**21 else 256)
    if n * size % LINE:
        return False
    if n <= 512 and (matrix <= 2**20 or (matrix <= 2**21 and m <= 512)):
        return True
    return m <= FEW or (m <= 64 and work <= 2**28)


def readable(x: Array) -> bool:
    how = x.flags
    return bool((how.c_contiguous or how.f_contiguous) and how.aligned)


count: Any = thread_count()
measured = count is not None and platform.machine() in ("x86_64", "AMD64")
TILED_PRODUCT = in_one_call(new, product, accepts) if measured else None
