"""Scaled gradients: divided by the scale and looked at, the next scale, and steps taken back; a
launch and a pass over memory each, in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import TYPES, Source, f32, i32, i64, multiprocessors
from .optimizers import packed

THREADS, BLOCKS_EACH = 256, 16
SCALED = ("float32", "bfloat16")
KEPT = ("float32", "float16", "bfloat16", "float64")

SOURCE = Source(
    "scaling.cu",
    [
        *(f"unscale<{TYPES[dtype]}>" for dtype in SCALED),
        "next_scale",
        *(f"take_back<{TYPES[dtype]}>" for dtype in KEPT),
    ],
)


def blocks_for(x: Array, each: int) -> tuple[int]:
    """Blocks whose threads take so many elements at once."""
    most = BLOCKS_EACH * multiprocessors(x.data.device_id)
    return (min(-(-x.size // (THREADS * each)), most),)


def unscaled(grad: Array, found: Array, scale: Array) -> tuple[Array, Array]:
    args = grad, found, scale, i64(grad.size), np.bool_(packed((grad,)))
    kernel = f"unscale<{TYPES[grad.dtype.name]}>"
    SOURCE.launch(kernel, blocks_for(grad, 16 // grad.dtype.itemsize), (THREADS,), args)
    return grad, found


def next_scale(
    scale: Array, tracker: Array, found: Array, growth: float, backoff: float, interval: int
) -> tuple[Array, Array]:
    args = scale, tracker, found, f32(growth), f32(backoff), i32(interval)
    SOURCE.launch("next_scale", (1,), (1,), args)
    return scale, tracker


def taken_back(array: Array, before: Array, found: Array) -> tuple[Array]:
    kernel = f"take_back<{TYPES[array.dtype.name]}>"
    args = array, before, found, i64(array.size)
    SOURCE.launch(kernel, blocks_for(array, 1), (THREADS,), args)
    return (array,)


def whole(x: Array, *dtypes: Any) -> bool:
    """Of one of these dtypes, in C order, with values in it."""
    return bool(x.dtype.name in dtypes and x.size and x.flags.c_contiguous)


def accepts_grad(grad: Array, found: Array, scale: Array) -> bool:
    return whole(grad, *SCALED) and number(found, "bool") and number(scale, "float32")


def number(x: Array, dtype: str) -> bool:
    return whole(x, dtype) and bool(x.size == 1)


def accepts_scale(
    scale: Array, tracker: Array, found: Array, growth: float, backoff: float, interval: int
) -> bool:
    small = interval < 1 << 31
    numbers = number(scale, "float32") and number(tracker, "int32") and number(found, "bool")
    return small and numbers


def accepts_kept(array: Array, before: Array, found: Array) -> bool:
    return (
        whole(array, *KEPT)
        and whole(before, array.dtype.name)
        and array.shape == before.shape
        and number(found, "bool")
    )


KERNELS = {
    "unscaled": Kernel(unscaled, accepts_grad, None, (0, 1)),
    "next_scale": Kernel(next_scale, accepts_scale, None, (0, 1)),
    "taken_back": Kernel(taken_back, accepts_kept, None, (0,)),
}
