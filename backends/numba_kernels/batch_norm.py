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

from tinygrad_bn.backend import Array, Kernel

from . import positions
from .compilation import compiled
from .positions import careful_moments, from_sums

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


@compiled
def moments(x: Any, around: Any, count: int) -> tuple[Any, Any, bool]:
    """Mean and biased variance of each channel, of ``count`` values, any others being ``around``;
    and whether a mean is so far from there that it has cost digits.

    Four rows at a time load and store the sums a quarter as often.
    """
    n, channels, _ = x.shape
    x = x.reshape(n, channels)
    mean, var = np.zeros(channels), np.zeros(channels)
    for i in range(0, n - 3, 4):
        for c in range(channels):
            centre = around[c]
            d0, d1 = x[i, c] - centre, x[i + 1, c] - centre
            d2, d3 = x[i + 2, c] - centre, x[i + 3, c] - centre
            mean[c] += (d0 + d1) + (d2 + d3)
            var[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    for i in range(n - n % 4, n):
        for c in range(channels):
            d = x[i, c] - around[c]
            mean[c] += d
            var[c] += d * d
    return mean, var, from_sums(mean, var, around, count)


@compiled
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, y: Any) -> None:
    """y = γ (x - mean) rstd + β."""
    n, channels, _ = x.shape
    x, y = x.reshape(n, channels), y.reshape(n, channels)
    constants = np.empty((3, channels), x.dtype)
    hi, a, b = constants[0], constants[1], constants[2]
    for c in range(channels):
        hi[c] = mean[c]
        scale = rstd[c] * weight[c]
        a[c] = scale
        b[c] = bias[c] - (mean[c] - hi[c]) * scale
    for i in range(n):
        for c in range(channels):
            y[i, c] = (x[i, c] - hi[c]) * a[c] + b[c]


@compiled
def grad_sums(dy: Any, x: Any, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy·x̂ for each channel, two rows at a time."""
    n, channels, _ = x.shape
    x, dy = x.reshape(n, channels), dy.reshape(n, channels)
    total, product = np.zeros(channels), np.zeros(channels)
    for i in range(0, n - 1, 2):
        for c in range(channels):
            grad0, grad1 = np.float64(dy[i, c]), np.float64(dy[i + 1, c])
            total[c] += grad0 + grad1
            product[c] += grad0 * (x[i, c] - mean[c]) + grad1 * (x[i + 1, c] - mean[c])
    if n % 2:
        for c in range(channels):
            total[c] += dy[n - 1, c]
            product[c] += dy[n - 1, c] * (x[n - 1, c] - mean[c])
    for c in range(channels):
        product[c] *= rstd[c]
    return total, product


@compiled
def grad_input(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    mean_dy: Any,
    mean_dy_x_hat: Any,
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
        scale[c] = rstd[c] * weight[c]
    for i in range(n):
        for c in range(channels):
            x_hat = (x[i, c] - hi[c]) * r[c]
            dx[i, c] = scale[c] * ((dy[i, c] - level[c]) + (rest[c] - x_hat * slope[c]))


def parameter(values: Array | None, x: Array, neutral: float) -> Array:
    """γ or β in the dtype of x; where there is none, the number that changes nothing."""
    if values is None:
        return np.full(x.shape[1:-1], neutral, x.dtype)
    return np.ascontiguousarray(values, x.dtype)


def batch_moments(x: Array, mask: Array | None) -> tuple[Array, Array]:
    count = x.shape[0] * x.shape[2]
    if mask is not None:
        x, count = filled(x, mask)
    if not count:
        return np.zeros(x.shape[1]), np.zeros(x.shape[1])
    return careful_moments(moments if x.shape[2] == 1 else positions.moments, x, count)


def filled(x: Array, mask: Array) -> tuple[Array, int]:
    """x with the first value that counts, of which differences are taken, in place of those that do
    not; and how many do.
    """
    n, s = divmod(int(mask.argmax()), mask.shape[1])
    first = x[n, :, s, np.newaxis]
    return np.where(np.expand_dims(mask, 1), x, first), int(np.count_nonzero(mask))


def batch_normalize(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    weight, bias = parameter(weight, x, 1), parameter(bias, x, 0)
    y = np.empty(x.shape, x.dtype)
    run = normalize if x.shape[2] == 1 else positions.normalize
    run(x, mean, rstd, weight, bias, y)
    return y


def batch_grad_sums(
    dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> tuple[Array, Array]:
    if mask is not None:  # nothing is added where dy is 0, whatever x is
        x = np.where(np.expand_dims(mask, 1) | (dy != 0), x, x.dtype.type(0))
    run = grad_sums if x.shape[2] == 1 else positions.grad_sums
    total, product = run(dy, x, mean, rstd)
    return total, product


def batch_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: Array | None,
) -> Array:
    weight = parameter(weight, x, 1)
    dx = np.empty(x.shape, x.dtype)
    run = grad_input if x.shape[2] == 1 else positions.grad_input
    run(dy, x, mean, rstd, weight, mean_dy, mean_dy_x_hat, dx)
    if mask is None:
        return dx
    scale = (rstd * weight).astype(x.dtype)
    return np.where(np.expand_dims(mask, 1), dx, dy * scale[:, None])


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def accepts_both(dy: Array, x: Array, *rest: Any) -> bool:
    """The same of dy and x, in one dtype."""
    return bool(accepts(x) and dy.dtype == x.dtype and dy.flags.c_contiguous)


KERNELS = {
    "batch_moments": Kernel(batch_moments, accepts),
    "batch_normalize": Kernel(batch_normalize, accepts),
    "batch_grad_sums": Kernel(batch_grad_sums, accepts_both),
    "batch_grad_input": Kernel(batch_grad_input, accepts_both),
}
