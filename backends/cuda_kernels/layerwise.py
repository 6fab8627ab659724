"""LARS and LAMB for all parameters of a buffer, in two launches and in place.

A rule does what the body of one parameter does, and rounds as often; norms are summed in float64 in
another order.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel
from tinygrad_bn.errors import BackendError

from .compilation import TYPES, Source, multiprocessors, tickets
from .optimizers import STORED, accepts, packed, padded

THREADS, LINE = 256, 4096
"""Threads of a block; chunks are multiples of so many elements, and begin where packs may."""
BLOCKS_EACH = 8
MOST_SLOTS, MOST_NUMBERS = 2, 6

RULES = {"lars_update_each": ("Lars", 1), "lamb_update_each": ("Lamb", 2)}
"""The rule of each kernel point, and how many kinds of state it has."""

SOURCE = Source(
    "layerwise.cu",
    [
        f"{kernel}<{rule}, {TYPES[dtype]}>"
        for kernel in ("measure", "step")
        for rule, _ in RULES.values()
        for dtype in STORED
    ],
)

Bounds = tuple[tuple[int, int], ...]


def chunks_of(bounds: Bounds, size: int) -> list[tuple[int, int, int, int, int]]:
    """Parameters in chunks of up to ``size`` elements: where each begins and ends, of which
    parameter it is, the first chunk of that and their number.
    """
    rows: list[tuple[int, int, int, int, int]] = []
    for i, (start, end) in enumerate(bounds):
        first, count = len(rows), -(-(end - start) // size)
        edges = (*range(start, end, size), end)
        rows += [(*edges[k : k + 2], i, first, count) for k in range(count)]
    return rows


@lru_cache(maxsize=256)
def table(bounds: Bounds, device: int) -> Array:
    """The chunks, (n, 5), on the device."""
    if cupy.cuda.get_current_stream().is_capturing():
        raise BackendError("expected a capture of optimizers that have made a step before")
    total = sum(end - start for start, end in bounds)
    each = -(-total // (BLOCKS_EACH * multiprocessors(device)))
    rows = chunks_of(bounds, max(-(-each // LINE), 1) * LINE)
    return cupy.asarray(np.array(rows, np.int64))


def update(rule: str, slots: int, *args: Any, bounds: Bounds) -> tuple[Any, ...]:
    """Step (param, grad, *state, *numbers), in place, and return parameter and state."""
    buffers, numbers = args[: slots + 2], args[slots + 2 :]
    param, grad, *state = buffers
    chunks = table(bounds, param.data.device_id)
    parts, rates = cupy.empty((len(chunks), 2)), cupy.empty(len(bounds), np.float32)
    given = (param, grad, *padded(tuple(state), MOST_SLOTS), chunks)
    given += (*padded(numbers, MOST_NUMBERS),)
    aligned = np.bool_(packed(buffers))
    names = (f"{kernel}<{rule}, {TYPES[param.dtype.name]}>" for kernel in ("measure", "step"))
    grid, block = (len(chunks),), (THREADS,)
    room = tickets(len(bounds))
    SOURCE.launch(next(names), grid, block, (*given, parts, room, rates, aligned))
    SOURCE.launch(next(names), grid, block, (*given, rates, aligned))
    return param, *state


def accepts_each(slots: int, *args: Any, bounds: Bounds) -> bool:
    """What rules of elements accept; and every parameter has values."""
    return accepts(slots, *args) and all(end > start for start, end in bounds)


KERNELS = {
    name: Kernel(
        partial(update, rule, slots), partial(accepts_each, slots), None, (0, *range(2, slots + 2))
    )
    for name, (rule, slots) in RULES.items()
}
