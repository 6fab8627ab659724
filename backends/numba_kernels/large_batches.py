"""Batch norm of batches too large for any cache: as in `columns.py` and `positions.py`, to the bit,
but results are written past the caches.

Of a channel's constants there are as many as a vector and the channels have elements, one behind
the other: a vector that begins at any channel finds in a row what it needs. Where channels have
positions, one is dealt with at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import columns, positions
from .borrowing import borrowed
from .compilation import compiled, inlined
from .norm_math import all_slopes, back_through, differentiated, lines, through
from .streaming import let_back, minus, plus, rectified, stream, times, whole_vectors
from .vectors import BYTES, fused, load

ROOM = BYTES // 4
"""As many elements as a vector may have."""


@inlined
def laid_out(constants: Any, groups: Any) -> Any:
    """For each of some groups of channels a row of each kind of constant, repeated to its end."""
    period = len(constants[0]) // groups
    known = np.empty((groups, len(constants), period + ROOM), constants[0].dtype)
    for g in range(groups):
        for j in range(len(constants)):
            for k in range(period + ROOM):
                known[g, j, k] = constants[j][g * period + k % period]
    return known


@inlined
def normalize_few(x: Any, known: Any, period: Any, relu: Any, part: Any, y: Any) -> None:
    """The elements of a part that fills no vector."""
    zero = x.dtype.type(0)
    for i in range(part[0], part[1]):
        c = i % period
        y[i] = through(relu, (x[i] - known[0, c]) * known[1, c] + known[2, c], zero)


@inlined
def normalize_run(x: Any, known: Any, period: Any, relu: Any, y: Any) -> None:
    """y = (x - hi) a + b, or the ReLU of that, for elements whose channels follow one another."""
    hi, a, b = known[0], known[1], known[2]
    start, stop, width = whole_vectors(y)
    normalize_few(x, known, period, relu, (0, start), y)
    c, step = start % period, width % period
    for i in range(start, stop, width):
        value = fused(minus(load(x, i), load(hi, c)), load(a, c), load(b, c))
        stream(y, i, value if relu is None else rectified(value))
        c += step
        c = c - period if c >= period else c
    normalize_few(x, known, period, relu, (stop, len(x)), y)


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, relu: Any, out: Any) -> None:
    """y = γ (x - mean) rstd + β, or the ReLU of that."""
    x, y = borrowed(x), borrowed(out)
    n, channels, space = x.shape
    constants = lines(x, mean, rstd, weight, bias)
    if space == 1:
        known = laid_out(constants, 1)
        normalize_run(x.reshape(-1), known[0], channels, relu, y.reshape(-1))
        return
    known = laid_out(constants, channels)
    for i in range(n):
        for c in range(channels):
            normalize_run(x[i, c], borrowed(known)[c], 1, relu, y[i, c])


@inlined
def differentiate_few(
    dy: Any, x: Any, known: Any, period: Any, relu: Any, part: Any, dx: Any
) -> None:
    """The elements of a part that fills no vector."""
    zero = x.dtype.type(0)
    for i in range(part[0], part[1]):
        c = i % period
        d = x[i] - known[0, c]
        g = back_through(relu, dy[i], d * known[1, c] + known[2, c], zero)
        slopes = known[3, c], known[4, c], -known[5, c], known[6, c]
        dx[i] = known[1, c] * differentiated(g, d, *slopes)


@inlined
def differentiate_run(dy: Any, x: Any, known: Any, period: Any, relu: Any, dx: Any) -> None:
    """The gradient of elements whose channels follow one another."""
    hi, a, b = known[0], known[1], known[2]
    r, level, back, rest = known[3], known[4], known[5], known[6]  # back is minus the slope
    start, stop, width = whole_vectors(dx)
    differentiate_few(dy, x, known, period, relu, (0, start), dx)
    c, step = start % period, width % period
    for i in range(start, stop, width):
        d, g = minus(load(x, i), load(hi, c)), load(dy, i)
        if relu is not None:
            g = let_back(g, fused(d, load(a, c), load(b, c)))
        inner = fused(times(d, load(r, c)), load(back, c), load(rest, c))
        stream(dx, i, times(load(a, c), plus(minus(g, load(level, c)), inner)))
        c += step
        c = c - period if c >= period else c
    differentiate_few(dy, x, known, period, relu, (stop, len(x)), dx)


@compiled
def grad_input(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    mean_dy: Any,
    mean_dy_x_hat: Any,
    mask: Any,
    out: Any,
) -> None:
    """dx = γ rstd (g - mean(g) - x̂ mean(g·x̂)); no value is masked."""
    dy, x, dx = borrowed(dy), borrowed(x), borrowed(out)
    n, channels, space = x.shape
    hi, a, b = lines(x, mean, rstd, weight, bias)
    r, level, slope, rest = all_slopes(x, mean, hi, rstd, mean_dy, mean_dy_x_hat)
    constants = hi, a, b, r, level, -slope, rest
    if space == 1:
        known = laid_out(constants, 1)
        flat = dy.reshape(-1), x.reshape(-1)
        differentiate_run(*flat, known[0], channels, relu, dx.reshape(-1))
        return
    known = laid_out(constants, channels)
    for i in range(n):
        for c in range(channels):
            differentiate_run(dy[i, c], x[i, c], borrowed(known)[c], 1, relu, dx[i, c])


@compiled
def whole(
    x: Any,
    weight: Any,
    bias: Any,
    mask: Any,
    eps: Any,
    relu: Any,
    y: Any,
    mean: Any,
    var: Any,
    rstd: Any,
) -> None:
    """All of a forward."""
    if x.shape[2] == 1:
        columns.moments(x, None, mean, var)
    else:
        positions.moments(x, None, mean, var)
    for c in range(len(mean)):
        rstd[c] = 1 / np.sqrt(var[c] + eps)
    normalize(x, mean, rstd, weight, bias, relu, y)


@compiled
def whole_grad(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    mask: Any,
    count: Any,
    dx: Any,
    total: Any,
    product: Any,
) -> None:
    """All of a backward."""
    if x.shape[2] == 1:
        columns.grad_sums(dy, x, mean, rstd, weight, bias, relu, None, total, product)
    else:
        positions.grad_sums(dy, x, mean, rstd, weight, bias, relu, None, total, product)
    means = total / max(count, 1), product / max(count, 1)
    grad_input(dy, x, mean, rstd, weight, bias, relu, *means, None, dx)
