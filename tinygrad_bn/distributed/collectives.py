"""Collectives on tensors, under PyTorch's names; they return their result and change nothing.

Outside of every group they are those of a single rank.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from tinygrad_bn.distributed.thread_group import alone
from tinygrad_bn.errors import RangeError
from tinygrad_bn.ops.collective import AllGather, AllReduce, Broadcast, Group, current_group
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.tensors import Tensor


def group_or_own(group: Group | None) -> Group:
    """The group given, else the caller's own, else that of a single rank."""
    if group is not None:
        return group
    return current_group() or alone()


def get_rank(group: Group | None = None) -> int:
    """The number of this rank in the group; 0 outside of every group."""
    return group_or_own(group).rank


def get_world_size(group: Group | None = None) -> int:
    """How many ranks the group has; 1 outside of every group."""
    return group_or_own(group).size


def all_reduce(tensor: Tensor, group: Group | None = None) -> Tensor:
    """The sum of the tensors of all ranks, with the same bits on each.

    It has gradients of every order: those of the sum of what all ranks differentiate. All must
    then differentiate, and the tensors of all require a gradient or none.

    Raises
    ------
    DistributedError
        If the ranks call something else, or with other shapes or dtypes; if one fails, returns or
        does not come. So do all functions here.
    """
    require_tensor(tensor, "tensor")
    return AllReduce.apply(tensor, group=group_or_own(group))  # type: ignore[no-any-return]


def all_gather(tensor: Tensor, group: Group | None = None) -> Tensor:
    """The tensors of all ranks, stacked in the order of ranks (world_size, *shape).

    It has gradients of every order, as `all_reduce`.
    """
    require_tensor(tensor, "tensor")
    return AllGather.apply(tensor, group=group_or_own(group))  # type: ignore[no-any-return]


def broadcast(tensor: Tensor, src: int = 0, group: Group | None = None) -> Tensor:
    """The tensor of rank ``src``; the others give one of its shape and dtype.

    It has gradients of every order, as `all_reduce`: that of ``src`` is the sum of all ranks', that
    of the others 0.
    """
    require_tensor(tensor, "tensor")
    group = group_or_own(group)
    if not 0 <= src < group.size:
        raise RangeError(f"expected src from 0 to {group.size - 1}, got {src}")
    return Broadcast.apply(tensor, src=src, group=group)  # type: ignore[no-any-return]


def all_gather_object(obj: Any, group: Group | None = None) -> list[Any]:
    """What every rank gave, in the order of ranks: the objects themselves, no copies."""
    return group_or_own(group).all_gather_object(obj)


def barrier(group: Group | None = None) -> None:
    """Wait until every rank has come here."""
    group_or_own(group).barrier()


def split_group(color: Hashable, group: Group | None = None) -> Group:
    """The group of those ranks that give the same ``color``, in their order.

    Every rank of the group must call it. What fails in one of the parts fails in all.
    """
    return group_or_own(group).split(color)
