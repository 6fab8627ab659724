"""Batches with their channels along any axis, masks for them, and batch norm by its formula."""

from __future__ import annotations

import numpy as np
import pytest

SHAPES = [(9, 3), (5, 3, 4), (4, 3, 2, 3), (3, 3, 2, 2, 2)]
"""With three channels along axis 1."""


def shaped(shape, axis):
    """Values with the channels at another axis, and a mask for them that keeps some."""
    random = np.random.default_rng([axis % len(shape), *shape])
    x = np.moveaxis(random.normal(2, 3, shape), 1, axis)
    mask = random.random(tuple(np.delete(x.shape, axis))) < 0.6
    mask.reshape(-1)[:3] = True, False, True
    return x, mask


def formula(x, mask, axis, eps=1e-5, lib=np):
    """Batch norm by the statistics of what the mask keeps, in the words that NumPy and PyTorch
    share; with mean and variance.
    """
    rows = lib.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    kept = rows[mask.reshape(-1)]
    mean = kept.mean(0)
    var = ((kept - mean) ** 2).mean(0)
    shape = [1] * x.ndim
    shape[axis] = -1
    x_hat = (x - mean.reshape(shape)) / (var.reshape(shape) + eps) ** 0.5
    return x_hat, mean, var


def state(layer):
    return {key: value.tolist() for key, value in layer.state_dict().items()}


def every_shape_and_axis():
    return [
        pytest.param(shape, axis, id=f"{len(shape)}d-axis{axis}")
        for shape in SHAPES
        for axis in sorted({-1, 0, 1, len(shape) - 1})
    ]
