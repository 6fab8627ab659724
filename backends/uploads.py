"""Copies to a GPU in a stream of their own, from page-locked memory, beside what it computes.

The device's memory comes from the stream that is current when a copy starts. What that stream was
given before may still use it, so the copy waits for that; what it is given later may run beside the
copy. Whoever receives the arrays makes the stream that is current then wait for the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import cupy
import cupyx
import numpy as np

from tinygrad_bn.backend import Array

from .current_gpu import patiently


class Upload:
    """Copies under way."""

    def __init__(self, guard: AbstractContextManager[Any], arrays: list[Array], made: Any) -> None:
        self._guard, self._arrays, self._made = guard, arrays, made

    def receive(self) -> list[Array]:
        """The arrays, for the current stream to read."""
        with self._guard:
            cupy.cuda.get_current_stream().wait_event(self._made)
        return self._arrays

    def finish(self) -> None:
        """Wait until the copies have been made."""
        if not self._made.done:
            self._made.synchronize()


class Uploads:
    """A stream for copies to one GPU."""

    def __init__(self, guard: AbstractContextManager[Any]) -> None:
        self._guard = guard
        with guard:
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def start(self, hosts: Sequence[np.ndarray[Any, Any]]) -> Upload:
        """Copy arrays in page-locked memory, which must stay as it is until that has been done."""
        with self._guard:
            arrays = [cupy.empty(host.shape, host.dtype) for host in hosts]
            self._stream.wait_event(moment(cupy.cuda.get_current_stream()))
            for array, host in zip(arrays, hosts, strict=True):
                if array.size:
                    array.set(host, stream=self._stream)
            return Upload(self._guard, arrays, moment(self._stream))


def moment(stream: Any) -> Any:
    """An event that says when a stream has done what it was given so far."""
    event = cupy.cuda.Event(disable_timing=True)
    event.record(stream)
    return event


def from_other_device(
    array: Array, source: AbstractContextManager[Any], target: AbstractContextManager[Any]
) -> Array:
    """A copy on the target's device. Each device waits for the other where it must: the target
    until the values are there, the source, before it reuses the memory, until they have been read.
    """
    with source:
        array = cupy.ascontiguousarray(array)
        there = cupy.cuda.get_current_stream()
        ready = moment(there)
    with target:
        here = cupy.cuda.get_current_stream()
        here.wait_event(ready)
        copied = array.copy()
        read = moment(here)
    with source:
        there.wait_event(read)
    return copied


def page_locked(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """Page-locked memory of this machine, in which nothing is known."""
    return patiently(cupyx.empty_pinned, tuple(shape), dtype)


def is_page_locked(array: object) -> bool:
    """Whether NumPy's array lies in page-locked memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, cupy.cuda.PinnedMemoryPointer)
