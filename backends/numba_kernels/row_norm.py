"""The phases of layer norm and its kin for x (N, G, K, S): each row, which is one group of one
sample, is read while it is in the cache. Where S = 1, each element has a γ and a β of its own and
is dealt with here; channels with positions are in `positions.py`. Without a mean, as in RMS norm,
nothing is subtracted.

Precision is that of `batch_norm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from . import positions
from .batch_norm import accepts, accepts_affine, accepts_both, accepts_gradient, like
from .calling import Call, in_one_call
from .compilation import compiled, plus


@compiled
def mean_square(rows: Any, result: Any) -> None:
    """The mean square of each row."""
    count, length = rows.shape
    for r in range(count):
        total = 0.0
        for i in range(length):
            value = np.float64(rows[r, i])
            total = plus(total, value * value)
        result[r] = total / length


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β."""
    samples, groups, channels, _ = x.shape
    x, y = x.reshape(samples, groups, channels), y.reshape(samples, groups, channels)
    rounded = x.dtype.type
    for n in range(samples):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[n, g]
            hi, r = rounded(centre), rounded(rstd[n, g])
            rest = rounded((hi - centre) * rstd[n, g])
            for k in range(channels):
                value = (x[n, g, k] - hi) * r + rest
                if weight is not None:
                    value = value * rounded(weight[g, k])
                if bias is not None:
                    value = value + rounded(bias[g, k])
                y[n, g, k] = value


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ over samples, (G, K) each, two samples at a time."""
    samples, groups, channels, _ = x.shape
    x, dy = x.reshape(samples, groups, channels), dy.reshape(samples, groups, channels)
    total[:] = 0
    product[:] = 0
    for n in range(0, samples - 1, 2):
        for g in range(groups):
            mean0 = 0.0 if mean is None else mean[n, g]
            mean1 = 0.0 if mean is None else mean[n + 1, g]
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
            centre = 0.0 if mean is None else mean[n, g]
            for k in range(channels):
                total[g, k] += dy[n, g, k]
                product[g, k] += dy[n, g, k] * ((x[n, g, k] - centre) * rstd[n, g])


@compiled
def grad_input(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy; without mean(g) where no mean is."""
    samples, groups, channels, _ = x.shape
    x, dy = x.reshape(samples, groups, channels), dy.reshape(samples, groups, channels)
    dx = dx.reshape(samples, groups, channels)
    rounded = x.dtype.type
    for n in range(samples):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[n, g]
            total = product = 0.0
            for k in range(channels):
                gamma = 1.0 if weight is None else np.float64(weight[g, k])
                grad = dy[n, g, k] * gamma
                total = plus(total, grad)
                product = plus(product, grad * (x[n, g, k] - centre))
            mean_g = 0.0 if mean is None else total / channels
            mean_g_x_hat = product * rstd[n, g] / channels
            hi, r = rounded(centre), rounded(rstd[n, g])
            level, slope = rounded(mean_g), rounded(mean_g_x_hat)
            # what the rounded means lack
            rest = rounded((centre - hi) * rstd[n, g] * mean_g_x_hat - (mean_g - level))
            for k in range(channels):
                x_hat = (x[n, g, k] - hi) * r
                gamma = rounded(1) if weight is None else rounded(weight[g, k])
                dx[n, g, k] = r * ((dy[n, g, k] * gamma - level) + (rest - x_hat * slope))


def as_rows(x: Array) -> Array:
    """x (N, G, K, S) with a row for each pair of statistics."""
    n, groups, channels, space = x.shape
    return x.reshape(n * groups, channels * space)


def row_moments(outs: tuple[Array, ...], x: Array) -> Call:
    mean, var = (out.reshape(-1) for out in outs)
    return positions.moments, (as_rows(x)[np.newaxis], None, mean, var)


def row_mean_square(outs: tuple[Array, ...], x: Array) -> Call:
    return mean_square, (as_rows(x), outs[0].reshape(-1))


def row_normalize(
    outs: tuple[Array, ...],
    x: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Call:
    function = normalize if x.shape[3] == 1 else positions.normalize_rows
    return function, (x, mean, rstd, weight, bias, *outs)


def row_grad_sums(outs: tuple[Array, ...], dy: Array, x: Array, *statistics: Any) -> Call:
    function = grad_sums if x.shape[3] == 1 else positions.row_grad_sums
    return function, (dy, x, *statistics, *outs)


def row_grad_input(outs: tuple[Array, ...], dy: Array, x: Array, *rest: Any) -> Call:
    return grad_input if x.shape[3] == 1 else positions.row_grad_input, (dy, x, *rest, *outs)


def of_rows(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for a number of each row of x."""
    shape = x.shape[:2]
    return np.empty(shape), np.empty(shape)


def of_row(x: Array) -> tuple[Array, ...]:
    """An array for a number of each row of x."""
    return (np.empty(x.shape[:2]),)


def of_channels(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for sums over each channel of each group of x."""
    shape = x.shape[1:3]
    return np.empty(shape), np.empty(shape)


KERNELS = {
    "row_moments": in_one_call(of_rows, row_moments, accepts),
    "row_mean_square": in_one_call(of_row, row_mean_square, accepts),
    "row_normalize": in_one_call(like, row_normalize, accepts_affine),
    "row_grad_sums": in_one_call(of_channels, row_grad_sums, accepts_both),
    "row_grad_input": in_one_call(like, row_grad_input, accepts_gradient),
}
