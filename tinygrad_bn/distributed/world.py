"""What the threads of a group share: where they meet, and why they cannot go on, once they cannot.

A collective is a `Round`: every rank brings what it called and gave, the last one to come works out
the result, and all leave with it. Nobody waits for a rank that will not come: one that has failed,
that has returned, or that is late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tinygrad_bn.errors import DistributedError

T = TypeVar("T")
R = TypeVar("R")


class World:
    """All ranks of one `spawn`. What fails first is why every later collective fails, in every
    group of theirs.
    """

    def __init__(self, size: int, timeout: float) -> None:
        self.size = size
        self.timeout = min(timeout, threading.TIMEOUT_MAX)
        self.changed = threading.Condition()
        """Held while anything here, or in a round, is read or changed."""
        self.left: set[int] = set()
        """The ranks that have returned or failed."""
        self.failure: str | None = None
        """What happened first, as it stands in messages after "got"."""
        self.cause: BaseException | None = None

    def fail(self, failure: str, cause: BaseException | None = None) -> None:
        """Let every rank that waits raise, and every one that comes to wait."""
        with self.changed:
            if self.failure is None:
                self.failure, self.cause = failure, cause
            self.changed.notify_all()

    def leave(self, rank: int, error: BaseException | None = None) -> None:
        """Say that a rank will come to no collective any more, and the error that ended it."""
        with self.changed:
            self.left.add(rank)
            if error is not None:
                self.fail(f"rank {rank} failing with {type(error).__name__}: {error}", error)
            self.changed.notify_all()

    def join(self) -> None:
        """Wait until all ranks have left; after a failure, no longer than the timeout."""
        with self.changed:
            self.changed.wait_for(lambda: self.all_left or self.failure is not None)
            self.changed.wait_for(lambda: self.all_left, self.timeout)

    @property
    def all_left(self) -> bool:
        return len(self.left) == self.size


@dataclass
class Round:
    """One collective: what each rank that came has called and brought, and in the end the
    result.
    """

    calls: dict[int, str] = field(default_factory=dict)
    brought: dict[int, Any] = field(default_factory=dict)
    result: Any = None
    over: bool = False


class Meeting:
    """Where the ranks of one group meet, one round after the other."""

    def __init__(self, world: World, members: Sequence[int]) -> None:
        self.world = world
        self.members = tuple(members)
        """What the ranks of this group are called in the world, and in messages."""
        self.round = Round()

    def meet(self, rank: int, call: str, value: T, combine: Callable[[list[T]], R]) -> R:
        """What ``combine`` makes of the values of all ranks; it runs once, in one of them, while
        all others wait.

        Raises
        ------
        DistributedError
            If not every rank comes with this ``call``.
        """
        world = self.world
        with world.changed:
            present = self.round
            if world.failure is None:
                if rank in present.calls:
                    raise DistributedError(
                        f"expected one thread for each rank, got a second one of rank "
                        f"{self.members[rank]} in {call} beside {present.calls[rank]}"
                    )
                present.calls[rank], present.brought[rank] = call, value
                if len(present.calls) == len(self.members):
                    self.close(present, combine)
                else:
                    self.wait(present)
            if not present.over:
                raise DistributedError(
                    f"expected every rank in {call}, got {world.failure}"
                ) from world.cause
            return present.result  # type: ignore[no-any-return]

    def close(self, present: Round, combine: Callable[[list[Any]], Any]) -> None:
        """Work out the result of a round to which all have come, and let them go."""
        self.round = Round()
        ranks = range(len(self.members))
        if len(set(present.calls.values())) > 1:
            calls = (f"{present.calls[r]} from rank {self.members[r]}" for r in ranks)
            self.world.fail(", ".join(calls))
            return
        try:
            present.result = combine([present.brought[r] for r in ranks])
            present.over = True
        except BaseException as error:
            self.world.fail(f"{type(error).__name__}: {error}", error)
            raise
        self.world.changed.notify_all()

    def wait(self, present: Round) -> None:
        """Wait until the round is over, or will never be."""
        world = self.world

        def missing() -> list[int]:
            return [m for rank, m in enumerate(self.members) if rank not in present.calls]

        def decided() -> bool:
            return present.over or world.failure is not None or not world.left.isdisjoint(missing())

        in_time = world.changed.wait_for(decided, world.timeout)
        if not present.over:  # the first failure stands; this is one if there is none yet
            gone = [m for m in missing() if m in world.left]
            world.fail(
                f"{named(gone)} having returned"
                if in_time
                else f"no {named(missing())} within {world.timeout:g} s"
            )


def named(ranks: Sequence[int]) -> str:
    """The ranks as they stand in messages."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
