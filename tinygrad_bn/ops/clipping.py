"""Gradients clipped by their norm together, as kernel points: one call for each gradient to measure
it, and one to scale it.
"""

from __future__ import annotations

from tinygrad_bn.backend import Array, Backend, kernel_point


@kernel_point
def add_squares(backend: Backend, total: Array, x: Array) -> tuple[Array]:
    """``total``, a float64 without axes, and the sum of the squares of x."""
    xp = backend.xp
    return (total + xp.sum(xp.square(xp.astype(x, total.dtype))),)


@kernel_point
def clipped(backend: Backend, x: Array, total: Array, max_norm: float) -> tuple[Array]:
    """x times what brings a norm, the root of ``total``, down to ``max_norm``."""
    xp = backend.xp
    scale = xp.minimum(max_norm / (xp.sqrt(total) + 1e-6), 1.0)  # NaN stays
    return (x * xp.astype(scale, x.dtype),)
