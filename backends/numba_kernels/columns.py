"""Batch norm where S = 1: a channel is a column of x, and rows are streamed.

What passes over x a second time goes backwards: it begins with what is still in the caches. A
result that is None goes where the operand lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .borrowing import borrowed, copied, written
from .compilation import compiled, in_whole_registers, inlined
from .norm_math import (
    all_slopes,
    back_through,
    differentiated,
    from_sums,
    heeded,
    lines,
    through,
)

BLOCK = 64
"""How many rows at a time go backwards; within them LLVM sees that rows do not overlap."""


@inlined
def matrix(x: Any) -> Any:
    """x (N, C, 1) as (N, C)."""
    return borrowed(x).reshape(x.shape[0], x.shape[1])


@inlined
def difference_sums(x: Any, rows: Any, count: int, around: Any, mean: Any, var: Any) -> None:
    """Σ (x - around) and Σ (x - around)² of each column, over ``rows`` where not all count.

    Four rows at a time load and store the sums a quarter as often.
    """
    channels = x.shape[1]
    mean[:] = 0
    var[:] = 0
    for k in range(0, count - 3, 4):
        i0 = k if rows is None else rows[k]
        i1 = k + 1 if rows is None else rows[k + 1]
        i2 = k + 2 if rows is None else rows[k + 2]
        i3 = k + 3 if rows is None else rows[k + 3]
        for c in range(channels):
            centre = around[c]
            d0, d1 = x[i0, c] - centre, x[i1, c] - centre
            d2, d3 = x[i2, c] - centre, x[i3, c] - centre
            mean[c] += (d0 + d1) + (d2 + d3)
            var[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    for k in range(count - count % 4, count):
        i = k if rows is None else rows[k]
        for c in range(channels):
            d = x[i, c] - around[c]
            mean[c] += d
            var[c] += d * d


@compiled
def moments(x: Any, mask: Any, mean: Any, var: Any) -> None:
    """Mean and biased variance of each column, of the rows where the mask is true.

    Differences are taken from the first value, and where that is an outlier, once more from the
    mean: (mean - first)² ≤ var · count costs as many digits as the count has, at worst.
    """
    n, channels, _ = x.shape
    x = matrix(x)
    rows: Any = None if mask is None else np.flatnonzero(mask)
    count = n if mask is None else len(rows)
    around = np.zeros(channels)
    if count:
        first = 0 if mask is None else rows[0]
        for c in range(channels):
            around[c] = x[first, c]
    for _ in range(2):
        difference_sums(x, rows, count, around, mean, var)
        if not from_sums(mean, var, around, count):
            break
        copied(mean, around)


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, relu: Any, out: Any) -> None:
    """y = γ (x - mean) rstd + β, or the ReLU of that."""
    n, channels, _ = x.shape
    y, x = matrix(written(out, x)), matrix(x)
    hi, a, b = lines(x, mean, rstd, weight, bias)
    zero = x.dtype.type(0)
    for stop in range(n, 0, -BLOCK):
        for i in range(max(stop - BLOCK, 0), stop):
            here, there = x[i], y[i]
            for c in range(channels):
                there[c] = through(relu, (here[c] - hi[c]) * a[c] + b[c], zero)


@compiled
def grad_sums(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    mask: Any,
    total: Any,
    product: Any,
) -> None:
    """Σ g and Σ g·x̂ for each column, two rows at a time; g is dy where y came through the ReLU."""
    in_whole_registers()
    n, channels, _ = x.shape
    x, dy = matrix(x), matrix(dy)
    hi, a, b = lines(x, mean, rstd, weight, bias)
    zero = x.dtype.type(0)
    total[:] = 0
    product[:] = 0
    for i in range(0, n - 1, 2):
        kept0 = True if mask is None else mask[i, 0]
        kept1 = True if mask is None else mask[i + 1, 0]
        for c in range(channels):
            y0, y1 = (x[i, c] - hi[c]) * a[c] + b[c], (x[i + 1, c] - hi[c]) * a[c] + b[c]
            g0 = np.float64(back_through(relu, dy[i, c], y0, zero))
            g1 = np.float64(back_through(relu, dy[i + 1, c], y1, zero))
            d0 = heeded(kept0, g0, x[i, c] - mean[c])
            d1 = heeded(kept1, g1, x[i + 1, c] - mean[c])
            total[c] += g0 + g1
            product[c] += g0 * d0 + g1 * d1
    if n % 2:
        i = n - 1
        kept = True if mask is None else mask[i, 0]
        for c in range(channels):
            y = (x[i, c] - hi[c]) * a[c] + b[c]
            g = np.float64(back_through(relu, dy[i, c], y, zero))
            total[c] += g
            product[c] += g * heeded(kept, g, x[i, c] - mean[c])
    for c in range(channels):
        product[c] *= rstd[c]


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
    """dx = γ rstd (g - mean(g) - x̂ mean(g·x̂)), and γ rstd g where the mask is false."""
    in_whole_registers()
    n, channels, _ = x.shape
    dx = matrix(written(out, dy))
    x, dy = matrix(x), matrix(dy)
    hi, a, b = lines(x, mean, rstd, weight, bias)
    r, level, slope, rest = all_slopes(x, mean, hi, rstd, mean_dy, mean_dy_x_hat)
    zero = x.dtype.type(0)
    for stop in range(n, 0, -BLOCK):
        for i in range(max(stop - BLOCK, 0), stop):
            here, grad, there = x[i], dy[i], dx[i]
            kept = True if mask is None else mask[i, 0]
            for c in range(channels):
                d = here[c] - hi[c]
                g = back_through(relu, grad[c], d * a[c] + b[c], zero)
                inner = differentiated(g, d, r[c], level[c], slope[c], rest[c])
                there[c] = a[c] * (inner if kept else g)


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
    moments(x, mask, mean, var)
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
    in_whole_registers()
    grad_sums(dy, x, mean, rstd, weight, bias, relu, mask, total, product)
    means = total / max(count, 1), product / max(count, 1)
    grad_input(dy, x, mean, rstd, weight, bias, relu, *means, mask, dx)
