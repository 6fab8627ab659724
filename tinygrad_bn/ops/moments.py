"""The phases of normalization: two families of four kernel points each.

Batch norm sees x as (N, C, S) and takes statistics over N and S, a pair for each channel; layer
norm and its kin see x as rows (R, D), a pair for each row. A family's phases are its moments, the
normalization, the sums that its gradient needs, and the gradient of the input. Between phases,
whoever splits a batch (over devices, over virtual batches) merges moments or sums, and nothing else
changes.

Everything is computed in the backend's accumulator dtype and rounded once; the mean is taken of
differences from the first value, so that a constant channel gives exactly its bias, and an offset
costs no digits.

References
----------
Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1 and the equations of section 3.
Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
"""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point


def wide(backend: Backend, x: Array) -> Array:
    """x in the dtype in which statistics are accumulated."""
    return backend.xp.astype(x, backend.accumulator(x.dtype))


def column(xp: Any, values: Array) -> Array:
    """One value for each channel, or row, as a column that broadcasts along the last axis."""
    return xp.reshape(values, (values.shape[0], 1))


def standardized(backend: Backend, x: Array, mean: Array, rstd: Array) -> Array:
    """x̂ = (x - mean) · rstd in the accumulator dtype, for x (N, C, S) or (R, D)."""
    xp = backend.xp
    return (wide(backend, x) - column(xp, mean)) * column(xp, rstd)


@kernel_point
def batch_moments(backend: Backend, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of x (N, C, S) for each channel, each (C,)."""
    xp, x = backend.xp, wide(backend, x)
    first = column(xp, x[0, :, 0])
    shift = xp.mean(x - first, axis=(0, 2))
    deviation = x - first - column(xp, shift)
    return xp.reshape(first, (x.shape[1],)) + shift, xp.mean(xp.square(deviation), axis=(0, 2))


@kernel_point
def batch_normalize(
    backend: Backend,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Array:
    """γ (x - mean) rstd + β with a value of each for every channel, in the dtype of x (N, C, S)."""
    xp = backend.xp
    y = standardized(backend, x, mean, rstd)
    if weight is not None:
        y = y * column(xp, wide(backend, weight))
    if bias is not None:
        y = y + column(xp, wide(backend, bias))
    return xp.astype(y, x.dtype)


@kernel_point
def batch_grad_sums(
    backend: Backend, dy: Array, x: Array, mean: Array, rstd: Array
) -> tuple[Array, Array]:
    """Σ dy and Σ dy·x̂ for each channel: the gradients of bias and weight, each (C,)."""
    xp, dy = backend.xp, wide(backend, dy)
    x_hat = standardized(backend, x, mean, rstd)
    return xp.sum(dy, axis=(0, 2)), xp.sum(dy * x_hat, axis=(0, 2))


@kernel_point
def batch_grad_input(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
) -> Array:
    """γ rstd (dy - mean(dy) - x̂ mean(dy·x̂)), in the dtype of x (N, C, S)."""
    xp = backend.xp
    x_hat = standardized(backend, x, mean, rstd)
    scale = rstd if weight is None else rstd * wide(backend, weight)
    dx = wide(backend, dy) - column(xp, mean_dy) - x_hat * column(xp, mean_dy_x_hat)
    return xp.astype(dx * column(xp, scale), x.dtype)


@kernel_point
def row_moments(backend: Backend, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each row of x (R, D), each (R,)."""
    xp, x = backend.xp, wide(backend, x)
    first = x[:, :1]
    shift = xp.mean(x - first, axis=1)
    deviation = x - first - column(xp, shift)
    return xp.reshape(first, (x.shape[0],)) + shift, xp.mean(xp.square(deviation), axis=1)


@kernel_point
def row_normalize(
    backend: Backend,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Array:
    """γ (x - mean) rstd + β with statistics of each row of x (R, D), and γ and β (D,)."""
    y = standardized(backend, x, mean, rstd)
    if weight is not None:
        y = y * wide(backend, weight)
    if bias is not None:
        y = y + wide(backend, bias)
    return backend.xp.astype(y, x.dtype)


@kernel_point
def row_grad_sums(
    backend: Backend, dy: Array, x: Array, mean: Array, rstd: Array
) -> tuple[Array, Array]:
    """Σ dy and Σ dy·x̂ over the rows: the gradients of bias and weight, each (D,)."""
    xp, dy = backend.xp, wide(backend, dy)
    return xp.sum(dy, axis=0), xp.sum(dy * standardized(backend, x, mean, rstd), axis=0)


@kernel_point
def row_grad_input(
    backend: Backend, dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None
) -> Array:
    """rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy and means over each row of x (R, D)."""
    xp, g = backend.xp, wide(backend, dy)
    if weight is not None:
        g = g * wide(backend, weight)
    x_hat = standardized(backend, x, mean, rstd)
    centred = g - column(xp, xp.mean(g, axis=1))
    dx = centred - x_hat * column(xp, xp.mean(g * x_hat, axis=1))
    return xp.astype(dx * column(xp, rstd), x.dtype)


@kernel_point
def moving_average(
    backend: Backend, running: Array, value: Array, rate: Array | float, scale: float
) -> Array:
    """running + rate (scale · value - running), in the dtype of the value."""
    known = backend.xp.astype(running, value.dtype)
    return known + (value * scale - known) * rate
