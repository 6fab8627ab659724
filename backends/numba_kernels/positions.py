"""Batch norm where channels have positions, S > 1: what is done with the positions of one channel
of one sample, which are neighbours in memory, and loops over those.

As in `columns.py`, a second pass goes backwards, and a result that is None goes where the operand
lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .borrowing import borrowed, copied, written
from .compilation import compiled, inlined, plus
from .norm_math import (
    all_slopes,
    back_through,
    differentiated,
    from_sums,
    heeded,
    lines,
    through,
)


@inlined
def difference_sums(x: Any, mask: Any, centre: Any) -> tuple[Any, Any]:
    """Σ (x - centre) and Σ (x - centre)², where the mask is true."""
    total = square = 0.0
    for s in range(len(x)):
        d = x[s] - centre
        if mask is not None:
            d = d if mask[s] else 0.0
        total = plus(total, d)
        square = plus(square, d * d)
    return total, square


@inlined
def put_normalized(x: Any, hi: Any, a: Any, b: Any, relu: Any, y: Any) -> None:
    """y = (x - hi) a + b, or the ReLU of that."""
    zero = x.dtype.type(0)
    for s in range(len(x)):
        y[s] = through(relu, (x[s] - hi) * a + b, zero)


@inlined
def product_sums(
    dy: Any, x: Any, mean: Any, hi: Any, a: Any, b: Any, relu: Any, mask: Any
) -> tuple[Any, Any]:
    """Σ g and Σ g (x - mean), without x where the mask is false and g is 0."""
    total = product = 0.0
    zero = x.dtype.type(0)
    for s in range(len(x)):
        g = np.float64(back_through(relu, dy[s], (x[s] - hi) * a + b, zero))
        d = x[s] - mean
        if mask is not None:
            d = heeded(mask[s], g, d)
        total = plus(total, g)
        product = plus(product, g * d)
    return total, product


@compiled
def moments(x: Any, mask: Any, mean: Any, var: Any) -> None:
    """Mean and biased variance of each channel, where the mask is true, as of columns."""
    x = borrowed(x)
    n, channels, space = x.shape
    count = n * space if mask is None else np.count_nonzero(mask)
    around = np.zeros(channels)
    if count:
        first = 0 if mask is None else np.flatnonzero(mask)[0]
        for c in range(channels):
            around[c] = x[first // space, c, first % space]
    for _ in range(2):
        mean[:] = 0
        var[:] = 0
        for i in range(n):
            kept = None if mask is None else borrowed(mask)[i]
            for c in range(channels):
                total, square = difference_sums(x[i, c], kept, around[c])
                mean[c] += total
                var[c] += square
        if not from_sums(mean, var, around, count):
            break
        copied(mean, around)


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, relu: Any, out: Any) -> None:
    """y = γ (x - mean) rstd + β, or the ReLU of that."""
    n, channels, _ = x.shape
    y, x = borrowed(written(out, x)), borrowed(x)
    hi, a, b = lines(x, mean, rstd, weight, bias)
    for i in range(n - 1, -1, -1):
        for c in range(channels):
            put_normalized(x[i, c], hi[c], a[c], b[c], relu, y[i, c])


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
    """Σ g and Σ g·x̂ for each channel; g is dy where y came through the ReLU."""
    x, dy = borrowed(x), borrowed(dy)
    n, channels, _ = x.shape
    hi, a, b = lines(x, mean, rstd, weight, bias)
    total[:] = 0
    product[:] = 0
    for i in range(n):
        kept = None if mask is None else borrowed(mask)[i]
        for c in range(channels):
            constants = mean[c], hi[c], a[c], b[c]
            t, p = product_sums(dy[i, c], x[i, c], *constants, relu, kept)
            total[c] += t
            product[c] += p * rstd[c]


@inlined
def put_differentiated(
    dy: Any,
    x: Any,
    hi: Any,
    a: Any,
    b: Any,
    r: Any,
    level: Any,
    slope: Any,
    rest: Any,
    relu: Any,
    mask: Any,
    dx: Any,
) -> None:
    """The gradient of one channel of one sample."""
    zero = x.dtype.type(0)
    for s in range(len(x)):
        d = x[s] - hi
        g = back_through(relu, dy[s], d * a + b, zero)
        inner = differentiated(g, d, r, level, slope, rest)
        if mask is not None:
            inner = inner if mask[s] else g
        dx[s] = a * inner


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
    n, channels, _ = x.shape
    dx, x, dy = borrowed(written(out, dy)), borrowed(x), borrowed(dy)
    hi, a, b = lines(x, mean, rstd, weight, bias)
    r, level, slope, rest = all_slopes(x, mean, hi, rstd, mean_dy, mean_dy_x_hat)
    for i in range(n - 1, -1, -1):
        kept = None if mask is None else borrowed(mask)[i]
        for c in range(channels):
            known = hi[c], a[c], b[c], r[c], level[c], slope[c], rest[c]
            put_differentiated(dy[i, c], x[i, c], *known, relu, kept, dx[i, c])


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
    grad_sums(dy, x, mean, rstd, weight, bias, relu, mask, total, product)
    means = total / max(count, 1), product / max(count, 1)
    grad_input(dy, x, mean, rstd, weight, bias, relu, *means, mask, dx)
