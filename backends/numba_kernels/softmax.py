"""Softmax along the last axis, its logarithm, and their gradients: row by row while it is in the
cache. Sums are of a thousand terms in the dtype of x, and of those sums in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, in_whole_registers, plus
from .cross_entropy import BLOCK, WHOLE, sum_of_exp
from .hidden_layer import accepts, accepts_two, like
from .vector_math import exp, largest


@compiled
def sum_of_row(x: Any, i: Any) -> Any:
    """Σ x of row i."""
    total = 0.0
    for start in range(0, x.shape[1], BLOCK):
        part = x.dtype.type(0)
        for k in range(np.uint64(start), np.uint64(min(start + BLOCK, x.shape[1]))):
            part = plus(part, x[i, k])
        total += np.float64(part)
    return total


@compiled
def sum_of_products(x: Any, y: Any, i: Any) -> Any:
    """Σ x y of row i."""
    total = 0.0
    for start in range(0, x.shape[1], BLOCK):
        part = x.dtype.type(0)
        for k in range(np.uint64(start), np.uint64(min(start + BLOCK, x.shape[1]))):
            part = plus(part, x[i, k] * y[i, k])
        total += np.float64(part)
    return total


@compiled
def shares(x: Any, words: Any, y: Any) -> None:
    """eˣ / Σ eˣ; ``words`` are the bits of x."""
    in_whole_registers()
    for i in range(x.shape[0]):
        most = largest(words, i)
        for k in range(x.shape[1]):
            y[i, k] = exp(x[i, k] - most)
        total = x.dtype.type(sum_of_row(y, i))
        for k in range(x.shape[1]):
            y[i, k] = y[i, k] / total


@compiled
def shares_grad(dy: Any, y: Any, dx: Any) -> None:
    """y (dy - Σ dy y)."""
    in_whole_registers()
    for i in range(y.shape[0]):
        total = y.dtype.type(sum_of_products(dy, y, i))
        for k in range(y.shape[1]):
            dx[i, k] = y[i, k] * (dy[i, k] - total)


@compiled
def log_shares(x: Any, words: Any, y: Any) -> None:
    """x - log Σ eˣ."""
    in_whole_registers()
    for i in range(x.shape[0]):
        most = largest(words, i)
        log_sum = x.dtype.type(np.log(sum_of_exp(x, i, most)))
        for k in range(x.shape[1]):
            y[i, k] = (x[i, k] - most) - log_sum


@compiled
def log_shares_grad(dy: Any, y: Any, dx: Any) -> None:
    """dy - e^y Σ dy."""
    in_whole_registers()
    for i in range(y.shape[0]):
        total = y.dtype.type(sum_of_row(dy, i))
        for k in range(y.shape[1]):
            dx[i, k] = dy[i, k] - exp(y[i, k]) * total


def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def words(x: Array) -> Array:
    return rows(x).view(WHOLE[x.dtype])


def softmax_value(outs: tuple[Array, ...], x: Array, axis: int) -> Call:
    return shares, (rows(x), words(x), rows(outs[0]))


def softmax_grad(outs: tuple[Array, ...], dy: Array, y: Array, axis: int) -> Call:
    return shares_grad, (rows(dy), rows(y), rows(outs[0]))


def log_softmax_value(outs: tuple[Array, ...], x: Array, axis: int) -> Call:
    return log_shares, (rows(x), words(x), rows(outs[0]))


def log_softmax_grad(outs: tuple[Array, ...], dy: Array, y: Array, axis: int) -> Call:
    return log_shares_grad, (rows(dy), rows(y), rows(outs[0]))


def accepts_value(x: Array, axis: int) -> bool:
    """Values in C order, and sums along the last axis."""
    return accepts(x) and axis == x.ndim - 1 and x.size > 0


def accepts_grad(dy: Array, y: Array, axis: int) -> bool:
    return accepts_value(y, axis) and accepts_two(dy, y)


KERNELS = {
    "softmax_value": in_one_call(like, softmax_value, accepts_value),
    "softmax_grad": in_one_call(like, softmax_grad, accepts_grad),
    "log_softmax_value": in_one_call(like, log_softmax_value, accepts_value),
    "log_softmax_grad": in_one_call(like, log_softmax_grad, accepts_grad),
}
