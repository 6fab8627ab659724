"""The phases of both families where channels have positions, S > 1: first what is done with the
positions of one channel of one sample, which are neighbours in memory, then the loops of batch
norm, whose x is (N, C, S), and of the norms over rows, whose x is (N, G, K, S).

Precision is that of `batch_norm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compilation import compiled, inlined, plus


@inlined
def heeded(kept: Any, grad: Any, value: Any) -> Any:
    """The value where it counts, or where something is to be multiplied by it; else 0."""
    return value if kept or grad != 0 else 0.0


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
def normalized(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β."""
    rounded = x.dtype.type
    hi, scale = rounded(mean), rstd * weight
    a, b = rounded(scale), rounded(bias - (mean - hi) * scale)
    for s in range(len(x)):
        y[s] = (x[s] - hi) * a + b


@inlined
def product_sums(dy: Any, x: Any, mask: Any, mean: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy (x - mean), without x where the mask is false and dy is 0."""
    total = product = 0.0
    for s in range(len(x)):
        grad = np.float64(dy[s])
        d = x[s] - mean
        if mask is not None:
            d = heeded(mask[s], grad, d)
        total = plus(total, grad)
        product = plus(product, grad * d)
    return total, product


@inlined
def differentiated(
    dy: Any,
    x: Any,
    mask: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    mean_g: Any,
    mean_g_x_hat: Any,
    dx: Any,
) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy; rstd g where the mask is false."""
    rounded = x.dtype.type
    hi, r, scale = rounded(mean), rounded(rstd), rounded(weight)
    level, slope = rounded(mean_g), rounded(mean_g_x_hat)
    # what the rounded means lack
    rest = rounded((mean - hi) * rstd * mean_g_x_hat - (mean_g - level))
    for s in range(len(x)):
        x_hat = (x[s] - hi) * r
        g = scale * dy[s]
        inner = (g - level) + (rest - x_hat * slope)
        if mask is not None:
            inner = inner if mask[s] else g
        dx[s] = r * inner


@inlined
def from_sums(mean: Any, var: Any, around: Any, count: Any) -> bool:
    """Sums of differences from ``around``, and of their squares, become mean and biased variance;
    whether a mean is so far from there that its square, subtracted, takes two digits along.
    """
    far, count = False, max(count, 1)
    for c in range(len(mean)):
        shift = mean[c] / count
        mean[c] = around[c] + shift
        var[c] = max(var[c] / count - shift * shift, 0.0)
        far = far or shift * shift > 100 * var[c]
    return far


@compiled
def moments(x: Any, mask: Any, mean: Any, var: Any) -> None:
    """Mean and biased variance of each channel, where the mask is true.

    Differences are taken from the first value, and where that is an outlier, once more from the
    mean: (mean - first)² ≤ var · count costs as many digits as the count has, at worst.
    """
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
            kept = None if mask is None else mask[i]
            for c in range(channels):
                total, square = difference_sums(x[i, c], kept, around[c])
                mean[c] += total
                var[c] += square
        if not from_sums(mean, var, around, count):
            break
        around[:] = mean


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    n, channels, _ = x.shape
    for i in range(n):
        for c in range(channels):
            gamma = 1.0 if weight is None else weight[c]
            beta = 0.0 if bias is None else bias[c]
            normalized(x[i, c], mean[c], rstd[c], gamma, beta, y[i, c])


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, mask: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ for each channel."""
    n, channels, _ = x.shape
    total[:] = 0
    product[:] = 0
    for i in range(n):
        kept = None if mask is None else mask[i]
        for c in range(channels):
            t, p = product_sums(dy[i, c], x[i, c], kept, mean[c])
            total[c] += t
            product[c] += p * rstd[c]


@compiled
def grad_input(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    mean_dy: Any,
    mean_dy_x_hat: Any,
    mask: Any,
    dx: Any,
) -> None:
    n, channels, _ = x.shape
    for i in range(n):
        kept = None if mask is None else mask[i]
        for c in range(channels):
            gamma = 1.0 if weight is None else weight[c]
            means = gamma * mean_dy[c], gamma * mean_dy_x_hat[c]
            differentiated(dy[i, c], x[i, c], kept, mean[c], rstd[c], gamma, *means, dx[i, c])


@compiled
def normalize_rows(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    n, groups, channels, _ = x.shape
    for i in range(n):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[i, g]
            for k in range(channels):
                gamma = 1.0 if weight is None else weight[g, k]
                beta = 0.0 if bias is None else bias[g, k]
                normalized(x[i, g, k], centre, rstd[i, g], gamma, beta, y[i, g, k])


@compiled
def row_grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ over samples and positions, (G, K) each."""
    n, groups, channels, _ = x.shape
    total[:] = 0
    product[:] = 0
    for i in range(n):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[i, g]
            for k in range(channels):
                t, p = product_sums(dy[i, g, k], x[i, g, k], None, centre)
                total[g, k] += t
                product[g, k] += p * rstd[i, g]


@compiled
def row_grad_input(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> None:
    """Means are taken of each row, which then is in the cache; without a mean, mean(g) is 0."""
    n, groups, channels, space = x.shape
    size = channels * space
    for i in range(n):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[i, g]
            total = product = 0.0
            for k in range(channels):
                gamma = 1.0 if weight is None else weight[g, k]
                t, p = product_sums(dy[i, g, k], x[i, g, k], None, centre)
                total += gamma * t
                product += gamma * p
            means = 0.0 if mean is None else total / size, product * rstd[i, g] / size
            for k in range(channels):
                gamma = 1.0 if weight is None else weight[g, k]
                there = dx[i, g, k]
                differentiated(
                    dy[i, g, k], x[i, g, k], None, centre, rstd[i, g], gamma, *means, there
                )
