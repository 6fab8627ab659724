"""How x (N, C, S) is cut for kernels that see it from its channels (``channels.cuh``).

Where S = 1 a thread has up to four channels, and rows are shared out among threads; else it has
one, and positions are.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tinygrad_bn.backend import Array

from .compilation import TYPES, i32, multiprocessors, tickets, u32, vector_width

STORED = {"float32": 4, "float16": 8, "bfloat16": 8}
"""What is computed here, and how many of each are 16 bytes."""

MOST_CHANNELS = 4
"""Channels of a thread, each of which takes many of its registers."""

THREADS, MOST_PARTS = 256, 65535
LEAST_ITEMS, MOST_ITEMS = 8, 32
"""Packs a thread: so many at least before another block shares the work, so many at most."""

MOST_HELD = 8
"""Packs that a thread holds in registers, where a block does all of its channels at once; of 8
elements it holds half as many.
"""

BLOCKS_EACH = 4
"""Blocks for each multiprocessor, where there is work for them."""


def power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()


class Division(NamedTuple):
    """Quotients of i below 2³⁰ by multiplying: (i · magic) >> shift."""

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
    """For a shape, a dtype, and a width of packs. ``items`` packs of each of ``groups`` of channels
    are for blocks of ``across`` groups, with ``down`` threads for each.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: str, width: int, device: int) -> None:
        n, self.channels, space = shape
        per_thread, self.width = width if space == 1 else 1, width
        self.arguments = f"<{TYPES[dtype]}, {width}, {per_thread}>"
        self.groups = self.channels // per_thread
        self.per_sample = max(space // width, 1)
        self.items = n * self.per_sample
        sizes = i32(self.items), i32(self.groups), i32(self.per_sample)
        self.sizes = (*sizes, *Division.by(self.per_sample))
        """The last arguments of every kernel."""
        self.multiprocessors = multiprocessors(device)
        self.cut(self.threads_across())

    def cut(self, across: int) -> None:
        """Blocks of so many groups."""
        self.across, self.down = across, min(THREADS // across, power_of_two(self.items))
        self.tiles = -(-self.groups // across)

    def threads_across(self) -> int:
        """Threads for channels side by side: a warp's; more where there are few rows to share,
        fewer where blocks would be few, down to 4, which still read 32 bytes or more on end.
        """
        if self.per_sample > 1:
            return 1
        groups, rows = power_of_two(self.groups), power_of_two(self.items)
        across = min(32, groups)
        while across * rows < THREADS and across < groups:
            across *= 2
        while across > 4 and self.busy(across) < self.multiprocessors:
            across //= 2
        return across

    def busy(self, across: int) -> int:
        """How many blocks of that width there is work for."""
        down = max(THREADS // across, 1)
        return -(-self.groups // across) * max(self.items // (down * LEAST_ITEMS), 1)

    @cached_property
    def held(self) -> Plan | None:
        """The same for blocks that hold all items of their groups; None if these are too many."""
        plan, most = copy(self), MOST_HELD // 2 if self.width > 4 else MOST_HELD
        while plan.across > 4 and plan.items > most * plan.down:
            plan.cut(plan.across // 2)
        return plan if plan.items <= most * plan.down else None

    @property
    def block(self) -> tuple[int, int]:
        return self.across, self.down

    def shared_out(self) -> tuple[int, Array, Array]:
        """Among how many blocks the items of a group are, to be summed; room for what each of them
        finds, and tickets for them to learn which is last.
        """
        wanted = -(-BLOCKS_EACH * self.multiprocessors // self.tiles)
        parts = min(wanted, max(self.items // (self.down * LEAST_ITEMS), 1), MOST_PARTS)
        room = cupy.empty((parts if parts > 1 else 0, 2, self.channels), np.float64)
        return parts, room, tickets(self.tiles if parts > 1 else 1)

    def spread_out(self) -> int:
        """Among how many blocks the items of a group are, where each is for itself."""
        each = self.items * self.tiles // (self.down * BLOCKS_EACH * self.multiprocessors)
        return min(-(-self.items // (self.down * min(max(each, 1), MOST_ITEMS))), MOST_PARTS)


cached_plan = lru_cache(maxsize=1024)(Plan)


def plan_of(*arrays: Array) -> Plan:
    """The plan for arrays of one shape and dtype: how wide packs may be depends on their places."""
    x = arrays[0]
    _, channels, space = x.shape
    if space == 1:
        width = vector_width(*arrays, along=channels, most=MOST_CHANNELS)
    else:
        width = vector_width(*arrays, along=space)
    return cached_plan(x.shape, x.dtype.name, width, x.data.device_id)
