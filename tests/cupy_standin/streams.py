"""Streams: queues of work, of which one is current for a thread on a device."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count

from .gpus import current_device, traffic

_local = threading.local()
_numbers = count(0x1000, 0x100)


class Stream:
    """A queue of work; here everything is done at once."""

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

    def __enter__(self) -> Stream:
        device = current_device() if self.device_id < 0 else self.device_id
        before().append((device, current().get(device, Stream.null)))
        current()[device] = self
        return self

    def __exit__(self, *error: object) -> None:
        device, stream = before().pop()
        current()[device] = stream

    def synchronize(self) -> None:
        traffic.synchronizations += 1

    def is_capturing(self) -> bool:
        return self._capturing


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
