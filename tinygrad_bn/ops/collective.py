"""What the ranks of a group compute together; every operation here differentiates to every order.

A group has a ``rank``, a ``size``, and on arrays ``all_gather`` (what every rank gave, stacked in
the order of ranks), ``all_reduce`` (their sum) and ``broadcast`` (what one of them gave). All ranks
must make the same calls, in the backward pass too. The loss that is differentiated is the sum of
the losses of all ranks.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from typing import Any, Protocol

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array


class Group(Protocol):
    """Ranks that compute together, as seen by one of them."""

    rank: int

    @property
    def size(self) -> int:
        """How many ranks there are."""

    def all_gather(self, x: Array) -> Array:
        """What every rank gave, of one shape and dtype, stacked (size, *shape)."""

    def all_reduce(self, x: Array) -> Array:
        """The sum of what every rank gave; the same bits on all."""

    def broadcast(self, x: Array, src: int) -> Array:
        """What rank ``src`` gave; the others give the same shape and dtype."""

    def all_gather_object(self, value: Any) -> list[Any]:
        """What every rank gave, whatever it is, in the order of ranks."""

    def barrier(self) -> None:
        """Wait until every rank has come here."""

    def split(self, color: Hashable) -> Group:
        """The group of those ranks that gave the same ``color``, in their order."""


group_here: ContextVar[Group | None] = ContextVar("group_here", default=None)
"""The group that the running thread is a rank of."""


def current_group() -> Group | None:
    """The group that the caller is a rank of; None outside of one."""
    return group_here.get()


class AllGather(Function):
    """What every rank gave, stacked in the order of ranks."""

    def forward(self, x: Array, *, group: Group) -> Array:
        self.group = group
        return gathered(group, x)

    def backward(self, dy: Array, /) -> Array:
        return reduced(self.group, dy)[self.group.rank]


class AllReduce(Function):
    """The sum of what every rank gave."""

    def forward(self, x: Array, *, group: Group) -> Array:
        self.group = group
        return reduced(group, x)

    def backward(self, dy: Array, /) -> Array:
        return reduced(self.group, dy)


class Broadcast(Function):
    """What one rank gave."""

    def forward(self, x: Array, *, src: int, group: Group) -> Array:
        self.src, self.group = src, group
        if isinstance(x, Variable):
            return Broadcast.apply(x, src=src, group=group)
        return group.broadcast(x, src)

    def backward(self, dy: Array, /) -> Array:
        total = reduced(self.group, dy)
        # selected, not left out: every rank's graph must hold the sum for a gradient of this one
        mine = self.xp.full(total.shape, self.group.rank == self.src)
        return self.xp.where(mine, total, 0)


def gathered(group: Group, x: Array) -> Array:
    """What every rank gave; of Tensors, as in a replay, an operation with a history."""
    return AllGather.apply(x, group=group) if isinstance(x, Variable) else group.all_gather(x)


def reduced(group: Group, x: Array) -> Array:
    """The sum of what every rank gave; of Tensors, as in a replay, an operation with a history."""
    return AllReduce.apply(x, group=group) if isinstance(x, Variable) else group.all_reduce(x)
