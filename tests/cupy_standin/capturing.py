"""What a stream was given while it captured, as a graph that does it whenever it is launched.

Results must have shapes at once, so what is captured is computed as it comes, and taken back when
the capture ends: memory is then as it was, and what was allocated meanwhile holds poison. A launch
computes all of it again, in the same memory, whatever is there by now.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .ordering import POISON, SilentOnGPU

GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
"""``cudaStreamCaptureMode*``: whose calls that are unsafe in a capture fail."""


class Capture:
    """What a stream has been given since it began to capture.

    Attributes
    ----------
    invalid : whether something forbidden was tried, so that no graph will come of it.
    """

    def __init__(self, stream: Any, mode: int) -> None:
        self.stream, self.mode, self.thread = stream, mode, threading.get_ident()
        self.invalid = False
        self.work: list[Callable[[], object]] = []
        self.memory: dict[int, tuple[Any, Any]] = {}
        self.read: list[Any] = []
        self.written: list[Any] = []
        self._before: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._born: list[np.ndarray[Any, Any]] = []

    def made(self, compute: Callable[[], Any], results: Any, operands: Any) -> None:
        """Note a computation whose new results are in the memory of these arrays."""
        several = isinstance(results, (tuple, list))
        places = [
            (i, x._a)
            for i, x in enumerate(results if several else (results,))
            if x is not None and x.base is None
        ]
        if not places:
            return

        def again() -> None:
            found = compute()
            for i, place in places:
                np.copyto(place, found[i] if several else found, casting="unsafe")

        self._born += [place for _, place in places]
        made = [x for x in arrays_in(results) if x.base is None]
        self.written += [weakref.ref(x) for x in made]
        self.note(again, (results, operands))

    def overwrite(
        self, targets: Iterable[np.ndarray[Any, Any]], compute: Callable[[], Any], operands: Any
    ) -> Any:
        """Note a computation that writes to memory which is there."""
        self.keep(targets)
        places = {x.ctypes.data for x in targets}
        self.written += [
            weakref.ref(x if x.base is None else x.base)
            for x in arrays_in(operands)
            if x._a.ctypes.data in places
        ]
        result = compute()
        self.note(compute, operands)
        return result

    def keep(self, targets: Iterable[np.ndarray[Any, Any]]) -> None:
        """Take these back when the capture ends."""
        self._before += [(x, x.copy()) for x in targets]

    def note(self, work: Callable[[], object], operands: Any) -> None:
        """Do this at every launch, on the memory of the operands."""
        self.work.append(work)
        for x in arrays_in(operands):
            owner = x if x.base is None else x.base
            lent = getattr(owner._memory, "mem", None)
            owner, pool = lent if hasattr(lent, "_a") else owner, getattr(lent, "pool", None)
            if id(owner) not in self.memory:
                self.memory[id(owner)] = weakref.ref(owner), pool
                self.read.append(weakref.ref(owner))

    def take_back(self) -> None:
        """Let memory be as it was before."""
        for place in self._born:
            poison(place)
        for place, before in reversed(self._before):
            np.copyto(place, before)


def poison(place: np.ndarray[Any, Any]) -> None:
    """All bits set: NaN or -1."""
    if place.size:
        place[...] = np.frombuffer(bytes([POISON]) * place.itemsize, place.dtype)[0]


def arrays_in(tree: Any) -> Iterable[Any]:
    """The stand-in's arrays in tuples, lists and dicts."""
    if isinstance(tree, (tuple, list)):
        for part in tree:
            yield from arrays_in(part)
    elif isinstance(tree, dict):
        yield from arrays_in(list(tree.values()))
    elif hasattr(tree, "_a"):
        yield tree


def alive(references: Iterable[Any]) -> list[Any]:
    """The arrays that are still there."""
    return [x for reference in references if (x := reference()) is not None]


def require_owned(memory: Iterable[tuple[Any, Any]]) -> None:
    """Refuse to work on memory that may be somebody else's by now: its array is gone, and it came
    from no pool that is kept for the graph.
    """
    for owner, pool in memory:
        if owner() is None and (pool is None or pool() is None):
            raise SilentOnGPU(
                "a graph works on memory that was given back: keep its arrays, or the pool of its "
                "own that they came from"
            )
