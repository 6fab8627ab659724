"""The phases of both families where channels have positions, S > 1: first what is done with the
positions of one channel of one sample, which are neighbours in memory, then the loops of batch
norm, whose x is (N, C, S), and of the norms over rows, whose x is (N, G, K, S).

Precision is that of `batch_norm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .compilation import compiled, inlined, plus


@inlined
def difference_sums(x: Any, centre: Any) -> tuple[Any, Any]:
    """Σ (x - centre) and Σ (x - centre)²."""
    total = square = 0.0
    for s in range(len(x)):
        d = x[s] - centre
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
def product_sums(dy: Any, x: Any, mean: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy (x - mean)."""
    total = product = 0.0
    for s in range(len(x)):
        grad = np.float64(dy[s])
        total = plus(total, grad)
        product = plus(product, grad * (x[s] - mean))
    return total, product


@inlined
def differentiated(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, mean_g: Any, mean_g_x_hat: Any, dx: Any
) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy."""
    rounded = x.dtype.type
    hi, r, scale = rounded(mean), rounded(rstd), rounded(weight)
    level, slope = rounded(mean_g), rounded(mean_g_x_hat)
    # what the rounded means lack
    rest = rounded((mean - hi) * rstd * mean_g_x_hat - (mean_g - level))
    for s in range(len(x)):
        x_hat = (x[s] - hi) * r
        dx[s] = r * ((scale * dy[s] - level) + (rest - x_hat * slope))


@inlined
def from_sums(mean: Any, var: Any, around: Any, count: int) -> bool:
    """Sums of differences from ``around``, and of their squares, become mean and biased variance;
    whether a mean is so far from there that its square, subtracted, takes two digits along.
    """
    far = False
    for c in range(len(mean)):
        shift = mean[c] / count
        mean[c] = around[c] + shift
        var[c] = max(var[c] / count - shift * shift, 0.0)
        far = far or shift * shift > 100 * var[c]
    return far


@compiled
def moments(x: Any, around: Any, count: int) -> tuple[Any, Any, bool]:
    """Mean and biased variance of each channel, of ``count`` values, any others being ``around``;
    and whether a mean is so far from there that it has cost digits.
    """
    n, channels, _ = x.shape
    mean, var = np.zeros(channels), np.zeros(channels)
    for i in range(n):
        for c in range(channels):
            total, square = difference_sums(x[i, c], around[c])
            mean[c] += total
            var[c] += square
    return mean, var, from_sums(mean, var, around, count)


def careful_moments(moments: Any, x: Array, count: int) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, of ``count`` values: any others equal the first.

    Differences are taken from the first value, and where that is an outlier, once more from the
    mean: (mean - first)² ≤ var · count costs as many digits as the count has, at worst.
    """
    mean, var, far = moments(x, x[0, :, 0].astype(np.float64), count)
    if far and count == x.shape[0] * x.shape[2]:
        mean, var, _ = moments(x, mean, count)
    return mean, var


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    n, channels, _ = x.shape
    for i in range(n):
        for c in range(channels):
            normalized(x[i, c], mean[c], rstd[c], weight[c], bias[c], y[i, c])


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy·x̂ for each channel."""
    n, channels, _ = x.shape
    total, product = np.zeros(channels), np.zeros(channels)
    for i in range(n):
        for c in range(channels):
            t, p = product_sums(dy[i, c], x[i, c], mean[c])
            total[c] += t
            product[c] += p * rstd[c]
    return total, product


@compiled
def grad_input(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, mean_dy: Any, mean_dy_x_hat: Any, dx: Any
) -> None:
    n, channels, _ = x.shape
    for i in range(n):
        for c in range(channels):
            means = weight[c] * mean_dy[c], weight[c] * mean_dy_x_hat[c]
            differentiated(dy[i, c], x[i, c], mean[c], rstd[c], weight[c], *means, dx[i, c])


@compiled
def normalize_rows(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    n, groups, channels, _ = x.shape
    for i in range(n):
        for g in range(groups):
            for k in range(channels):
                affine = weight[g, k], bias[g, k]
                normalized(x[i, g, k], mean[i, g], rstd[i, g], *affine, y[i, g, k])


@compiled
def row_grad_sums(dy: Any, x: Any, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy·x̂ over samples and positions, (G, K) each."""
    n, groups, channels, _ = x.shape
    total, product = np.zeros((groups, channels)), np.zeros((groups, channels))
    for i in range(n):
        for g in range(groups):
            for k in range(channels):
                t, p = product_sums(dy[i, g, k], x[i, g, k], mean[i, g])
                total[g, k] += t
                product[g, k] += p * rstd[i, g]
    return total, product


@compiled
def row_grad_input(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, centred: bool, dx: Any
) -> None:
    """Means are taken of each row, which then is in the cache; mean(g) is 0 if not ``centred``."""
    n, groups, channels, space = x.shape
    for i in range(n):
        for g in range(groups):
            total = product = 0.0
            for k in range(channels):
                t, p = product_sums(dy[i, g, k], x[i, g, k], mean[i, g])
                total += weight[g, k] * t
                product += weight[g, k] * p
            size = channels * space
            means = total / size if centred else 0.0, product * rstd[i, g] / size
            for k in range(channels):
                statistics = mean[i, g], rstd[i, g]
                differentiated(
                    dy[i, g, k], x[i, g, k], *statistics, weight[g, k], *means, dx[i, g, k]
                )
