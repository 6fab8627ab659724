"""Batch norm as it is computed elsewhere, in NumPy and float32, and as it is, in long double.

Each takes x (N, C) and dy, and gives y and dx, with γ = 1, β = 0 and the statistics of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Results = tuple[Any, Any]


def exact(x: Any, dy: Any, eps: float) -> Results:
    """The formula in long double, which has 64 bits of digits on x86."""
    return by_moments(x.astype(np.longdouble), dy.astype(np.longdouble), np.longdouble(eps))


def chainer(x: Any, dy: Any, eps: float) -> Results:
    """Chainer's: mean and variance in two passes, everything in float32."""
    return by_moments(x, dy, np.float32(eps))


def one_pass(x: Any, dy: Any, eps: float) -> Results:
    """The same with E[x²] - E[x]² as the variance, cut off at 0."""
    mean = x.mean(0)
    var = np.maximum(np.mean(x * x, 0) - mean * mean, np.float32(0))
    return from_moments(x, dy, mean, var, np.float32(eps))


def by_moments(x: Any, dy: Any, eps: Any) -> Results:
    return from_moments(x, dy, x.mean(0), x.var(0), eps)


def from_moments(x: Any, dy: Any, mean: Any, var: Any, eps: Any) -> Results:
    """y = (x - mean) rstd, and dx = rstd (dy - (x̂ Σ dy·x̂ + Σ dy) / m)."""
    rstd = 1 / np.sqrt(var + eps)
    x_hat = (x - mean) * rstd
    through = (x_hat * np.sum(dy * x_hat, 0) + np.sum(dy, 0)) / x.dtype.type(len(x))
    return x_hat, rstd * (dy - through)
