"""Starting a group of threads, and ending it: with their results, or with what failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

from tinygrad_bn.distributed.thread_group import ThreadGroup
from tinygrad_bn.distributed.world import Meeting, World
from tinygrad_bn.errors import ArgumentError, DistributedError
from tinygrad_bn.ops.collective import group_here

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

TIMEOUT = 1800.0
"""PyTorch's for groups on CPUs."""


def spawn(
    fn: Callable[[int, *Ts], R], world_size: int, *args: *Ts, timeout: float = TIMEOUT
) -> list[R]:
    """Run ``fn(rank, *args)`` in a thread for each rank of a new group; the results in their order.

    Inside, `current_group` is that group, as this rank sees it, and gradient mode and its like are
    the caller's.

    Parameters
    ----------
    fn : what each rank does; all of them must call the same collectives in the same order.
    world_size : the number of ranks.
    timeout : how many seconds a rank waits in a collective for the others, and this function, once
        one has failed, for the others to end.

    Raises
    ------
    Exception
        What the rank raised that failed first, with a note of its rank. It makes every other rank
        raise a `DistributedError` in the collective that it waits in, or comes to.
    DistributedError
        Where nothing failed but the meeting: ranks called different collectives, or gave different
        shapes or dtypes; one returned while others waited for it, or did not come in time.
    ArgumentError
        For a ``world_size`` below 1, or a ``timeout`` that is not positive.

    Notes
    -----
    Ranks share the process: they compute at the same time where NumPy, a kernel or a GPU computes,
    and take turns elsewhere. They share objects too. Let each copy the model that it trains
    (``copy.deepcopy``), and have its own generator where random numbers must not depend on who
    comes first. On one GPU they share its default stream.

    A thread cannot be stopped from outside. After Ctrl-C, as after a failure, ranks end at their
    next collective; a second Ctrl-C does not wait for them.

    A rank may spawn again: the new group knows nothing of the old one.
    """
    if world_size < 1:
        raise ArgumentError(f"expected world_size ≥ 1, got {world_size}")
    if not timeout > 0:
        raise ArgumentError(f"expected timeout > 0 seconds, got {timeout}")
    world = World(world_size, timeout)
    meeting = Meeting(world, range(world_size))
    results: dict[int, R] = {}
    errors: dict[int, BaseException] = {}

    def run(rank: int) -> None:
        group_here.set(ThreadGroup(meeting, rank))
        try:
            results[rank] = fn(rank, *args)
        except BaseException as error:
            errors[rank] = error
        world.leave(rank, errors.get(rank))

    # the context carries no_grad() and its like over to the threads
    threads = [
        threading.Thread(
            target=copy_context().run, args=(run, rank), daemon=True, name=f"rank {rank}"
        )
        for rank in range(world_size)
    ]
    keep(threads, world)
    if errors:
        first = next((r for r, error in errors.items() if error is world.cause), min(errors))
        errors[first].add_note(f"in rank {first} of {world_size}")
        raise errors[first]
    if not world.all_left:
        raise DistributedError(f"expected every rank to end, got {world.failure}")
    return [results[rank] for rank in range(world_size)]


def keep(threads: list[threading.Thread], world: World) -> None:
    """Start the threads and wait for them; what interrupts this ends them first."""
    try:
        for thread in threads:
            thread.start()
        world.join()
        for rank in list(world.left):
            threads[rank].join()
    except BaseException as error:
        world.fail(f"an interruption by {type(error).__name__}", error)
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
        raise
