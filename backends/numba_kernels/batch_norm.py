"""Batch norm's phases for x (N, C, 1): rows are streamed, and statistics accumulate in float64.

An element is x̂ = (x - hi) rstd - lo rstd, where hi is the mean rounded to the dtype of x and lo
what that lost: the first difference is exact where it counts, and the second is part of a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import compiled


@compiled
def moments(x: Any) -> tuple[Any, Any]:
    """The mean, of differences from the first row, and then the mean square of what is left."""
    n, channels = x.shape
    mean, var = np.zeros(channels), np.zeros(channels)
    for i in range(1, n):
        for c in range(channels):
            mean[c] += np.float64(x[i, c]) - np.float64(x[0, c])
    for c in range(channels):
        mean[c] = x[0, c] + mean[c] / n
    for i in range(n):
        for c in range(channels):
            d = x[i, c] - mean[c]
            var[c] += d * d
    for c in range(channels):
        var[c] /= n
    return mean, var


@compiled
def scale_and_shift(x: Any, hi: Any, a: Any, b: Any) -> Any:
    """(x - hi) a + b."""
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[i, c] = (x[i, c] - hi[c]) * a[c] + b[c]
    return y


@compiled
def grad_sums(dy: Any, x: Any, mean: Any) -> tuple[Any, Any]:
    """Σ dy and Σ dy (x - mean)."""
    n, channels = x.shape
    total, product = np.zeros(channels), np.zeros(channels)
    for i in range(n):
        for c in range(channels):
            total[c] += dy[i, c]
            product[c] += dy[i, c] * (x[i, c] - mean[c])
    return total, product


@compiled
def grad_input(dy: Any, x: Any, hi: Any, rstd: Any, a: Any, b: Any, k: Any) -> Any:
    """a (dy + k rstd (x - hi) + b)."""
    dx = np.empty_like(x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            dx[i, c] = a[c] * (dy[i, c] + k[c] * ((x[i, c] - hi[c]) * rstd[c]) + b[c])
    return dx


def rows(x: Array) -> Array:
    """x (N, C, 1) as (N, C)."""
    return x.reshape(x.shape[:2])


def split(mean: Array, dtype: Any) -> tuple[Array, Array]:
    """The mean rounded to ``dtype``, and in float64 what that lost."""
    hi = mean.astype(dtype)
    return hi, mean - hi


def batch_moments(x: Array, mask: None) -> tuple[Array, Array]:
    mean, var = moments(rows(x))
    return mean, var


def batch_normalize(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    hi, lo = split(mean, x.dtype)
    a = rstd if weight is None else rstd * weight
    b = -lo * a if bias is None else bias - lo * a
    return scale_and_shift(rows(x), hi, a.astype(x.dtype), b.astype(x.dtype)).reshape(x.shape)


def batch_grad_sums(
    dy: Array, x: Array, mean: Array, rstd: Array, mask: None
) -> tuple[Array, Array]:
    total, product = grad_sums(rows(dy), rows(x), mean)
    return total, product * rstd


def batch_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: None,
) -> Array:
    hi, lo = split(mean, x.dtype)
    a = rstd if weight is None else rstd * weight
    b = lo * rstd * mean_dy_x_hat - mean_dy
    constants = (v.astype(x.dtype) for v in (rstd, a, b, -mean_dy_x_hat))
    return grad_input(rows(dy), rows(x), hi, *constants).reshape(x.shape)


def accepts(*arrays: Array | None) -> bool:
    """Contiguous float32 or float64 (N, C, 1) with values in it, and no mask; vectors are the
    caller's.
    """
    x = arrays[0]
    return (
        x is not None
        and x.dtype.char in "fd"
        and x.shape[2] == 1
        and x.size > 0
        and all(
            a is None or a.ndim == 1 or (a.flags.c_contiguous and a.dtype == x.dtype)
            for a in arrays
        )
    )


KERNELS = {
    function.__name__: Kernel(function, accepts)
    for function in (batch_moments, batch_normalize, batch_grad_sums, batch_grad_input)
}
