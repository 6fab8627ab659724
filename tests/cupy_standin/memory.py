"""Memory of a device: pieces of it, and the pool from which CuPy takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .gpus import current_device, machine

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
    """What keeps memory that arrays gave back; here only how often it was told to let go."""

    emptied = 0

    def malloc(self, size: int) -> Any:
        machine.require()
        if size > machine.free_memory:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        return MemoryPointer(size)

    def free_all_blocks(self, stream: Any = None) -> None:
        self.emptied += 1


pool = MemoryPool()


class PinnedMemoryPointer(bytearray):
    """Page-locked memory of the host, in which nothing is known."""


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    machine.require()
    return PinnedMemoryPointer(b"\xff" * size)


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, buffer=alloc_pinned_memory(size), order=order)  # type: ignore[call-overload, no-any-return]


def memory_of(array: Any) -> Any:
    """What owns the memory of a NumPy array."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def alloc(size: int) -> Any:
    return pool.malloc(size)


def get_default_memory_pool() -> MemoryPool:
    return pool
