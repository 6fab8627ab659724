"""Making the next items in a thread while the last one is being used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class End:
    """What comes after the last item: the error that stopped the thread, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, of which a thread keeps up to ``depth`` ready.

    An error in ``items`` is raised here, after the items before it, with its own traceback. When
    the loop over this ends, early or not, so has the thread.
    """
    ready: SimpleQueue[T | End] = SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def produce() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                ready.put(next(items))
        except StopIteration:
            ready.put(End())
        except BaseException as error:
            ready.put(End(error))

    # the context carries no_grad() and its like over to the thread
    thread = threading.Thread(
        target=copy_context().run, args=(produce,), daemon=True, name="prefetch"
    )
    thread.start()
    try:
        while not isinstance(item := ready.get(), End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        room.release()
        if (
            threading.current_thread() is not thread
        ):  # which may be the one that collects an abandoned loop
            thread.join()
