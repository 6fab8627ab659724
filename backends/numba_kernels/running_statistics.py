"""Running statistics one step on, bit for bit as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .calling import Call
from .flat import FLOATS, exact


@exact
def averaged(mean: Any, var: Any, new_mean: Any, new_var: Any, rate: Any, factor: Any) -> None:
    """Both running averages, in their places."""
    kept, fresh = 1 - rate, factor * rate
    for c in range(mean.size):
        mean[c] = mean[c] * kept + new_mean[c] * rate
        var[c] = var[c] * kept + new_var[c] * fresh


def moving_moments(outs: tuple[Array, ...], *args: Any) -> Call:
    return averaged, args


def run(mean: Array, var: Array, *args: Any) -> tuple[Array, Array]:
    averaged(mean, var, *args)
    return mean, var


def accepts(
    mean: Array, var: Array, new_mean: Array, new_var: Array, rate: Any, factor: Any
) -> bool:
    """Float32 or float64, means of which are float64; and a rate that is a number."""
    return (
        rate.__class__ is factor.__class__ is float
        and mean.dtype in FLOATS
        and var.dtype in FLOATS
        and new_mean.dtype == new_var.dtype == np.float64
        and mean.flags.carray
        and var.flags.carray
    )


KERNELS = {"moving_moments": Kernel(run, accepts, moving_moments, (0, 1))}
