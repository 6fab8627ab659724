"""Batch norm's phases for x (N, C, S), two launches each way. Sums of all blocks are merged by the
last of them, in the order of blocks, so that bits depend on the input and the GPU alone.

Where S = 1 a thread has as many channels as 16 bytes hold, and rows are shared out among threads;
else it has one, and positions are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import (
    NULL,
    TYPES,
    Source,
    i32,
    multiprocessors,
    tickets,
    u32,
    vector_width,
)

STORED = {"float32": 4, "float16": 8, "bfloat16": 8}
"""What is computed here, and how many of each a thread loads at once."""

THREADS = 256
LEAST_ITEMS, MOST_ITEMS = 8, 32
"""Packs a thread: so many at least before another block shares the work, so many at most."""

BLOCKS_EACH = 4
"""Blocks for each multiprocessor, where there is work for them."""


SOURCE = Source(
    "batch_norm.cu",
    [
        f"{kernel}<{TYPES[dtype]}, {width}, {channels}>"
        for kernel in ("moments", "normalize", "grad_sums", "grad_input")
        for dtype, most in STORED.items()
        for width, channels in ((1, 1), (most, 1), (most, most))
    ],
)


def power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()


class Division(NamedTuple):
    """Quotients of i below 2³¹ by multiplying: (i · magic) >> shift."""

    magic: Any
    shift: Any

    @classmethod
    def by(cls, divisor: int) -> Division:
        """``magic`` exceeds 2ˢ / divisor by less than 1: times i, and divided by 2ˢ, that is less
        than 1 / divisor, and reaches no other quotient.
        """
        shift = 31 + (divisor - 1).bit_length()
        return cls(u32(-(-(1 << shift) // divisor)), i32(shift))


class Plan:
    """How x (N, C, S) is cut for a GPU."""

    def __init__(self, *arrays: Array) -> None:
        x = arrays[0]
        n, channels, space = x.shape
        width = vector_width(*arrays, along=channels if space == 1 else space)
        per_thread = width if space == 1 else 1
        self.type = f"<{TYPES[x.dtype.name]}, {width}, {per_thread}>"
        self.groups: int = channels // per_thread
        self.per_sample: int = max(space // width, 1)
        self.items: int = n * self.per_sample
        self.channels: int = channels
        self.most_blocks = BLOCKS_EACH * multiprocessors(x.device.id)
        self.across = self.threads_across()
        self.down = min(THREADS // self.across, power_of_two(self.items))
        self.tiles = -(-self.groups // self.across)

    def threads_across(self) -> int:
        """Threads for channels side by side: a warp's; more where there are few rows to share,
        fewer where blocks would be few, down to 4, which still read 64 bytes on end.
        """
        if self.per_sample > 1:
            return 1
        across = min(32, power_of_two(self.groups))
        rows = power_of_two(self.items)
        while across * rows < THREADS and across < power_of_two(self.groups):
            across *= 2
        while across > 4 and self.work(across) < self.most_blocks // BLOCKS_EACH:
            across //= 2
        return across

    def work(self, across: int) -> int:
        """How many blocks that wide could be kept busy."""
        down = max(THREADS // across, 1)
        return -(-self.groups // across) * max(self.items // (down * LEAST_ITEMS), 1)

    @property
    def sizes(self) -> tuple[Any, ...]:
        """The last arguments of every kernel."""
        return (
            i32(self.items),
            i32(self.groups),
            i32(self.per_sample),
            *Division.by(self.per_sample),
        )

    def reduce(self, kernel: str, arrays: tuple[Any, ...]) -> tuple[Array, Array]:
        """Two sums for each channel."""
        most = max(self.items // (self.down * LEAST_ITEMS), 1)
        parts = min(-(-self.most_blocks // self.tiles), most, 65535)
        outs = cupy.empty((2, self.channels), np.float64)
        room, ticket = outs, tickets(1)
        if parts > 1:
            room, ticket = cupy.empty((parts, 2, self.channels), np.float64), tickets(self.tiles)
        args = (*arrays, outs[0], outs[1], room, ticket, *self.sizes)
        SOURCE.launch(kernel + self.type, (self.tiles, parts), (self.across, self.down), args)
        return outs[0], outs[1]

    def apply(self, kernel: str, arrays: tuple[Any, ...], out: Array) -> Array:
        """Every element anew."""
        each = self.items * self.tiles // (self.down * self.most_blocks)
        each = min(max(each, 1), MOST_ITEMS)
        parts = min(-(-self.items // (self.down * each)), 65535)
        args = (*arrays, out, *self.sizes)
        SOURCE.launch(kernel + self.type, (self.tiles, parts), (self.across, self.down), args)
        return out


def parameter(values: Array | None) -> Any:
    """γ or β in float32; where there is none, no address."""
    return NULL if values is None else cupy.ascontiguousarray(values, np.float32)


def batch_moments(x: Array, mask: Array | None) -> tuple[Array, Array]:
    return Plan(x).reduce("moments", (x,))


def batch_normalize(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    y = cupy.empty(x.shape, x.dtype)
    given = (x, mean, rstd, parameter(weight), parameter(bias))
    return Plan(x, y).apply("normalize", given, y)


def batch_grad_sums(
    dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> tuple[Array, Array]:
    return Plan(dy, x).reduce("grad_sums", (dy, x, mean, rstd))


def batch_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: Array | None,
) -> Array:
    dx = cupy.empty(x.shape, x.dtype)
    given = (dy, x, mean, rstd, parameter(weight), mean_dy, mean_dy_x_hat)
    return Plan(dy, x, dx).apply("grad_input", given, dx)


def fits(x: Array, *others: Array) -> bool:
    """Floats of up to 32 bits in C order, all of one dtype, with values in them."""
    n, channels, space = x.shape
    return bool(
        x.dtype.name in STORED
        and x.size
        and max(n * space, channels) < 1 << 30
        and all(a.dtype == x.dtype and a.flags.c_contiguous for a in (x, *others))
    )


def wide(*vectors: Array) -> bool:
    """Statistics in float64, as the bodies of other phases give them."""
    return all(v.dtype == np.float64 and v.flags.c_contiguous for v in vectors)


def accepts_moments(x: Array, mask: Array | None) -> bool:
    return mask is None and fits(x)


def accepts_normalize(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> bool:
    return fits(x) and wide(mean, rstd)


def accepts_grad_sums(dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None) -> bool:
    return mask is None and fits(x, dy) and wide(mean, rstd)


def accepts_grad_input(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, *rest: Any
) -> bool:
    *means, mask = rest
    return mask is None and fits(x, dy) and wide(mean, rstd, *means)


KERNELS = {
    "batch_moments": Kernel(batch_moments, accepts_moments),
    "batch_normalize": Kernel(batch_normalize, accepts_normalize),
    "batch_grad_sums": Kernel(batch_grad_sums, accepts_grad_sums),
    "batch_grad_input": Kernel(batch_grad_input, accepts_grad_input),
}
