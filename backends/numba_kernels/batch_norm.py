"""Batch norm's phases for x (N, C, S): where S = 1 a channel is a column, and rows are streamed;
for longer ones see `positions.py`.

Statistics and sums are of float64, which beyond the second-level cache costs no time. Elements are
computed in the dtype of x: x̂ = (x - hi) rstd - lo rstd, where hi is the mean rounded to that dtype
and lo what rounding lost. The first difference is exact where it counts, and the second is part of
a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from . import positions
from .calling import Call, in_one_call
from .compilation import compiled, inlined
from .positions import from_sums, heeded

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


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
    x = x.reshape(n, channels)
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
        around[:] = mean


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β."""
    n, channels, _ = x.shape
    x, y = x.reshape(n, channels), y.reshape(n, channels)
    constants = np.empty((3, channels), x.dtype)
    hi, a, b = constants[0], constants[1], constants[2]
    for c in range(channels):
        hi[c] = mean[c]
        scale = rstd[c] if weight is None else rstd[c] * weight[c]
        rest = (hi[c] - mean[c]) * scale
        a[c] = scale
        b[c] = rest if bias is None else rest + bias[c]
    for i in range(n):
        for c in range(channels):
            y[i, c] = (x[i, c] - hi[c]) * a[c] + b[c]


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any, mask: Any, total: Any, product: Any) -> None:
    """Σ dy and Σ dy·x̂ for each column, two rows at a time."""
    n, channels, _ = x.shape
    x, dy = x.reshape(n, channels), dy.reshape(n, channels)
    total[:] = 0
    product[:] = 0
    for i in range(0, n - 1, 2):
        kept0 = True if mask is None else mask[i, 0]
        kept1 = True if mask is None else mask[i + 1, 0]
        for c in range(channels):
            grad0, grad1 = np.float64(dy[i, c]), np.float64(dy[i + 1, c])
            d0 = heeded(kept0, grad0, x[i, c] - mean[c])
            d1 = heeded(kept1, grad1, x[i + 1, c] - mean[c])
            total[c] += grad0 + grad1
            product[c] += grad0 * d0 + grad1 * d1
    if n % 2:
        i = n - 1
        kept = True if mask is None else mask[i, 0]
        for c in range(channels):
            grad = np.float64(dy[i, c])
            total[c] += grad
            product[c] += grad * heeded(kept, grad, x[i, c] - mean[c])
    for c in range(channels):
        product[c] *= rstd[c]


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
    """dx = γ rstd (dy - mean(dy) - x̂ mean(dy·x̂)); mean(dy) is split as the mean is."""
    n, channels, _ = x.shape
    x, dy, dx = x.reshape(n, channels), dy.reshape(n, channels), dx.reshape(n, channels)
    constants = np.empty((6, channels), x.dtype)
    hi, r, level, slope = constants[0], constants[1], constants[2], constants[3]
    rest, scale = constants[4], constants[5]
    for c in range(channels):
        hi[c], r[c], level[c], slope[c] = mean[c], rstd[c], mean_dy[c], mean_dy_x_hat[c]
        # what the rounded means lack
        rest[c] = (mean[c] - hi[c]) * rstd[c] * mean_dy_x_hat[c] - (mean_dy[c] - level[c])
        scale[c] = rstd[c] if weight is None else rstd[c] * weight[c]
    for i in range(n):
        if mask is None or mask[i, 0]:
            for c in range(channels):
                x_hat = (x[i, c] - hi[c]) * r[c]
                dx[i, c] = scale[c] * ((dy[i, c] - level[c]) + (rest[c] - x_hat * slope[c]))
        else:
            for c in range(channels):
                dx[i, c] = scale[c] * dy[i, c]


def batch_moments(outs: tuple[Array, ...], x: Array, mask: Array | None) -> Call:
    return moments if x.shape[2] == 1 else positions.moments, (x, mask, *outs)


def batch_normalize(
    outs: tuple[Array, ...],
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Call:
    function = normalize if x.shape[2] == 1 else positions.normalize
    return function, (x, mean, rstd, weight, bias, *outs)


def batch_grad_sums(
    outs: tuple[Array, ...], dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> Call:
    function = grad_sums if x.shape[2] == 1 else positions.grad_sums
    return function, (dy, x, mean, rstd, mask, *outs)


def batch_grad_input(outs: tuple[Array, ...], dy: Array, x: Array, *rest: Any) -> Call:
    return grad_input if x.shape[2] == 1 else positions.grad_input, (dy, x, *rest, *outs)


def like(x: Array, *rest: Any) -> tuple[Array, ...]:
    """An array for results of the shape of x."""
    return (np.empty(x.shape, x.dtype),)


def of_channels(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for sums over each channel of x."""
    channels = x.shape[1]
    return np.empty(channels), np.empty(channels)


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def accepts_affine(
    x: Array, mean: Array, rstd: Array, weight: Array | None = None, bias: Array | None = None
) -> bool:
    """The same of x, and parameters of such dtypes."""
    known = (weight is None or weight.dtype in FLOATS) and (bias is None or bias.dtype in FLOATS)
    return known and accepts(x)


def accepts_both(dy: Array, x: Array, *rest: Any) -> bool:
    """The same of dy and x, in one dtype."""
    return bool(accepts(x) and dy.dtype == x.dtype and dy.flags.c_contiguous)


def accepts_gradient(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, *rest: Any
) -> bool:
    """The same, and γ of such a dtype."""
    return accepts_both(dy, x) and accepts_affine(x, mean, rstd, weight)


KERNELS = {
    "batch_moments": in_one_call(of_channels, batch_moments, accepts),
    "batch_normalize": in_one_call(like, batch_normalize, accepts_affine),
    "batch_grad_sums": in_one_call(of_channels, batch_grad_sums, accepts_both),
    "batch_grad_input": in_one_call(like, batch_grad_input, accepts_gradient),
}
