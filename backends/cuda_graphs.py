"""CUDA graphs: work that is captured once, in memory of its own, and then launched as a whole.

All graphs of a GPU are captured on one stream, whose workspace for products they share, so no two
of them may run side by side. They are launched on the current stream; where that is another than
the last time, it waits for what the last one was given.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array
from tinygrad_bn.errors import BackendError

from .current_gpu import patiently
from .uploads import moment

PER_THREAD_STREAM = 2
"""cudaStreamPerThread: one number, another stream in each thread."""


class Place:
    """Where the graphs of one GPU are captured: a stream, which one thread uses at a time.

    Attributes
    ----------
    done : the moment when the graph that was launched last, or the work here, will have been done.
    last : the stream that waits for it without being told: on which it was launched. It is kept,
        so that no other gets its number.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.done = moment(self.stream)
        self.last = self.stream, identity(self.stream)

    def turn_to(self, stream: Any) -> None:
        """Let a stream go on where the last one has done."""
        if identity(stream) != self.last[1]:
            stream.wait_event(self.done)

    def turn_from(self, stream: Any) -> None:
        """Note what a stream was given."""
        self.done.record(stream)
        self.last = stream, identity(stream)


def identity(stream: Any) -> tuple[int, int]:
    """What tells streams apart; that of each thread has one number for all."""
    return stream.ptr, threading.get_ident() if stream.ptr == PER_THREAD_STREAM else 0


_places: dict[int, Place] = {}
_starting = threading.Lock()


def place_on(device: int) -> Place:
    """The place on a GPU, which must be the current one."""
    with _starting:
        if device not in _places:
            _places[device] = Place()
        return _places[device]


def between_captures(device: int) -> AbstractContextManager[Any]:
    """What would end a capture of another thread, as to wait for a whole GPU, is done inside."""
    place = _places.get(device)
    return nullcontext() if place is None else place.lock


class Graphs:
    """The graphs of one program, and the memory that they know by its addresses.

    Attributes
    ----------
    pool : where the memory comes from while `working`, and nobody else's does. It lives as long as
        the graphs.
    """

    def __init__(self, device: int, guard: AbstractContextManager[Any]) -> None:
        self._guard = guard
        with guard:
            self._place = place_on(device)
            self.pool = cupy.cuda.MemoryPool()
        self._sizes: Counter[int] = Counter()
        self._given: dict[tuple[int, int], Array] = {}
        self._taken: list[tuple[int, tuple[int, int]]] = []

    @contextmanager
    def working(self) -> Generator[None]:
        """What is done inside is given to the stream for captures, in memory of the pool; before
        comes what the current stream was given, and that goes on after it.
        """
        place = self._place
        with place.lock, self._guard:
            here = cupy.cuda.get_current_stream()
            refuse_captured(here)
            place.turn_to(place.stream)
            place.stream.wait_event(moment(here))
            try:
                with place.stream, cupy.cuda.using_allocator(self._allocate), at_work():
                    yield
            finally:
                place.turn_from(place.stream)
                here.wait_event(place.done)

    def _allocate(self, size: int) -> Any:
        """Memory from the pool, or that of an array that is there (`made_in`)."""
        number = size, self._sizes[size]
        self._sizes[size] += 1
        if number in self._given:
            return self._given[number].data
        piece = patiently(self.pool.malloc, size)
        self._taken.append((piece.ptr, number))
        return piece

    def learned(
        self, compute: Callable[[], tuple[Any, ...]], places: Mapping[int, Array]
    ) -> dict[tuple[int, int], Array]:
        """By which allocations a computation makes some of its results, each with the place where
        it is wanted: by size, and their number among those of that size.
        """
        self._begin({})
        results = compute()
        numbers = dict(self._taken)  # of two of one address, the last
        found = {numbers.get(results[i].data.ptr): place for i, place in places.items()}
        return {number: x for number, x in found.items() if number and number[0] == x.nbytes}

    def made_in(
        self, given: dict[tuple[int, int], Array], compute: Callable[[], tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        """The results of a computation, some of which `learned` found memory for."""
        self._begin(given)
        try:
            return compute()
        finally:
            self._begin({})

    def _begin(self, given: dict[tuple[int, int], Array]) -> None:
        """Count allocations anew."""
        self._given = given
        self._sizes.clear()
        self._taken.clear()

    @staticmethod
    def same_place(a: Array, b: Array) -> bool:
        """Whether two arrays begin at one address."""
        return bool(a.data.ptr == b.data.ptr)

    @property
    def pool_size(self) -> int:
        """The bytes that the pool has of the device's memory."""
        with self._guard:
            return int(self.pool.total_bytes())

    def captured(self, work: Callable[[], None]) -> Any:
        """The graph of what ``work`` gives to the stream, of which nothing is done. To be called
        while `working`.

        Raises
        ------
        BackendError
            If the driver makes no graph of it.
        """
        stream = self._place.stream
        stream.begin_capture()
        try:
            work()
        except BaseException:
            with suppress(RuntimeError):  # it says that the capture failed, as is known
                stream.end_capture()
            raise
        try:
            graph = stream.end_capture()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendError(f"expected work that CUDA captures, got {error}") from error
        graph.upload(stream)
        return graph

    def like(self, shape: tuple[int, ...], dtype: np.dtype[Any], strides: Sequence[int]) -> Array:
        """Memory in which an array of this layout lies; nothing is known of what is in it."""
        reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
        if 0 in shape:
            return cupy.empty(shape, dtype)
        first, last = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
        raw = cupy.empty(last - first + dtype.itemsize, np.uint8)
        return cupy.ndarray(shape, dtype, memptr=raw.data + -first, strides=tuple(strides))

    @staticmethod
    def load(place: Array, array: Array) -> None:
        """Copy an array to memory of the same layout, in the order of the current stream."""
        if place.flags.c_contiguous and place.size:
            place.data.copy_from_device_async(array.data, place.nbytes)
        else:
            cupy.copyto(place, array)

    @contextmanager
    def replaying(self) -> Generator[None]:
        """Graphs are launched inside, and nobody else's meanwhile."""
        place = self._place
        with place.lock, self._guard:
            stream = cupy.cuda.get_current_stream()
            refuse_captured(stream)
            place.turn_to(stream)
            try:
                yield
            finally:
                place.turn_from(stream)

    @staticmethod
    def launch(graph: Any) -> None:
        """Do what was captured, in the order of the current stream."""
        graph.launch()


_local = threading.local()


@contextmanager
def at_work() -> Generator[None]:
    """Let this thread know that graphs are made."""
    _local.working = True
    try:
        yield
    finally:
        _local.working = False


def working_here() -> bool:
    """Whether what this thread does goes to a graph, or is to go there the next time."""
    return getattr(_local, "working", False)


def refuse_captured(stream: Any) -> None:
    """Refuse to work on a stream that captures for somebody else."""
    if stream.is_capturing():
        raise BackendError(
            "expected a compiled step to run on a stream that does not capture; it is a graph "
            "of its own"
        )
