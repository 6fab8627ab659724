"""Bringing batches to a GPU while it computes on those before.

A batch passes three stations. It is *staged*: copied into page-locked memory, by the prefetching
thread where there is one. Its copy to the GPU is *started*, one batch ahead of the loop, before the
loop is given the batch before it: what the loop does with that one the copy need not wait for. And
it is *received*: the stream that computes waits for the copy, the host does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from tinygrad_bn.backend import Backend, Upload
from tinygrad_bn.tensors import Tensor

ALIGNMENT = 64
"""Bytes: where arrays begin in page-locked memory, a cache line."""


def mapped(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch with every tensor in it replaced, in tuples, lists and dictionaries too."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(part, function) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(mapped(part, function) for part in batch)
    if isinstance(batch, Mapping):
        return {key: mapped(part, function) for key, part in batch.items()}
    return batch


class Slot:
    """Page-locked memory for one batch at a time.

    Attributes
    ----------
    upload : the copies that read from it, once they have been started.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.upload: Upload | None = None
        self._memory: np.ndarray[Any, Any] | None = None

    def hold(self, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The same values here, as soon as nothing here is being read any more."""
        self.release()
        ends, size = [], 0
        for array in arrays:
            size += -size % ALIGNMENT + array.nbytes
            ends.append(size)
        if self._memory is None or self._memory.size < size:
            self._memory = self.backend.page_locked((max(size, ALIGNMENT),), np.uint8)
        held = []
        for array, end in zip(arrays, ends, strict=True):
            place = np.ndarray(array.shape, array.dtype, self._memory, end - array.nbytes)
            np.copyto(place, array)
            held.append(place)
        return held

    def release(self) -> None:
        """Wait until nothing here is being read."""
        if self.upload is not None:
            self.upload.finish()
            self.upload = None


class Staged:
    """A batch whose tensors in this machine's memory are in a slot too."""

    def __init__(self, batch: Any, slot: Slot) -> None:
        self.batch, self.slot = batch, slot
        found: list[np.ndarray[Any, Any]] = []

        def collect(x: Tensor) -> Tensor:
            if is_uploaded(x):
                found.append(x.array)
            return x

        mapped(batch, collect)
        self.hosts = slot.hold(found)
        self.upload: Upload | None = None


def is_uploaded(x: Tensor) -> bool:
    """Whether a tensor goes by a slot: those on a GPU need not, and a graph would be lost."""
    return not x.is_cuda and not x.requires_grad


class Uploader:
    """Brings the batches of one epoch to a GPU.

    Parameters
    ----------
    ahead : how many batches a thread stages ahead of the loop. There are two slots more: of one the
        loop is yet to start the copy, and from one a copy may be reading.
    """

    def __init__(self, backend: Backend, ahead: int) -> None:
        self.backend = backend
        self._uploads = backend.uploads()
        self._slots = [Slot(backend) for _ in range(ahead + 2)]
        self._free = cycle(self._slots)

    def stage(self, batch: Any) -> Staged:
        """Copy a batch into the next slot."""
        return Staged(batch, next(self._free))

    def delivered(self, staged: Iterator[Staged]) -> Iterator[Any]:
        """The batches on the GPU. When the loop over this ends, early or not, nothing is being
        copied, and ``staged`` is closed.
        """
        try:
            upcoming, failure = self._started(staged), None
            while upcoming is not None:
                present = upcoming
                try:
                    upcoming = self._started(staged)
                except Exception as error:  # of the batch after the one that is due
                    failure = error
                yield self._received(present)
                if failure is not None:
                    raise failure
        finally:
            if (close := getattr(staged, "close", None)) is not None:
                close()
            for slot in self._slots:
                slot.release()

    def _started(self, staged: Iterator[Staged]) -> Staged | None:
        """The next batch, on its way; None after the last."""
        found = next(staged, None)
        if found is not None and found.hosts:
            found.upload = found.slot.upload = self._uploads.start(found.hosts)
        return found

    def _received(self, staged: Staged) -> Any:
        arrays = iter(() if staged.upload is None else staged.upload.receive())

        def arrived(x: Tensor) -> Tensor:
            if is_uploaded(x):
                return Tensor.wrap(next(arrays), self.backend)
            return x.to(self.backend.device)

        return mapped(staged.batch, arrived)
