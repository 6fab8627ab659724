"""What a scaler of gradients does on the device, as kernel points."""

from __future__ import annotations

import numpy as np

from tinygrad_bn.backend import Array, Backend, kernel_point


@kernel_point
def unscaled(backend: Backend, grad: Array, found: Array, scale: Array) -> tuple[Array, Array]:
    """A gradient divided by the scale, rounded once; and whether it, or what was ``found`` before,
    holds what is not finite.
    """
    xp = backend.xp
    bad = xp.logical_not(xp.all(xp.isfinite(grad)))
    inverse = 1 / xp.astype(scale, np.dtype(np.float64))  # exact for powers of two
    return grad * xp.astype(inverse, grad.dtype), xp.logical_or(found, bad)


@kernel_point
def next_scale(
    backend: Backend,
    scale: Array,
    tracker: Array,
    found: Array,
    growth: float,
    backoff: float,
    interval: int,
) -> tuple[Array, Array]:
    """The scale of the next step, and for how many steps it has been the same."""
    xp = backend.xp
    due = tracker + 1 == interval
    grown = scale * growth
    kept = xp.where(xp.logical_and(due, xp.isfinite(grown)), grown, scale)
    restarts = xp.logical_or(found, due)
    return xp.where(found, scale * backoff, kept), xp.where(restarts, 0, tracker + 1)


@kernel_point
def taken_back(backend: Backend, array: Array, before: Array, found: Array) -> tuple[Array]:
    """What was before where ``found``, a number, is true; else what is now."""
    return (backend.xp.where(found, before, array),)
