"""Streams: queues of work, of which one is current for a thread on a device."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from weakref import WeakSet

import numpy as np

from .capturing import GLOBAL, RELAXED, THREAD_LOCAL, Capture, alive, require_owned
from .gpus import (
    CAPTURE_IMPLICIT,
    CAPTURE_INVALIDATED,
    CAPTURE_ISOLATION,
    CAPTURE_UNSUPPORTED,
    CAPTURED_EVENT,
    ILLEGAL_STATE,
    CUDARuntimeError,
    at_synchronization,
    before_synchronization,
    current_device,
    traffic,
)
from .ordering import Queue, SilentOnGPU, busy, now

_local = threading.local()
_numbers = count(0x1000, 0x100)


_streams: WeakSet[Stream] = WeakSet()
entered: list[Stream] = []
"""Those that are current in some thread, and not the legacy one."""
_synchronized: dict[tuple[int, int], int] = {}
_device_synchronized: dict[int, int] = {}
captures: list[Capture] = []
"""Those under way, in all threads."""


class Stream:
    """A queue of work; see `ordering` for what in it is done when."""

    null: Stream
    ptds: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        self.ptr = 0 if null else 2 if ptds else next(_numbers)
        self.device_id = -1 if null or ptds else current_device()
        self.is_non_blocking = non_blocking
        self._capture: Capture | None = None
        self._queue = Queue(self.device_id)
        _streams.add(self)

    def __enter__(self) -> Stream:
        device = self._device()
        if device != current_device():
            raise RuntimeError(
                f"The device that the stream is created on ({device}) does not match with the "
                f"current device ({current_device()})"
            )
        self._queue.run()
        before().append((device, current().get(device, Stream.null)))
        current()[device] = self
        if self is not Stream.null:
            entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        device, stream = before().pop()
        current()[device] = stream
        if self is not Stream.null:
            entered.remove(self)

    def _device(self) -> int:
        return current_device() if self.device_id < 0 else self.device_id

    def _key(self) -> tuple[int, int]:
        return self._device(), self.ptr

    def synchronize(self) -> None:
        forbid(self._capture)
        refuse_implicit(self)
        traffic.synchronizations += 1
        self._queue.run()
        saw({**self._queue.waited, self._key(): now()})

    @property
    def done(self) -> bool:
        if self._capture is not None:
            self._capture.invalid = True
            return False
        return self._queue.idle()

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event._stream is None:  # nothing was recorded: nothing is waited for
            return
        refuse_implicit(self)
        if event._capture is not None or self._capture is not None:
            if event._capture is None:
                forbid(self._capture, CAPTURE_ISOLATION)
            if event._capture is not self._capture:
                raise NotImplementedError("the stand-in captures no work of several streams")
            return
        event._stream._queue.run(event._moment)
        for key, moment in event._waited.items():
            self._queue.waited[key] = max(moment, self._queue.waited.get(key, -1))

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture is not None:
            raise CUDARuntimeError(ILLEGAL_STATE)
        self._queue.run()
        self._capture = Capture(self, RELAXED if mode is None else mode)
        captures.append(self._capture)

    def end_capture(self) -> Graph:
        capture = self._capture
        if capture is None:
            raise CUDARuntimeError(ILLEGAL_STATE)
        self._capture = None
        captures.remove(capture)
        capture.take_back()
        if capture.invalid:
            raise CUDARuntimeError(CAPTURE_INVALIDATED)
        graph = Graph.__new__(Graph)
        graph._work, graph._memory = capture.work, [*capture.memory.values()]
        graph._read, graph._writes = capture.read, capture.written
        return graph

    def is_capturing(self) -> bool:
        refuse_implicit(self)
        return self._capture is not None


class Event:
    """A moment of a stream, that others can wait for."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self._stream: Stream | None = None
        self._device = current_device()
        self._moment = -1
        self._waited: dict[Any, int] = {}
        self._capture: Capture | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        if stream._device() != self._device:
            raise RuntimeError("cudaErrorInvalidResourceHandle: event and stream of two devices")
        refuse_implicit(stream)
        self._stream, self._moment, self._capture = stream, now(), stream._capture
        self._waited = {**stream._queue.waited, stream._key(): self._moment}

    @property
    def done(self) -> bool:
        forbid(self._capture, CAPTURED_EVENT)
        return self._stream is None or self._stream._queue.idle(self._moment)

    def synchronize(self) -> None:
        forbid(self._capture, CAPTURED_EVENT)
        traffic.synchronizations += 1
        if self._stream is not None:
            self._stream._queue.run(self._moment)
        saw(self._waited)


