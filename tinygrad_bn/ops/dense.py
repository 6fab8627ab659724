"""What a network of dense layers computes besides products of matrices, as kernel points: the bias
and its gradient, ReLU, dropout.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.philox import philox_words


@kernel_point
def add_bias(backend: Backend, x: Array, bias: Array) -> Array:
    """x + bias, for x (N, C) and bias (C,) of one dtype."""
    return x + bias


@kernel_point
def column_sums(backend: Backend, x: Array) -> Array:
    """The sum of the rows of x (N, C), (C,): taken in the accumulator dtype and rounded once."""
    total = backend.xp.sum(x, axis=0, dtype=backend.accumulator(x.dtype))
    return backend.xp.astype(total, x.dtype)


@kernel_point
def relu(backend: Backend, x: Array) -> Array:
    """max(x, 0) of each element; NaN stays."""
    return backend.xp.maximum(x, 0)


@kernel_point
def relu_grad(backend: Backend, dy: Array, x: Array) -> Array:
    """dy where x > 0, and nothing elsewhere; x may be what went into `relu` or what came out."""
    return dy * (x > 0)


@kernel_point
def dropped(
    backend: Backend, x: Array, key: Array, counter: Array, keep: float
) -> tuple[Array, Array]:
    """x · mask and the mask: 1/keep for each element with the probability ``keep``, else 0.

    Element i stays if word i of the stream of `philox_words`, read as a fraction of 24 bits, is
    below ``keep``. The counter is not moved.
    """
    xp: Any = backend.xp
    words = philox_words(backend, key, counter, math.prod(x.shape))
    fraction = xp.astype(words >> 8, np.dtype(np.float32)) * 2.0**-24
    chosen = xp.reshape(fraction < keep, x.shape)
    mask = xp.astype(xp.where(chosen, 1 / keep if keep else 0.0, 0.0), x.dtype)
    return x * mask, mask
