"""Layer norm and its kin where S = 1: each row of x (N, G, K, 1) is read again while it is in the
cache, and each of its elements has a γ and a β of its own.

Without a mean, as in RMS norm, nothing is subtracted. A result that is None goes where the operand
lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .borrowing import borrowed, written
from .compilation import compiled, inlined, plus
from .norm_math import differentiated, slopes
from .positions import difference_sums


@inlined
def lines(x: Any) -> Any:
    """x (N, G, K, 1) as (N, G, K)."""
    return borrowed(x).reshape(x.shape[0], x.shape[1], x.shape[2])


@inlined
def moments_of(row: Any) -> tuple[Any, Any]:
    """Mean and biased variance: of differences from the first value, and where that is an outlier,
    once more from the mean.
    """
    around, mean, var = np.float64(row[0]), 0.0, 0.0
    for _ in range(2):
        total, square = difference_sums(row, None, around)
        shift = total / len(row)
        mean, var = around + shift, max(square / len(row) - shift * shift, 0.0)
        if not shift * shift > 100 * var:
            break
        around = mean
    return mean, var


@inlined
def mean_square_of(row: Any) -> Any:
    total = 0.0
    for i in range(len(row)):
        value = np.float64(row[i])
        total = plus(total, value * value)
    return total / len(row)


@compiled
def moments(rows: Any, mean: Any, var: Any) -> None:
    """Mean and biased variance of each row."""
    rows = borrowed(rows)
    for r in range(len(rows)):
        mean[r], var[r] = moments_of(rows[r])


@compiled
def mean_square(rows: Any, result: Any) -> None:
    """The mean square of each row."""
    rows = borrowed(rows)
    for r in range(len(rows)):
        result[r] = mean_square_of(rows[r])


@inlined
def put_normalized(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β for one row."""
    rounded = x.dtype.type
    hi, r = rounded(mean), rounded(rstd)
    rest = rounded((hi - mean) * rstd)
    for k in range(len(x)):
        value = (x[k] - hi) * r + rest
        if weight is not None:
            value = value * rounded(weight[k])
        if bias is not None:
            value = value + rounded(bias[k])
        y[k] = value


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    samples, groups, _, _ = x.shape
    y, x = lines(written(out, x)), lines(x)
    for n in range(samples):
        for g in range(groups):
            centre = 0.0 if mean is None else mean[n, g]
            gamma = None if weight is None else borrowed(weight)[g]
            beta = None if bias is None else borrowed(bias)[g]
            put_normalized(x[n, g], centre, rstd[n, g], gamma, beta, y[n, g])


@compiled
def whole(x: Any, weight: Any, bias: Any, eps: Any, y: Any, mean: Any, var: Any, rstd: Any) -> None:
    """All of a forward; without a mean, the variance is the mean square."""
    samples, groups, _, _ = x.shape
    x, y = lines(x), lines(y)
    for n in range(samples):
        for g in range(groups):
            if mean is None:
                centre, square = 0.0, mean_square_of(x[n, g])
            else:
                centre, square = moments_of(x[n, g])
                mean[n, g] = centre
            r = 1 / np.sqrt(square + eps)
            var[n, g], rstd[n, g] = square, r
            gamma = None if weight is None else borrowed(weight)[g]
            beta = None if bias is None else borrowed(bias)[g]
            put_normalized(x[n, g], centre, r, gamma, beta, y[n, g])


