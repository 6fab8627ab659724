"""Pools of a user's own: memory that arrays are really made in, and that is lent again.

Arrays of the default pool are NumPy's, each in memory of its own.
"""

from __future__ import annotations

import ctypes
import weakref
from bisect import insort
from functools import partial
from typing import Any

import numpy as np

from .gpus import current_device, machine
from .memory import ALIGNMENT, OutOfMemoryError, chosen_allocator
from .ordering import POISON


class Memory:
    """A piece of memory, as aligned as CuPy's are, in which nothing is known."""

    def __init__(self, size: int) -> None:
        self._held = np.empty(size + ALIGNMENT, np.uint8)
        self.ptr = -(-self._held.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.size, self.device_id = size, current_device()


class PooledMemory:
    """A piece that a pool lends: who drops it gives it back."""

    def __init__(self, pool: MemoryPool, block: Memory, key: Any) -> None:
        self.pool, self._block, self._key = weakref.ref(pool), block, key
        self.ptr, self.size, self.device_id = block.ptr, block.size, block.device_id

    def __del__(self) -> None:
        pool = self.pool()
        if pool is not None:
            pool._take(self._key, self._block)


class MemoryPointer:
    """A place in a piece of memory, which it keeps."""

    __slots__ = ("device_id", "mem", "ptr")

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    def __add__(self, offset: int) -> MemoryPointer:
        found = MemoryPointer.__new__(MemoryPointer)
        found.mem, found.ptr, found.device_id = self.mem, self.ptr + offset, self.device_id
        return found

    @staticmethod
    def to(array: Any, ptr: int) -> MemoryPointer:
        """Where an array lies, which is kept: it, or the piece that it was made in."""
        found = MemoryPointer.__new__(MemoryPointer)
        owner = array if array.base is None else array.base
        found.mem = owner if owner._memory is None else owner._memory.mem
        found.ptr, found.device_id = ptr, array._device
        return found

    def seen(self, shape: Any, dtype: Any, strides: Any = None) -> np.ndarray[Any, Any]:
        """The memory as an array of NumPy, which does not keep it."""
        shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
        if strides is None:
            strides = np.empty(shape, np.void(dtype.itemsize).dtype).strides
        reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
        first, last = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
        if 0 in shape:
            return np.empty(shape, dtype)
        raw = (ctypes.c_char * (last - first + dtype.itemsize)).from_address(self.ptr + first)
        return np.ndarray(shape, dtype, raw, -first, strides)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        from .streams import capture_here

        if stream is not None:
            raise NotImplementedError("the stand-in copies on the current stream")
        there, here = self.seen(size, "u1"), src.seen(size, "u1")
        if (capture := capture_here()) is None:
            np.copyto(there, here)
        else:
            capture.overwrite([there], partial(np.copyto, there, here), (src.mem, self.mem))


class MemoryPool:
    """What keeps memory that arrays gave back: each piece for the stream that it was taken on.

    A piece that is given back is poisoned, and goes out again as a whole.
    """

    def __init__(self, allocator: Any = None) -> None:
        if allocator is not None:
            raise NotImplementedError("the stand-in has pools of a device's memory only")
        self._total = self._used = 0
        self._free: dict[Any, list[tuple[int, int, Memory]]] = {}

    def malloc(self, size: int) -> MemoryPointer:
        from .streams import get_current_stream, refuse_growth

        machine.require()
        key, size = (current_device(), get_current_stream().ptr), -(-size // ALIGNMENT) * ALIGNMENT
        free = self._free.setdefault(key, [])
        fitting = next((i for i, (have, _, _) in enumerate(free) if have >= size), None)
        if fitting is not None:
            block = free.pop(fitting)[2]
        else:
            refuse_growth()
            if size > machine.free_memory:
                raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
            block = Memory(size)
            self._total += block.size
        self._used += block.size
        return MemoryPointer(PooledMemory(self, block, key), 0)

    def _take(self, key: Any, block: Memory) -> None:
        block._held.fill(POISON)
        self._used -= block.size
        insort(self._free.setdefault(key, []), (block.size, block.ptr, block))

    def free_all_blocks(self, stream: Any = None) -> None:
        self._total = self._used
        self._free.clear()

    def total_bytes(self) -> int:
        return self._total

    def used_bytes(self) -> int:
        return self._used


def placed(host: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], MemoryPointer | None]:
    """A new result, moved to memory of the allocator that was chosen, if any was, and the piece."""
    from .streams import capture_here

    allocator = chosen_allocator()
    if allocator is None:
        return host, None
    piece = allocator(host.nbytes)
    there = piece.seen(host.shape, host.dtype, np.empty_like(host).strides)
    if not isinstance(piece.mem, PooledMemory) and (capture := capture_here()) is not None:
        capture.keep([there])  # somebody's memory, that a graph makes its result in
    np.copyto(there, host)
    return there, piece
