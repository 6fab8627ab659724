"""The phases of layer normalization and its kin, as kernel points.

They see x as (N, G, K, S): N samples of G groups, each of K channels at S positions. A row is what
stands in one group of one sample; it has statistics of its own, over K and S, and γ and β are
(G, K). Layer norm has one group and S = 1, instance norm K = 1, group norm is in between. RMS norm
is the same around zero: where the ``mean`` is None, nothing is subtracted.

Everything is computed in the backend's accumulator dtype and rounded once; means are taken of
differences, so that a constant row gives exactly its bias, and an offset costs no digits.

References
----------
Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
Wu and He 2018, arXiv:1803.08494, equations 1 to 7.
Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
"""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.moments import wide

ROW = (2, 3)


def each_row(xp: Any, values: Array) -> Array:
    """Statistics (N, G) as (N, G, 1, 1)."""
    return xp.reshape(values, (*values.shape, 1, 1))


def each_channel(xp: Any, values: Array) -> Array:
    """γ or β (G, K) as (G, K, 1)."""
    return xp.expand_dims(values, 2)


def row_mean(xp: Any, values: Array) -> Array:
    """The mean of each row of values (N, G, K, S), (N, G); 0 of none."""
    return xp.sum(values, axis=ROW) / max(values.shape[2] * values.shape[3], 1)


def standardized_rows(backend: Backend, x: Array, mean: Array | None, rstd: Array) -> Array:
    """x̂ = (x - mean) · rstd in the accumulator dtype, for x (N, G, K, S)."""
    xp, x = backend.xp, wide(backend, x)
    if mean is not None:
        x = x - each_row(xp, mean)
    return x * each_row(xp, rstd)


@kernel_point
def row_moments(backend: Backend, x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each row of x (N, G, K, S), each (N, G); 0 of no values."""
    xp, x = backend.xp, wide(backend, x)
    first = x[:, :, :1, :1]
    shift = row_mean(xp, x - first)
    deviation = x - first - each_row(xp, shift)
    return xp.sum(first, axis=ROW) + shift, row_mean(xp, xp.square(deviation))


@kernel_point
def row_mean_square(backend: Backend, x: Array) -> Array:
    """The mean square of each row of x (N, G, K, S), (N, G); 0 of no values."""
    return row_mean(backend.xp, backend.xp.square(wide(backend, x)))


@kernel_point
def row_normalize(
    backend: Backend,
    x: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
) -> Array:
    """γ (x - mean) rstd + β with statistics of each row of x (N, G, K, S), in its dtype."""
    xp = backend.xp
    y = standardized_rows(backend, x, mean, rstd)
    if weight is not None:
        y = y * each_channel(xp, wide(backend, weight))
    if bias is not None:
        y = y + each_channel(xp, wide(backend, bias))
    return xp.astype(y, x.dtype)


@kernel_point
def row_grad_sums(
    backend: Backend, dy: Array, x: Array, mean: Array | None, rstd: Array
) -> tuple[Array, Array]:
    """Σ dy and Σ dy·x̂ over samples and positions: the gradients of bias and weight, each (G, K)."""
    xp, dy = backend.xp, wide(backend, dy)
    x_hat = standardized_rows(backend, x, mean, rstd)
    return xp.sum(dy, axis=(0, 3)), xp.sum(dy * x_hat, axis=(0, 3))


@kernel_point
def row_grad_input(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
) -> Array:
    """rstd (g - mean(g) - x̂ mean(g·x̂)) with g = γ dy and means over each row of x (N, G, K, S);
    without mean(g) where the statistics have no mean.
    """
    xp, g = backend.xp, wide(backend, dy)
    if weight is not None:
        g = g * each_channel(xp, wide(backend, weight))
    x_hat = standardized_rows(backend, x, mean, rstd)
    dx = g - x_hat * each_row(xp, row_mean(xp, g * x_hat))
    if mean is not None:
        dx = dx - each_row(xp, row_mean(xp, g))
    return xp.astype(dx * each_row(xp, rstd), x.dtype)
