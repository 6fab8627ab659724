"""The phases of layer norm and its kin for x (N, G, K, S): each row, which is one group of one
sample, is read while it is in the cache. Where S = 1, each element has a γ and a β of its own and
is dealt with here; channels with positions are in `positions.py`.

Precision is that of `batch_norm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from . import positions
from .batch_norm import accepts, accepts_both, parameter
from .compilation import compiled, plus


@compiled
def mean_square(rows: Any) -> Any:
    """The mean square of each row."""
    count, length = rows.shape
    result = np.empty(count)
    for r in range(count):
        total = 0.0
        for i in range(length):
            value = np.float64(rows[r, i])
            total = plus(total, value * value)
        result[r] = total / length
    return result


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β."""
    samples, groups, channels, _ = x.shape
    x, y = x.reshape(samples, groups, channels), y.reshape(samples, groups, channels)
    rounded = x.dtype.type
    for n in range(samples):
        for g in range(groups):
            hi, r = rounded(mean[n, g]), rounded(rstd[n, g])
            rest = rounded((hi - mean[n, g]) * rstd[n, g])
            for k in range(channels):
                x_hat = (x[n, g, k] - hi) * r + rest
                y[n, g, k] = x_hat * weight[g, k] + bias[g, k]


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy·x̂ over samples, (G, K) each, two samples at a time."""
    samples, groups, channels, _ = x.shape
    x, dy = x.reshape(samples, groups, channels), dy.reshape(samples, groups, channels)
    total, product = np.zeros((groups, channels)), np.zeros((groups, channels))
    for n in range(0, samples - 1, 2):
        for g in range(groups):
            mean0, mean1 = mean[n, g], mean[n + 1, g]
            rstd0, rstd1 = rstd[n, g], rstd[n + 1, g]
            for k in range(channels):
                grad0, grad1 = np.float64(dy[n, g, k]), np.float64(dy[n + 1, g, k])
                x_hat0 = (x[n, g, k] - mean0) * rstd0
                x_hat1 = (x[n + 1, g, k] - mean1) * rstd1
                total[g, k] += grad0 + grad1
                product[g, k] += grad0 * x_hat0 + grad1 * x_hat1
    if samples % 2:
        n = samples - 1
        for g in range(groups):
            for k in range(channels):
                total[g, k] += dy[n, g, k]
                product[g, k] += dy[n, g, k] * ((x[n, g, k] - mean[n, g]) * rstd[n, g])
    return total, product


@compiled
def grad_input(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, centred: bool, dx: Any) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy; without mean(g) if not ``centred``."""
    samples, groups, channels, _ = x.shape
    x, dy = x.reshape(samples, groups, channels), dy.reshape(samples, groups, channels)
    dx = dx.reshape(samples, groups, channels)
    rounded = x.dtype.type
    for n in range(samples):
        for g in range(groups):
            centre, total, product = mean[n, g], 0.0, 0.0
            for k in range(channels):
                grad = np.float64(dy[n, g, k]) * weight[g, k]
                total = plus(total, grad)
                product = plus(product, grad * (x[n, g, k] - centre))
            mean_g = total / channels if centred else 0.0
            mean_g_x_hat = product * rstd[n, g] / channels
            hi, r = rounded(centre), rounded(rstd[n, g])
            level, slope = rounded(mean_g), rounded(mean_g_x_hat)
            # what the rounded means lack
            rest = rounded((centre - hi) * rstd[n, g] * mean_g_x_hat - (mean_g - level))
            for k in range(channels):
                x_hat = (x[n, g, k] - hi) * r
                grad_here = dy[n, g, k] * weight[g, k] - level
                dx[n, g, k] = r * (grad_here + (rest - x_hat * slope))


def as_rows(x: Array) -> Array:
    """x (N, G, K, S) with a row for each pair of statistics."""
    n, groups, channels, space = x.shape
    return x.reshape(n * groups, channels * space)


def subtracted(mean: Array | None, rstd: Array) -> Array:
    """What is subtracted from rows: their means, or zeros."""
    return np.zeros_like(rstd) if mean is None else mean


def row_moments(x: Array) -> tuple[Array, Array]:
    rows = as_rows(x)
    mean, var = positions.careful_moments(positions.moments, rows[np.newaxis], rows.shape[1])
    return mean.reshape(x.shape[:2]), var.reshape(x.shape[:2])


def row_mean_square(x: Array) -> Array:
    return mean_square(as_rows(x)).reshape(x.shape[:2])


def row_normalize(
    x: Array, mean: Array | None, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    weight, bias = parameter(weight, x, 1), parameter(bias, x, 0)
    y = np.empty(x.shape, x.dtype)
    run = normalize if x.shape[3] == 1 else positions.normalize_rows
    run(x, subtracted(mean, rstd), rstd, weight, bias, y)
    return y


def row_grad_sums(dy: Array, x: Array, mean: Array | None, rstd: Array) -> tuple[Array, Array]:
    run = grad_sums if x.shape[3] == 1 else positions.row_grad_sums
    total, product = run(dy, x, subtracted(mean, rstd), rstd)
    return total, product


def row_grad_input(
    dy: Array, x: Array, mean: Array | None, rstd: Array, weight: Array | None
) -> Array:
    dx = np.empty(x.shape, x.dtype)
    run = grad_input if x.shape[3] == 1 else positions.row_grad_input
    weight, centred = parameter(weight, x, 1), mean is not None
    run(dy, x, subtracted(mean, rstd), rstd, weight, centred, dx)
    return dx


KERNELS = {
    "row_moments": Kernel(row_moments, accepts),
    "row_mean_square": Kernel(row_mean_square, accepts),
    "row_normalize": Kernel(row_normalize, accepts),
    "row_grad_sums": Kernel(row_grad_sums, accepts_both),
    "row_grad_input": Kernel(row_grad_input, accepts_both),
}