@inlined
def add_products(
    dy: Any, x: Any, mean: Any, rstd: Any, start: int, stop: int, total: Any, product: Any
) -> None:
    """Σ dy and Σ dy·x̂ over some samples, for each channel, two samples at a time."""
    _, groups, channels = x.shape
    for n in range(start, stop - 1, 2):
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
    if (stop - start) % 2:
        n = stop - 1
        for g in range(groups):
            centre = 0.0 if mean is None else mean[n, g]
            for k in range(channels):
                total[g, k] += dy[n, g, k]
                product[g, k] += dy[n, g, k] * ((x[n, g, k] - centre) * rstd[n, g])


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ over samples, (G, K) each."""
    total[:] = 0
    product[:] = 0
    add_products(lines(dy), lines(x), mean, rstd, 0, len(x), total, product)


@inlined
def product_sums(dy: Any, x: Any, mean: Any, weight: Any) -> tuple[Any, Any]:
    """Σ g and Σ g (x - mean) of one row, with g = γ dy."""
    total = product = 0.0
    for k in range(len(x)):
        g = np.float64(dy[k])
        if weight is not None:
            g = g * weight[k]
        total = plus(total, g)
        product = plus(product, g * (x[k] - mean))
    return total, product


@inlined
def put_differentiated(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, mean_g: Any, mean_g_x_hat: Any, dx: Any
) -> None:
    """dx = rstd (g - mean(g) - x̂ mean(g·x̂)) of one row, with g = γ dy."""
    rounded = x.dtype.type
    hi = rounded(mean)
    r, level, slope, rest = slopes(mean, hi, rstd, mean_g, mean_g_x_hat, rounded)
    for k in range(len(x)):
        g = dy[k] if weight is None else dy[k] * rounded(weight[k])
        dx[k] = r * differentiated(g, x[k] - hi, r, level, slope, rest)


@inlined
def differentiate(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, start: int, stop: int, dx: Any
) -> None:
    """The gradient of x for some samples; without a mean, mean(g) is 0."""
    for n in range(start, stop):
        for g in range(x.shape[1]):
            centre = 0.0 if mean is None else mean[n, g]
            gamma = None if weight is None else borrowed(weight)[g]
            total, product = product_sums(dy[n, g], x[n, g], centre, gamma)
            size = x.shape[2]
            means = 0.0 if mean is None else total / size, product * rstd[n, g] / size
            put_differentiated(dy[n, g], x[n, g], centre, rstd[n, g], gamma, *means, dx[n, g])


@compiled
def grad_input(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, out: Any) -> None:
    dx = lines(written(out, dy))
    differentiate(lines(dy), lines(x), mean, rstd, weight, 0, len(x), dx)


@inlined
def sums_of_two(
    dy: Any, x: Any, means: Any, rstds: Any, weight: Any, total: Any, product: Any
) -> tuple[Any, Any]:
    """For two rows what `product_sums` gives of each, while `add_products` is done for both."""
    dy0, dy1, x0, x1 = dy[0], dy[1], x[0], x[1]
    total0 = total1 = product0 = product1 = 0.0
    for k in range(len(x0)):
        g0, g1 = np.float64(dy0[k]), np.float64(dy1[k])
        p0, p1 = g0 * (x0[k] - means[0]), g1 * (x1[k] - means[1])
        total[k] += g0 + g1
        product[k] += p0 * rstds[0] + p1 * rstds[1]
        if weight is not None:
            gamma = np.float64(weight[k])
            g0, g1, p0, p1 = g0 * gamma, g1 * gamma, p0 * gamma, p1 * gamma
        total0, product0 = plus(total0, g0), plus(product0, p0)
        total1, product1 = plus(total1, g1), plus(product1, p1)
    return (total0, total1), (product0, product1)


@compiled
def whole_grad(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, out: Any, total: Any, product: Any
) -> None:
    """All of a backward, two samples at a time: their sums together, then their gradients."""
    samples, groups, channels, _ = x.shape
    dx, x, dy = lines(written(out, dy)), lines(x), lines(dy)
    total[:] = 0
    product[:] = 0
    for n in range(0, samples - 1, 2):
        for g in range(groups):
            gamma = None if weight is None else borrowed(weight)[g]
            means = (0.0, 0.0) if mean is None else (mean[n, g], mean[n + 1, g])
            rstds = rstd[n, g], rstd[n + 1, g]
            sums = borrowed(total)[g], borrowed(product)[g]
            grads, values = (dy[n, g], dy[n + 1, g]), (x[n, g], x[n + 1, g])
            t, p = sums_of_two(grads, values, means, rstds, gamma, *sums)
            for j in range(2):
                mean_g = 0.0 if mean is None else t[j] / channels
                known = means[j], rstds[j], gamma, mean_g, p[j] * rstds[j] / channels
                put_differentiated(grads[j], values[j], *known, dx[n + j, g])
    if samples % 2:
        add_products(dy, x, mean, rstd, samples - 1, samples, total, product)
        differentiate(dy, x, mean, rstd, weight, samples - 1, samples, dx)