def stream_of(number: int) -> Stream:
    """The stream that others know by a number: 1 and 2 are the default ones, 0 the first too."""
    if number in (0, 1):
        return Stream.null
    for stream in _streams:
        if stream.ptr == number and stream.device_id in (-1, current_device()):
            return stream
    raise RuntimeError(f"cudaErrorInvalidResourceHandle: there is no stream {number:#x} here")


def finish_device(device: int) -> None:
    """The host waits for all that a device was given."""
    for queue in list(busy):
        if queue.device in (-1, device):
            queue.run()
    _device_synchronized[device] = now()


def saw(moments: dict[Any, int]) -> None:
    """The host has waited for what streams were given until then."""
    for key, moment in moments.items():
        _synchronized[key] = max(moment, _synchronized.get(key, -1))


def host_saw(stream: Stream) -> int:
    """Until when the host knows what a stream was given to be done."""
    key = stream._key()
    return max(_synchronized.get(key, -1), _device_synchronized.get(key[0], -1))


at_synchronization.append(finish_device)


def current() -> dict[int, Stream]:
    """This thread's current streams by device."""
    found: dict[int, Stream] = _local.__dict__.setdefault("current", {})
    return found


def before() -> list[tuple[int, Stream]]:
    """What this thread's ``with`` blocks will come back to."""
    found: list[tuple[int, Stream]] = _local.__dict__.setdefault("before", [])
    return found


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


def get_current_stream(device_id: int = -1) -> Stream:
    return current().get(current_device() if device_id < 0 else device_id, Stream.null)


class Graph:
    """What a stream captured, to be done at every launch."""

    _work: list[Any]
    _memory: list[tuple[Any, Any]]
    _read: list[Any]
    _writes: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via stream "
            "capture"
        )

    def launch(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        from .races import require_written, wrote

        refuse_implicit(stream)
        if stream._capture is not None:
            raise NotImplementedError("the stand-in has no graphs inside of graphs")
        with stream:
            self._launched(require_written, wrote)

    def _launched(self, require_written: Any, wrote: Any) -> None:
        require_owned(self._memory)
        for array in alive(self._read):
            require_written(array)
        with np.errstate(all="ignore"):
            for work in self._work:
                work()
        for array in alive(self._writes):
            wrote(array)

    def upload(self, stream: Stream | None = None) -> None:
        refuse_implicit(get_current_stream() if stream is None else stream)


def capture_here() -> Capture | None:
    """The capture that takes what is given to the current stream."""
    if not captures:
        return None
    stream = get_current_stream()
    refuse_implicit(stream)
    return stream._capture


def forbid(capture: Capture | None, status: int = CAPTURE_UNSUPPORTED) -> None:
    """Refuse what ends a capture without a graph."""
    if capture is not None:
        capture.invalid = True
        raise CUDARuntimeError(status)


def refuse_implicit(stream: Stream) -> None:
    """Refuse the legacy stream while one captures that would wait for it."""
    for capture in captures if stream.ptr == 0 else ():
        other = capture.stream
        if not other.is_non_blocking and other._device() == stream._device():
            forbid(capture, CAPTURE_IMPLICIT)


def refuse_growth() -> None:
    """Refuse to take memory of the device, where a capture does not allow that."""
    for capture in captures:
        ours = capture.thread == threading.get_ident()
        if capture.mode == GLOBAL or (capture.mode == THREAD_LOCAL and ours):
            forbid(capture)


def refuse_device(device: int) -> None:
    """Refuse to wait for a device of which a stream captures."""
    for capture in captures:
        if capture.stream._device() == device:
            forbid(capture)


before_synchronization.append(refuse_device)


def wait_of_the_host() -> None:
    """The host waits for values, which no stream that captures has."""
    if capture_here() is not None:
        raise RuntimeError(
            "the current stream is capturing, so synchronous API calls are prohibited"
        )
    traffic.d2h += 1
    if entered:
        stream = get_current_stream()
        saw({**stream._queue.waited, stream._key(): now()})


def sending_of_the_host() -> None:
    """The host sends something, from memory that it uses for something else afterwards."""
    if capture_here() is not None:
        raise SilentOnGPU("a graph would read the host's memory at every launch, whatever is there")
    traffic.h2d += 1


@contextmanager
def capturing() -> Generator[Stream]:
    """A stream that captures, and is current; what it captured is forgotten."""
    stream = Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            yield stream
        finally:
            with suppress(CUDARuntimeError):
                stream.end_capture()
