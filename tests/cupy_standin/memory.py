"""Memory of a device: pieces of it, and the pool from which CuPy takes them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .gpus import MEMORY_ALLOCATION, CUDARuntimeError, current_device, machine

ALIGNMENT = 512


class OutOfMemoryError(MemoryError):
    """CuPy found no memory, also after it gave back what it kept."""


class MemoryPointer:
    """A piece of memory, as aligned as CuPy's are, in which nothing is known."""

    def __init__(self, size: int) -> None:
        self._held = np.empty(size + ALIGNMENT, np.uint8)
        self.ptr = -(-self._held.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.device_id = current_device()


class MemoryPool:
    """What keeps memory that arrays gave back: as a pool at its limit, which CuPy does not empty by
    itself.

    Attributes
    ----------
    emptied : how often it was told to let go.
    kept : how many bytes it would let go of, by device.
    """

    def __init__(self) -> None:
        self.emptied, self.kept = 0, Counter[int]()

    def malloc(self, size: int) -> Any:
        machine.require()
        if size > machine.free_memory:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        return MemoryPointer(size)

    def free_all_blocks(self, stream: Any = None) -> None:
        self.emptied += 1
        machine.free_memory += self.kept.pop(current_device(), 0)


class PinnedMemoryPool:
    """The same for page-locked memory."""

    def __init__(self) -> None:
        self.emptied = self.kept = 0

    def malloc(self, size: int) -> PinnedMemoryPointer:
        machine.require()
        if size > machine.free_pinned:
            raise CUDARuntimeError(MEMORY_ALLOCATION)
        return PinnedMemoryPointer(b"\xff" * size)

    def free_all_blocks(self) -> None:
        self.emptied += 1
        machine.free_pinned += self.kept
        self.kept = 0


class PinnedMemoryPointer(bytearray):
    """Page-locked memory of the host, in which nothing is known."""


pool, pinned_pool = MemoryPool(), PinnedMemoryPool()
_local = threading.local()
_allocator: Callable[[int], Any] = pool.malloc


def set_allocator(allocator: Callable[[int], Any]) -> None:
    global _allocator
    if chosen_allocator() is not None:
        raise ValueError("Can't change the global allocator inside `using_allocator`")
    _allocator = allocator


def chosen_allocator() -> Callable[[int], Any] | None:
    """The allocator of this thread, if it has one of its own."""
    return getattr(_local, "allocator", None)


def get_allocator() -> Callable[[int], Any]:
    return chosen_allocator() or _allocator


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Generator[None]:
    """Another allocator for this thread, for a while."""
    before, _local.allocator = getattr(_local, "allocator", None), allocator
    try:
        yield
    finally:
        _local.allocator = before


def alloc(size: int) -> Any:
    return get_allocator()(size)


def require(size: int) -> None:
    """What a new array asks of the allocator; NumPy holds its memory, so this one is not kept."""
    if size > machine.free_memory:
        alloc(size)


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    return pinned_pool.malloc(size)


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, buffer=alloc_pinned_memory(size), order=order)  # type: ignore[call-overload, no-any-return]


def memory_of(array: Any) -> Any:
    """What owns the memory of a NumPy array."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def get_default_memory_pool() -> MemoryPool:
    return pool


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    return pinned_pool
