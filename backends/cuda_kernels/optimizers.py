"""Optimizers: one launch over flat buffers, in place, from options that lie on the device.

A rule does what its reference body does, operation by operation, and rounds as often: the bits are
the body's, but for what CUDA's pow and NumPy's leave in the last place of a bias correction (two
units of float64, before it is rounded to float32).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import NULL, TYPES, VECTOR_BYTES, Source, i64, multiprocessors

THREADS = 256
BLOCKS_EACH = 8
"""Blocks for each multiprocessor at most, since each of them reads the options."""

STORED = ("float32", "float16", "bfloat16")
MOST_SLOTS, MOST_NUMBERS = 3, 9

RULES = {
    "sgd_update": ("Sgd", 0),
    "momentum_update": ("Momentum", 1),
    "lion_update": ("Lion", 1),
    "schedule_free_sgd_update": ("ScheduleFreeSgd", 1),
    "schedule_free_adamw_update": ("ScheduleFreeAdamW", 2),
    "adam_update": ("Adam", 3),
    "adamax_update": ("Adamax", 2),
    "nadam_update": ("NAdam", 2),
    "radam_update": ("RAdam", 2),
    "adagrad_update": ("Adagrad", 1),
    "adadelta_update": ("Adadelta", 2),
    "rmsprop_update": ("RmsProp", 3),
}
"""The rule of each kernel point, and how many kinds of state it has."""

SOURCE = Source(
    "optimizers.cu",
    [f"update<{rule}, {TYPES[dtype]}>" for rule, _ in RULES.values() for dtype in STORED],
)


def packed(buffers: tuple[Array | None, ...]) -> bool:
    """Whether all begin where packs of as many elements as are 16 bytes of parameters may."""
    width = VECTOR_BYTES // buffers[0].dtype.itemsize  # type: ignore[union-attr]
    return all(x is None or x.data.ptr % (width * x.dtype.itemsize) == 0 for x in buffers)


def padded(values: tuple[Array | None, ...], size: int) -> list[Any]:
    """Them, and null for what is absent."""
    return [NULL if x is None else x for x in values] + [NULL] * (size - len(values))


def update(rule: str, slots: int, *args: Any, **flags: bool) -> tuple[Any, ...]:
    """Step (param, grad, *state, *numbers), in place, and return parameter and state."""
    buffers, numbers = args[: slots + 2], args[slots + 2 :]
    param, grad, *state = buffers
    n = param.size
    width = VECTOR_BYTES // param.dtype.itemsize
    blocks = min(-(-n // (THREADS * width)), BLOCKS_EACH * multiprocessors(param.data.device_id))
    SOURCE.launch(
        f"update<{rule}, {TYPES[param.dtype.name]}>",
        (blocks,),
        (THREADS,),
        (
            param,
            grad,
            *padded(tuple(state), MOST_SLOTS),
            *padded(numbers, MOST_NUMBERS),
            np.bool_(any(flags.values())),
            i64(n),
            np.bool_(packed(buffers)),
        ),
    )
    return param, *state


def accepts(slots: int, *args: Any, **flags: bool) -> bool:
    """Parameters and gradients of one dtype and state in float32, all of one shape in C order;
    numbers in float64, on the device.
    """
    param, grad, *state = args[: slots + 2]
    return bool(
        param.dtype.name in STORED
        and param.size
        and grad.dtype == param.dtype
        and all(x is None or x.dtype == np.float32 for x in state)
        and all(
            x is None or (x.shape == param.shape and x.flags.c_contiguous)
            for x in (param, grad, *state)
        )
        and all(
            x is None or (isinstance(x, cupy.ndarray) and x.dtype == np.float64 and x.size == 1)
            for x in args[slots + 2 :]
        )
    )


KERNELS = {
    name: Kernel(
        partial(update, rule, slots), partial(accepts, slots), None, (0, *range(2, slots + 2))
    )
    for name, (rule, slots) in RULES.items()
}
