"""The bias and its gradient, ReLU and dropout: a pass over memory each, bit for bit as NumPy's but
for the order of a bias gradient's sums.

A result that is None goes where the operand lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .borrowing import borrowed, written
from .calling import Call, in_one_call, place
from .compilation import compiled
from .random_words import draw

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
BLOCK = 4096
"""How many words are drawn before they are used."""


@compiled
def bias_added(x: Any, bias: Any, out: Any) -> None:
    """x + bias, by rows."""
    y = written(out, x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[i, c] = x[i, c] + bias[c]


@compiled
def summed(x: Any, result: Any) -> None:
    """The sum of all rows, eight at a time."""
    n, channels = x.shape
    sums = np.zeros(channels)
    for i in range(0, n - 7, 8):
        for c in range(channels):
            a, b = np.float64(x[i, c]), np.float64(x[i + 1, c])
            d, e = np.float64(x[i + 2, c]), np.float64(x[i + 3, c])
            f, g = np.float64(x[i + 4, c]), np.float64(x[i + 5, c])
            h, k = np.float64(x[i + 6, c]), np.float64(x[i + 7, c])
            sums[c] += ((a + b) + (d + e)) + ((f + g) + (h + k))
    for i in range(n - n % 8, n):
        for c in range(channels):
            sums[c] += x[i, c]
    for c in range(channels):
        result[c] = sums[c]


@compiled
def rectified(x: Any, out: Any) -> None:
    """max(x, 0)."""
    y, zero = written(out, x), x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]  # NaN is not


@compiled
def rectified_grad(dy: Any, x: Any, out: Any) -> None:
    """dy (x > 0), as a product, which NaN comes through."""
    dx, zero, one = written(out, dy), x.dtype.type(0), x.dtype.type(1)
    for i in range(x.size):
        dx[i] = dy[i] * (one if x[i] > zero else zero)


@compiled
def masked(x: Any, keys: Any, counter: Any, keep: Any, mask: Any, out: Any) -> None:
    """x · mask, and the mask, from a word of Philox for each element: words of a block are drawn
    first, which are then in the first cache.
    """
    y, x, rounded = borrowed(written(out, x)), borrowed(x), x.dtype.type
    mask = borrowed(mask)
    bound, scale, zero = np.float32(keep), rounded(1 / keep if keep > 0 else 0.0), rounded(0)
    key, low, high = keys[0], counter[0], counter[1]
    words = np.empty(BLOCK, np.uint32)
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        here, chosen, result = x[start:stop], mask[start:stop], y[start:stop]
        draw(key, low + np.uint64(start // 4), high, words[: here.size])
        for i in range(here.size):
            fraction = np.float32(words[i] >> np.uint32(8)) * np.float32(2.0**-24)
            chosen[i] = scale if fraction < bound else zero
            result[i] = here[i] * chosen[i]


def flat(x: Array | None) -> Array | None:
    return None if x is None else x.reshape(-1)


def add_bias(outs: tuple[Array, ...], x: Array, bias: Array) -> Call:
    return bias_added, (x, bias, None if outs[0] is x else place(outs[0], x))


def column_sums(outs: tuple[Array, ...], x: Array) -> Call:
    return summed, (x, *outs)


def relu(outs: tuple[Array, ...], x: Array) -> Call:
    return rectified, (flat(x), flat(place(outs[0], x)))


def relu_grad(outs: tuple[Array, ...], dy: Array, x: Array) -> Call:
    return rectified_grad, (flat(dy), flat(x), flat(place(outs[0], dy)))


def dropped(outs: tuple[Array, ...], x: Array, key: Array, counter: Array, keep: float) -> Call:
    y, mask = outs
    return masked, (flat(x), key, counter, float(keep), flat(mask), flat(place(y, x)))


def like(x: Array, *rest: Any) -> tuple[Array, ...]:
    """An array for results of the shape of x."""
    return (np.empty(x.shape, x.dtype),)


def of_columns(x: Array) -> tuple[Array, ...]:
    return (np.empty(x.shape[1], x.dtype),)


def two_like(x: Array, *rest: Any) -> tuple[Array, ...]:
    return np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order."""
    flags = x.flags
    return bool(x.dtype in FLOATS and flags.c_contiguous and flags.aligned)


def accepts_bias(x: Array, bias: Array) -> bool:
    """The same of two axes, and a vector of its dtype."""
    return accepts(x) and x.ndim == 2 and bias.dtype == x.dtype and bias.shape == x.shape[1:]


def accepts_rows(x: Array) -> bool:
    return accepts(x) and x.ndim == 2


def accepts_two(dy: Array, x: Array) -> bool:
    """The same of both, in one dtype and shape."""
    return accepts(dy) and accepts(x) and dy.dtype == x.dtype and dy.shape == x.shape


KERNELS = {
    "add_bias": in_one_call(like, add_bias, accepts_bias),
    "column_sums": in_one_call(of_columns, column_sums, accepts_rows),
    "relu": in_one_call(like, relu, accepts),
    "relu_grad": in_one_call(like, relu_grad, accepts_two),
    "dropped": in_one_call(two_like, dropped, accepts),
}
