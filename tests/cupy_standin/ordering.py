"""What is done when: copies that wait in a stream, events, and what a stream has waited for.

Kernels are executed at once, which a GPU may do too. A copy from page-locked memory on a stream
that is not the current one is done as late as a GPU could: when the host or another stream waits
for it. Until then its target holds poison, and it reads what is in the page-locked memory then.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from .memory import PinnedMemoryPointer, memory_of

now = count().__next__
"""Moments, in the order in which the host lives through them."""
POISON = 0xFF
"""In every byte: NaN as a float, and no likely number otherwise."""


class SilentOnGPU(Exception):
    """Something that a GPU would do without an error, and wrongly: a bug of the caller."""


busy: set[Queue] = set()
"""What has copies to make; they are made though their stream is gone."""


class Queue:
    """The copies of a stream that are yet to be made, and what it has waited for.

    Attributes
    ----------
    waited : up to which moment of each other stream, by its key.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self.waited: dict[Any, int] = {}

    def put(self, work: Callable[[], None]) -> None:
        self._waiting.append((now(), work))
        busy.add(self)

    def run(self, until: float = float("inf")) -> None:
        """Do what was given up to a moment."""
        try:
            while self._waiting and self._waiting[0][0] <= until:
                self._waiting.popleft()[1]()
        except SilentOnGPU:
            self._waiting.clear()  # said once
            raise
        finally:
            if not self._waiting:
                busy.discard(self)

    def idle(self, until: float = float("inf")) -> bool:
        """Whether all of that is done."""
        return not self._waiting or self._waiting[0][0] > until


def late_copy(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> Callable[[], None]:
    """Poison the target, and give what copies the source there later.

    It does not keep the page-locked memory alive: a GPU's copy engine would not either.
    """
    pinned = memory_of(source)
    assert isinstance(pinned, PinnedMemoryPointer)
    start = np.frombuffer(pinned, np.uint8).ctypes.data
    offset = source.ctypes.data - start if source.size else 0
    held, shape, dtype = weakref.ref(pinned), source.shape, source.dtype
    target.reshape(-1).view(np.uint8)[...] = POISON

    def copy() -> None:
        memory = held()
        if memory is None:
            raise SilentOnGPU("page-locked memory was given back while a copy from it was to come")
        target[...] = np.ndarray(shape, dtype, buffer=memory, offset=offset)

    return copy
