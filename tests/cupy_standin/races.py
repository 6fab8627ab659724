"""Who wrote memory last, and whether a stream that reads it has waited for that.

Work is done as it is given, so a wait that is missing would leave no trace: here it is an error. It
is known of what arrays' own operations write, and graphs; not of cuBLASLt, and of copies that are
late (`ordering`), whose missing waits leave poison.
"""

from __future__ import annotations

from typing import Any

from .ordering import SilentOnGPU, now
from .streams import Stream, entered, get_current_stream, host_saw

NULL = Stream.null


def wrote(array: Any) -> None:
    """The current stream has been given work that writes to an array's memory; what it captures is
    none until it is launched.
    """
    owner = array if array.base is None else array.base
    by = get_current_stream() if entered else NULL
    owner._by, owner._when = (by, now()) if by._capture is None else (NULL, -1)


def require_written(array: Any) -> None:
    """Refuse to read what another stream may be about to write."""
    owner = array if array.base is None else array.base
    if owner._by is NULL and not entered:
        return
    here, there = get_current_stream(), owner._by
    if here is there or here._capture is not None or waits_by_itself(here, there):
        return
    seen = max(here._queue.waited.get(there._key(), -1), host_saw(there))
    if seen < owner._when:
        raise SilentOnGPU(
            f"an array {array.shape} that another stream was given to write is read by one that "
            "has not waited for it"
        )


def waits_by_itself(a: Stream, b: Stream) -> bool:
    """Whether one is the legacy stream, and the other waits for that."""
    return (a is NULL and not b.is_non_blocking) or (b is NULL and not a.is_non_blocking)
