"""Norms between whose phases nothing comes, as kernel points: all of a forward, all of a backward.

They are the phases of ``moments.py`` and ``row_moments.py`` one after the other, as these bodies
say. A kernel saves calls, and has what it reads a second time still in its caches.
"""

from __future__ import annotations

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.moments import (
    batch_grad_input,
    batch_grad_sums,
    batch_moments,
    batch_normalize,
    batch_normalize_relu,
    before_relu,
)
from tinygrad_bn.ops.row_moments import (
    row_grad_input,
    row_grad_sums,
    row_mean_square,
    row_moments,
    row_normalize,
)


@kernel_point
def whole_batch_norm(
    backend: Backend,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    eps: float,
    relu: bool,
) -> tuple[Array, Array, Array, Array]:
    """x (N, C, S) by its own statistics, or the ReLU of that; mean, variance, rstd, (C,) each."""
    mean, var = batch_moments(backend, x, mask)
    rstd = 1 / backend.xp.sqrt(var + eps)
    normalize = batch_normalize_relu if relu else batch_normalize
    return normalize(backend, x, mean, rstd, weight, bias), mean, var, rstd


@kernel_point
def whole_batch_norm_grad(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    count: int,
    relu: bool,
) -> tuple[Array, Array, Array]:
    """The gradients of x, β and γ; each channel has ``count`` values that the mask keeps.

    β is asked for by the ReLU alone.
    """
    if relu:
        dy = before_relu(backend, dy, x, mean, rstd, weight, bias)
    dbias, dweight = batch_grad_sums(backend, dy, x, mean, rstd, mask)
    means = dbias / max(count, 1), dweight / max(count, 1)
    dx = batch_grad_input(backend, dy, x, mean, rstd, weight, *means, mask)
    return dx, dbias, dweight


@kernel_point
def whole_row_norm(
    backend: Backend, x: Array, weight: Array | None, bias: Array | None, eps: Array | float
) -> tuple[Array, Array, Array, Array]:
    """x (N, G, K, S) by the statistics of its rows; mean, variance and rstd, (N, G) each."""
    mean, var = row_moments(backend, x)
    rstd = 1 / backend.xp.sqrt(var + eps)
    return row_normalize(backend, x, mean, rstd, weight, bias), mean, var, rstd


@kernel_point
def whole_rms_norm(
    backend: Backend, x: Array, weight: Array | None, bias: Array | None, eps: Array | float
) -> tuple[Array, Array, Array]:
    """x (N, G, K, S) by the root of its rows' mean square; that and rstd, (N, G) each."""
    square = row_mean_square(backend, x)
    rstd = 1 / backend.xp.sqrt(square + eps)
    return row_normalize(backend, x, None, rstd, weight, bias), square, rstd


@kernel_point
def whole_row_norm_grad(
    backend: Backend,
    dy: Array,
    x: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
) -> tuple[Array, Array, Array]:
    """The gradients of x, β and γ, the latter (G, K); without a mean, those of RMS norm."""
    dbias, dweight = row_grad_sums(backend, dy, x, mean, rstd)
    return row_grad_input(backend, dy, x, mean, rstd, weight), dbias, dweight
