"""Streams: queues of work, of which one is current for a thread on a device."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import Any
from weakref import WeakSet

from .gpus import at_synchronization, current_device, traffic
from .ordering import Queue, busy, now

_local = threading.local()
_numbers = count(0x1000, 0x100)


_streams: WeakSet[Stream] = WeakSet()


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
        self._capturing = False
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
        return self

    def __exit__(self, *error: object) -> None:
        device, stream = before().pop()
        current()[device] = stream

    def _device(self) -> int:
        return current_device() if self.device_id < 0 else self.device_id

    def _key(self) -> tuple[int, int]:
        return self._device(), self.ptr

    def synchronize(self) -> None:
        traffic.synchronizations += 1
        self._queue.run()

    @property
    def done(self) -> bool:
        return self._queue.idle()

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event._stream is None:  # nothing was recorded: nothing is waited for
            return
        event._stream._queue.run(event._moment)
        for key, moment in event._waited.items():
            self._queue.waited[key] = max(moment, self._queue.waited.get(key, -1))

    def is_capturing(self) -> bool:
        return self._capturing


class Event:
    """A moment of a stream, that others can wait for."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self._stream: Stream | None = None
        self._device = current_device()
        self._moment = -1
        self._waited: dict[Any, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        stream = get_current_stream() if stream is None else stream
        if stream._device() != self._device:
            raise RuntimeError("cudaErrorInvalidResourceHandle: event and stream of two devices")
        self._stream, self._moment = stream, now()
        self._waited = {**stream._queue.waited, stream._key(): self._moment}

    @property
    def done(self) -> bool:
        return self._stream is None or self._stream._queue.idle(self._moment)

    def synchronize(self) -> None:
        traffic.synchronizations += 1
        if self._stream is not None:
            self._stream._queue.run(self._moment)


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


@contextmanager
def capturing() -> Generator[Stream]:
    """A stream that captures, and is current."""
    stream = Stream(non_blocking=True)
    stream._capturing = True
    try:
        with stream:
            yield stream
    finally:
        stream._capturing = False
