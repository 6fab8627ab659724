"""Group and instance norm, S > 1: a row of x (N, G, K, S) is K channels of S positions each, which
are read again while they are in the cache.

Without a mean, as in RMS norm, nothing is subtracted. A result that is None goes where the operand
lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .borrowing import borrowed, written
from .compilation import compiled, inlined
from .norm_math import differentiated, line, slopes
from .positions import product_sums, put_normalized
from .rows import mean_square_of, moments_of


@inlined
def normalize_row(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, g: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β for the channels of group g."""
    for k in range(len(x)):
        gamma = 1.0 if weight is None else weight[g, k]
        beta = 0.0 if bias is None else bias[g, k]
        put_normalized(x[k], *line(mean, rstd, gamma, beta, x.dtype.type), None, y[k])


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    y, x = borrowed(written(out, x)), borrowed(x)
    for n in range(x.shape[0]):
        for g in range(x.shape[1]):
            centre = 0.0 if mean is None else mean[n, g]
            normalize_row(x[n, g], centre, rstd[n, g], weight, bias, g, y[n, g])


@compiled
def whole(x: Any, weight: Any, bias: Any, eps: Any, y: Any, mean: Any, var: Any, rstd: Any) -> None:
    """All of a forward; without a mean, the variance is the mean square."""
    x, y = borrowed(x), borrowed(y)
    for n in range(x.shape[0]):
        for g in range(x.shape[1]):
            row = x[n, g].reshape(-1)
            if mean is None:
                centre, square = 0.0, mean_square_of(row)
            else:
                centre, square = moments_of(row)
                mean[n, g] = centre
            r = 1 / np.sqrt(square + eps)
            var[n, g], rstd[n, g] = square, r
            normalize_row(x[n, g], centre, r, weight, bias, g, y[n, g])


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ over samples and positions, (G, K) each."""
    x, dy = borrowed(x), borrowed(dy)
    n, groups, channels, _ = x.shape
    zero = x.dtype.type(0)
    total[:] = 0
    product[:] = 0
    for i in range(n):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[i, g]
            for k in range(channels):
                t, p = product_sums(dy[i, g, k], x[i, g, k], centre, zero, zero, zero, None, None)
                total[g, k] += t
                product[g, k] += p * rstd[i, g]


@inlined
def put_gradient(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, mean_g: Any, mean_g_x_hat: Any, dx: Any
) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) of one channel, with g = γ dy."""
    rounded = x.dtype.type
    hi, gamma = rounded(mean), rounded(weight)
    r, level, slope, rest = slopes(mean, hi, rstd, mean_g, mean_g_x_hat, rounded)
    for s in range(len(x)):
        dx[s] = r * differentiated(gamma * dy[s], x[s] - hi, r, level, slope, rest)


@compiled
def whole_grad(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, out: Any, total: Any, product: Any
) -> None:
    """All of a backward: sums over a channel are parts of its row's and of its own."""
    n, groups, channels, space = x.shape
    dx, x, dy = borrowed(written(out, dy)), borrowed(x), borrowed(dy)
    size = channels * space
    total[:] = 0
    product[:] = 0
    for i in range(n):
        for g in range(groups):
            centre, r, zero = 0.0 if mean is None else mean[i, g], rstd[i, g], x.dtype.type(0)
            mean_g = mean_g_x_hat = 0.0
            for k in range(channels):
                gamma = 1.0 if weight is None else weight[g, k]
                t, p = product_sums(dy[i, g, k], x[i, g, k], centre, zero, zero, zero, None, None)
                total[g, k] += t
                product[g, k] += p * r
                mean_g += gamma * t / size
                mean_g_x_hat += gamma * (p * r) / size
            means = 0.0 if mean is None else mean_g, mean_g_x_hat
            for k in range(channels):
                gamma = 1.0 if weight is None else weight[g, k]
                put_gradient(dy[i, g, k], x[i, g, k], centre, r, gamma, *means, dx[i, g, k])


@compiled
def grad_input(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> None:
    """The gradient of x; without a mean, mean(g) is 0."""
    sums = np.empty(x.shape[1:3]), np.empty(x.shape[1:3])
    whole_grad(dy, x, mean, rstd, weight, dx, *sums)
