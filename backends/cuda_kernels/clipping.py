"""Gradients clipped by their norm together: two launches for each, and none waits for another's
result on the host.
"""

from __future__ import annotations

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .channel_plans import STORED
from .compilation import TYPES, VECTOR_BYTES, Source, f64, i64, multiprocessors, tickets
from .optimizers import packed

THREADS, BLOCKS_EACH = 256, 4
SOURCE = Source(
    "clipping.cu",
    [f"{kernel}<{TYPES[dtype]}>" for kernel in ("add_squares", "clip") for dtype in STORED],
)


def blocks_for(x: Array) -> int:
    """A thread for every pack, up to so many blocks for each multiprocessor."""
    packs = -(-int(x.size) * x.dtype.itemsize // VECTOR_BYTES)
    blocks: int = min(-(-packs // THREADS), BLOCKS_EACH * multiprocessors(x.data.device_id))
    return blocks


def add_squares(total: Array, x: Array) -> tuple[Array]:
    blocks = blocks_for(x)
    room = cupy.empty(blocks if blocks > 1 else 0), tickets(1)
    args = total, x, *room, i64(x.size), np.bool_(packed((x,)))
    SOURCE.launch(f"add_squares<{TYPES[x.dtype.name]}>", (blocks,), (THREADS,), args)
    return (total,)


def clipped(x: Array, total: Array, max_norm: float) -> tuple[Array]:
    args = x, total, f64(max_norm), i64(x.size), np.bool_(packed((x,)))
    SOURCE.launch(f"clip<{TYPES[x.dtype.name]}>", (blocks_for(x),), (THREADS,), args)
    return (x,)


def accepts(total: Array, x: Array) -> bool:
    """Floats of up to 32 bits in C order with values in them, and a total on the device."""
    return bool(
        x.dtype.name in STORED
        and x.size
        and x.flags.c_contiguous
        and total.dtype == np.float64
        and total.size == 1
    )


def accepts_clipped(x: Array, total: Array, max_norm: float) -> bool:
    return accepts(total, x)


KERNELS = {
    "add_squares": Kernel(add_squares, accepts, None, (0,)),
    "clipped": Kernel(clipped, accepts_clipped, None, (0,)),
}
