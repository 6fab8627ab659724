"""What the ranks of a group compute together; both operations differentiate to every order.

A group has a ``rank``, a ``size``, and on arrays ``all_gather`` (what every rank gave, stacked in
the order of ranks) and ``all_reduce`` (their sum). All ranks must make the same calls, in the
backward pass too. The loss that is differentiated is the sum of the losses of all ranks.
"""

from __future__ import annotations

from typing import Any, Protocol

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array


class Group(Protocol):
    """Ranks that compute together, as seen by one of them."""

    rank: int
    size: int

    def all_gather(self, x: Array) -> Array:
        """What every rank gave, of one shape, stacked (size, *shape)."""

    def all_reduce(self, x: Array) -> Array:
        """The sum of what every rank gave; the same bits on all."""

    def all_gather_object(self, value: Any) -> list[Any]:
        """What every rank gave, whatever it is, in the order of ranks."""


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


def gathered(group: Group, x: Array) -> Array:
    """What every rank gave; of Tensors, as in a replay, an operation with a history."""
    return AllGather.apply(x, group=group) if isinstance(x, Variable) else group.all_gather(x)


def reduced(group: Group, x: Array) -> Array:
    """The sum of what every rank gave; of Tensors, as in a replay, an operation with a history."""
    return AllReduce.apply(x, group=group) if isinstance(x, Variable) else group.all_reduce(x)
