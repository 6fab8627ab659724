"""Training replicas of one model on shards of the batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from tinygrad_bn import config
from tinygrad_bn.distributed.collectives import all_reduce, group_or_own
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.ops.collective import Group
from tinygrad_bn.tensors import Tensor


def average_gradients(parameters: Iterable[Tensor], group: Group | None = None) -> None:
    """Overwrite the gradients of the parameters with their averages over the ranks, the same bits
    on each.

    A gradient that only some ranks have counts as 0 on the others; one that none has stays None.

    Raises
    ------
    ArgumentError
        If the ranks have different numbers of parameters; then nothing has changed.

    Notes
    -----
    With a loss that is the mean over a rank's shard, the average is the gradient of the mean over
    all shards if they are of one size. Where they are not, let each rank divide the sum over its
    shard by the size of a shard on average.
    """
    group = group_or_own(group)
    given = list(parameters)
    held = group.all_gather_object([p._grad is not None for p in given])
    counts = [len(flags) for flags in held]
    if len(set(counts)) > 1:
        raise ArgumentError(f"expected as many parameters on every rank, got {counts}")
    with config.no_grad():
        for p, flags in zip(given, zip(*held, strict=True), strict=True):
            if any(flags):
                average(p, group)


def average(p: Tensor, group: Group) -> None:
    """Overwrite one gradient with its average over the ranks."""
    own = cast("Tensor | None", p._grad)
    total = all_reduce(p.new_zeros(p.shape) if own is None else own, group)
    mean = total / group.size
    if own is not None and not own.requires_grad:
        own.overwrite(mean.array)
    else:  # there is none yet, or it has a graph, which needs it as it is
        p._grad = None
        p.accumulate(mean.array)
