"""The phases of batch normalization, as kernel points, and the one way to merge statistics.

They see x as (N, C, S) and take statistics over N and S, a pair for each channel. The phases are
the moments, the normalization, the sums that the gradient needs, and the gradient of the input.
Whoever splits a batch (over ranks, over virtual batches, over the micro-batches of a step) merges
moments or adds sums between them, and nothing else changes. The family of layer norm has the same
phases over rows, in ``row_moments.py``.

Everything is computed in the backend's accumulator dtype and rounded once; means are taken of
differences, so that a constant channel gives exactly its bias, and an offset costs no digits.

A mask (N, S) is true where x counts for the statistics; what stands elsewhere, NaN too, reaches
neither them nor the gradients of others.

References
----------
Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1 and the equations of section 3.
Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.counting import one_more


def wide(backend: Backend, x: Array) -> Array:
    """x in the dtype in which statistics are accumulated."""
    return backend.xp.astype(x, backend.accumulator(x.dtype))


def column(xp: Any, values: Array) -> Array:
    """One value for each channel as a column that broadcasts along the last axis."""
    return xp.reshape(values, (values.shape[0], 1))


def every_channel(xp: Any, mask: Array) -> Array:
    """A mask (N, S) as (N, 1, S)."""
    return xp.expand_dims(mask, 1)


def standardized(backend: Backend, x: Array, mean: Array, rstd: Array) -> Array:
    """x̂ = (x - mean) · rstd in the accumulator dtype, for x (N, C, S)."""
    xp = backend.xp
    return (wide(backend, x) - column(xp, mean)) * column(xp, rstd)


@kernel_point
def batch_moments(backend: Backend, x: Array, mask: Array | None) -> tuple[Array, Array]:
    """Mean and biased variance of x (N, C, S) for each channel, each (C,); 0 of no values."""
    xp, (n, channels, space) = backend.xp, x.shape
    x = wide(backend, x)
    if not n * space:
        zero = xp.sum(x, axis=(0, 2))  # of x: a rank without values has a graph as the others have
        return zero, zero
    if mask is not None:
        return masked_moments(xp, x, every_channel(xp, mask))
    first = column(xp, x[0, :, 0])
    shift = xp.mean(x - first, axis=(0, 2))
    deviation = x - first - column(xp, shift)
    return xp.reshape(first, (channels,)) + shift, xp.mean(xp.square(deviation), axis=(0, 2))


def masked_moments(xp: Any, x: Array, mask: Array) -> tuple[Array, Array]:
    """The moments of what the mask (N, 1, S) keeps: the mean is found twice, the second time of
    differences from the first, which is exact for a constant channel.
    """
    count = xp.maximum(xp.sum(mask, dtype=x.dtype), 1)

    def kept(values: Array) -> Array:
        return xp.where(mask, values, 0)

    def mean_of(values: Array) -> Array:
        return xp.sum(values, axis=(0, 2)) / count

    centre = mean_of(kept(x))
    deviation = kept(x - column(xp, centre))
    shift = mean_of(deviation)
    # kept before it is squared: in a gradient of the gradient, NaN times 0 would come back
    deviation = kept(deviation - column(xp, shift))
    return centre + shift, mean_of(xp.square(deviation))


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
    backend: Backend, dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> tuple[Array, Array]:
    """Σ dy and Σ dy·x̂ for each channel: the gradients of bias and weight, each (C,).

    Where the mask is false and dy is 0, nothing is added, even if x is not finite.
    """
    xp = backend.xp
    if mask is not None:
        heeded = xp.logical_or(every_channel(xp, mask), dy != 0)
        x = xp.where(xp.logical_or(heeded, xp.isfinite(x)), x, 0)
    dy = wide(backend, dy)
    product = dy * standardized(backend, x, mean, rstd)
    return xp.sum(dy, axis=(0, 2)), xp.sum(product, axis=(0, 2))


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
    mask: Array | None,
) -> Array:
    """γ rstd (dy - mean(dy) - x̂ mean(dy·x̂)), in the dtype of x (N, C, S); what the mask leaves out
    does not depend on the means.
    """
    xp = backend.xp
    if mask is not None:
        x = xp.where(every_channel(xp, mask), x, 0)  # NaN times 0 is NaN
    x_hat = standardized(backend, x, mean, rstd)
    scale = rstd if weight is None else rstd * wide(backend, weight)
    through_statistics = column(xp, mean_dy) + x_hat * column(xp, mean_dy_x_hat)
    if mask is not None:
        through_statistics = xp.where(every_channel(xp, mask), through_statistics, 0)
    dx = wide(backend, dy) - through_statistics
    return xp.astype(dx * column(xp, scale), x.dtype)


@kernel_point
def batch_normalize_relu(
    backend: Backend,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Array:
    """max(y, 0) of the y of `batch_normalize`."""
    return backend.xp.maximum(batch_normalize(backend, x, mean, rstd, weight, bias), 0)


def before_relu(backend: Backend, dy: Array, x: Array, *known: Array | None) -> Array:
    """The gradient of y, computed once more, from that of max(y, 0)."""
    mean, rstd, weight, bias = known
    return dy * (batch_normalize(backend, x, mean, rstd, weight, bias) > 0)


@kernel_point
def batch_relu_grad_sums(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
) -> tuple[Array, Array]:
    """`batch_grad_sums` of what comes back through the ReLU of `batch_normalize_relu`."""
    dy = before_relu(backend, dy, x, mean, rstd, weight, bias)
    return batch_grad_sums(backend, dy, x, mean, rstd, mask)


@kernel_point
def batch_relu_grad_input(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: Array | None,
) -> Array:
    """`batch_grad_input` of the same; the means are of what comes back."""
    dy = before_relu(backend, dy, x, mean, rstd, weight, bias)
    return batch_grad_input(backend, dy, x, mean, rstd, weight, mean_dy, mean_dy_x_hat, mask)


def merged_moments(
    xp: Any, counts: Sequence[int], means: Array, variances: Array
) -> tuple[Array, Array]:
    """Mean and biased variance of all values from those of K parts, (K, C) each: Chan's merge.

    Differences from the first part that has values are what is averaged: parts that agree give
    exactly their mean.
    """
    total = sum(counts)
    if total and len(set(counts)) == 1:  # as most often, and then in one step however many
        mean = means[0] + xp.mean(means - means[0], axis=0)
        return mean, xp.mean(variances + xp.square(means - mean), axis=0)
    first = next((k for k, count in enumerate(counts) if count), 0)
    shares = [count / total if total else 0.0 for count in counts]
    mean = means[first]
    for k, share in enumerate(shares):
        mean = mean + share * (means[k] - means[first])
    var = 0.0
    for k, share in enumerate(shares):
        var = var + share * (variances[k] + xp.square(means[k] - mean))
    return mean, var


@kernel_point
def moving_moments(
    backend: Backend,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    var: Array,
    rate: Array | float,
    factor: float,
) -> tuple[Array, Array]:
    """Both running statistics one step on, towards ``mean`` and ``factor`` times ``var``."""
    moved = moving_average(backend, running_mean, mean, rate, 1.0)
    return moved, moving_average(backend, running_var, var, rate, factor)


@kernel_point
def tracked_moments(
    backend: Backend,
    count: Array,
    running_mean: Array,
    running_var: Array,
    mean: Array,
    var: Array,
    rate: Array | float,
    factor: float,
) -> tuple[Array, Array, Array]:
    """The count of batches after this one, and `moving_moments`."""
    moved = moving_moments(backend, running_mean, running_var, mean, var, rate, factor)
    return *one_more(backend, count), *moved


@kernel_point
def moving_average(
    backend: Backend, running: Array, value: Array, rate: Array | float, scale: float
) -> Array:
    """(1 - rate) running + rate · scale · value, in the dtype of the value.

    Running variances are sums of positive terms so, which keeps the digits of a small one: as
    running + rate (value - running), a first value of 1e-12 would lose them to the 1 before it.
    """
    known = backend.xp.astype(running, value.dtype)
    return known * (1 - rate) + value * (scale * rate)
