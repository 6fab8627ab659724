"""Running statistics and counts, moved on where they lie, by one launch each."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .batch_norm import wide
from .compilation import NULL, TYPES, Source, f64, i32

THREADS = 256
COUNTS = {"float64": "double", "int64": "i64"}

SOURCE = Source(
    "running_state.cu",
    [
        "moving_moments<float>",
        "moving_moments<double>",
        *(f"one_more<{kind}>" for kind in COUNTS.values()),
    ],
)


def moving_moments(
    running_mean: Array,
    running_var: Array,
    mean: Array,
    var: Array,
    rate: Array | float,
    factor: float,
) -> tuple[Array, Array]:
    n = mean.size
    known = (NULL, f64(rate)) if isinstance(rate, float) else (rate, f64(0))
    args = running_mean, running_var, mean, var, *known, f64(factor), i32(n)
    kernel = f"moving_moments<{TYPES[running_mean.dtype.name]}>"
    SOURCE.launch(kernel, (-(-n // THREADS),), (THREADS,), args)
    return running_mean, running_var


def one_more(count: Array) -> tuple[Array]:
    SOURCE.launch(f"one_more<{COUNTS[count.dtype.name]}>", (1,), (1,), (count,))
    return (count,)


def accepts_moments(
    running_mean: Array, running_var: Array, mean: Array, var: Array, rate: Any, factor: float
) -> bool:
    """Running statistics of one dtype, float32 or float64, in one piece each."""
    return bool(
        running_mean.dtype in (np.float32, np.float64)
        and running_var.dtype == running_mean.dtype
        and running_mean.shape == running_var.shape == mean.shape == var.shape
        and running_mean.flags.c_contiguous
        and running_var.flags.c_contiguous
        and 0 < mean.size < 1 << 30
        and wide(mean, var)
        and (isinstance(rate, float) or (rate.size == 1 and wide(rate)))
    )


def accepts_count(count: Array) -> bool:
    return count.dtype.name in COUNTS and count.size == 1


KERNELS = {
    "moving_moments": Kernel(moving_moments, accepts_moments, None, (0, 1)),
    "one_more": Kernel(one_more, accepts_count, None, (0,)),
}
