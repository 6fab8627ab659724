"""A group whose ranks are threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Self

import numpy as np

from tinygrad_bn.backend import Array, Backend, backend_for, current
from tinygrad_bn.distributed.world import Meeting, World
from tinygrad_bn.errors import RangeError
from tinygrad_bn.ops.promotion import is_floating


class ThreadGroup:
    """Ranks that are threads, as seen by one of them; what it does is said at `Group`.

    Ranks may be on different devices: what they give is brought to that of rank 0, and the result
    to each.
    """

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting = meeting
        self.rank = rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self._meeting.members)

    def all_gather(self, x: Array) -> Array:
        """What every rank gave, of one shape and dtype, stacked (size, *shape)."""
        return self._combined("all_gather({})", x, stacked)

    def all_reduce(self, x: Array) -> Array:
        """The sum of what every rank gave, added in the order of ranks; floats add up in the
        accumulator dtype.
        """
        return self._combined("all_reduce({})", x, added)

    def broadcast(self, x: Array, src: int) -> Array:
        """What rank ``src`` gave; the others give the same shape and dtype."""
        if not 0 <= src < self.size:
            raise RangeError(f"expected src from 0 to {self.size - 1}, got {src}")
        return self._combined(
            f"broadcast({{}}, src={src})", x, lambda backend, xs: backend.copy(xs[src])
        )

    def all_gather_object(self, value: Any) -> list[Any]:
        """What every rank gave, in the order of ranks: the objects themselves, no copies."""
        return list(self._meeting.meet(self.rank, "all_gather_object()", value, tuple))

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self._meeting.meet(self.rank, "barrier()", None, len)

    def split(self, color: Hashable) -> ThreadGroup:
        """The group of those ranks that gave the same ``color``, in their order."""
        colors = self.all_gather_object(color)
        ranks = [rank for rank, other in enumerate(colors) if other == color]
        members = [self._meeting.members[rank] for rank in ranks]
        offered = Meeting(self._meeting.world, members) if self.rank == ranks[0] else None
        meeting = self.all_gather_object(offered)[ranks[0]]
        return ThreadGroup(meeting, ranks.index(self.rank))

    def _combined(
        self, call: str, x: Array, combine: Callable[[Backend, list[Array]], Array]
    ) -> Array:
        """What ``combine`` makes, on one device, of the arrays of all ranks; a fresh copy."""
        backend = backend_of(x)
        x = backend.asarray(x)

        def of_all(given: list[tuple[Backend, Array]]) -> tuple[Backend, Array]:
            place = given[0][0]
            arrays = [moved(array, source, place) for source, array in given]
            with current(place):
                return place, combine(place, arrays)

        call = call.format(f"{x.dtype} {x.shape}")
        place, result = self._meeting.meet(self.rank, call, (backend, x), of_all)
        return backend.copy(result) if place is backend else moved(result, place, backend)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # where one is, not a value: a copied module is in the same group

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size} threads>"


def backend_of(x: Array) -> Backend:
    """The backend of an array."""
    on_cpu = isinstance(x, (np.ndarray, np.generic))
    return backend_for("cpu" if on_cpu else f"cuda:{x.data.device_id}")


def moved(x: Array, source: Backend, target: Backend) -> Array:
    """The array on another backend, by way of this machine's memory."""
    return x if source is target else target.asarray(source.to_numpy(x))


def stacked(backend: Backend, xs: list[Array]) -> Array:
    return backend.xp.stack(xs)


def added(backend: Backend, xs: list[Array]) -> Array:
    """The sum in the order of the list, in the dtype of its elements; a logical one of booleans."""
    dtype = xs[0].dtype
    wide = backend.accumulator(dtype) if is_floating(dtype) else None
    return backend.xp.astype(backend.xp.sum(backend.xp.stack(xs), axis=0, dtype=wide), dtype)


def alone() -> ThreadGroup:
    """The group outside of every group: one rank, which never waits."""
    return ThreadGroup(Meeting(World(1, timeout=1.0), (0,)), 0)
