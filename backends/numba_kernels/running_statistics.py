"""Running statistics one step on, bit for bit as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .calling import Call
from .flat import FLOATS, exact

COUNTS = {np.dtype(np.int64), np.dtype(np.float64)}


@exact
def averaged(mean: Any, var: Any, new_mean: Any, new_var: Any, rate: Any, factor: Any) -> None:
    """Both running averages, in their places."""
    kept, fresh = 1 - rate, factor * rate
    for c in range(mean.size):
        mean[c] = mean[c] * kept + new_mean[c] * rate
        var[c] = var[c] * kept + new_var[c] * fresh


@exact
def counted(
    count: Any, mean: Any, var: Any, new_mean: Any, new_var: Any, rate: Any, factor: Any
) -> None:
    """The same, and the count of batches."""
    count[()] += 1
    averaged(mean, var, new_mean, new_var, rate, factor)


def moving_moments(outs: tuple[Array, ...], *args: Any) -> Call:
    return averaged, args


def tracked_moments(outs: tuple[Array, ...], *args: Any) -> Call:
    return counted, args


def run(mean: Array, var: Array, *args: Any) -> tuple[Array, Array]:
    averaged(mean, var, *args)
    return mean, var


def run_tracked(count: Array, mean: Array, var: Array, *args: Any) -> tuple[Array, Array, Array]:
    counted(count, mean, var, *args)
    return count, mean, var


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


@exact
def increased(count: Any) -> None:
    count[()] += 1


def one_more(outs: tuple[Array, ...], count: Array) -> Call:
    return increased, (count,)


def run_count(count: Array) -> tuple[Array]:
    increased(count)
    return (count,)


def accepts_count(count: Array) -> bool:
    """A count of int64 or float64 that may be written."""
    return bool(count.dtype in COUNTS and not count.shape and count.flags.carray)


def accepts_tracked(count: Array, *args: Any) -> bool:
    """The same, and a count that may be written."""
    return accepts_count(count) and accepts(*args)


KERNELS = {
    "moving_moments": Kernel(run, accepts, moving_moments, (0, 1)),
    "one_more": Kernel(run_count, accepts_count, one_more, (0,)),
    "tracked_moments": Kernel(run_tracked, accepts_tracked, tracked_moments, (0, 1, 2)),
}
