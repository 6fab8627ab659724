"""Running statistics estimated anew from data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tinygrad_bn.config import no_grad
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import RunningNormalization
from tinygrad_bn.nn.normalization.base import gathering
from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.nn.utils.passes import buffers_kept, in_mode, run
from tinygrad_bn.ops.batch_normalization import Moments

__all__ = ["update_bn"]


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: object = None) -> None:
    """Replace the running statistics of every batch norm by those of all the data in ``loader``.

    For a model whose parameters were averaged, or changed otherwise since its statistics were
    learned. One pass is made in training mode, without gradients.

    Parameters
    ----------
    loader : gives batches: tensors, or sequences whose first is the input.
    device : where batches are moved to first; nowhere if None.

    Raises
    ------
    ArgumentError
        If the loader has no batches. Whatever error comes, also one of the model or the loader, no
        buffer has changed and every module is in the mode it was in.

    Notes
    -----
    Mean and variance are those of all values together, each counted once, however the data is cut
    into batches; PyTorch's are averages of the batches', in which a short last batch counts as much
    as a full one and the variance between batches is left out. Layers further down still see what
    batch norm makes of each batch above them, so larger batches are better ones.

    All kinds of batch norm take part, and EvoNorm-B0; not power norm, which trains by its running
    statistics. As in PyTorch, dropout is active, and ``num_batches_tracked`` becomes the number of
    batches seen here, from which batch renorm's bounds ramp up anew. All other buffers, and layers
    whose statistics are frozen or that no batch reaches, stay as they are.

    References
    ----------
    Izmailov et al. 2018, arXiv:1803.05407, section 3.2. Wu and Johnson 2021, arXiv:2105.07576,
    section 3.
    """
    layers = [
        m
        for m in model.modules()
        if isinstance(m, ChannelNormalization)
        and m.statistics.keys() <= {"running_mean", "running_var"}
        and m.tracked
        and not m.stats_frozen
    ]
    if not layers:
        return
    calls: Counter[RunningNormalization] = Counter()
    totals: dict[RunningNormalization, Moments] = {}
    batches = 0
    with in_mode(model, True), buffers_kept(model), gathering(layers) as gathered:
        for batch in loader:
            run(model, batch, device)
            batches += 1
            for layer, parts in gathered.items():
                if parts:
                    calls[layer] += len(parts)
                    before = [totals[layer]] if layer in totals else []
                    totals[layer] = Moments.merged([*before, *parts])
                    parts.clear()
    if not batches:
        raise ArgumentError("expected a loader with batches, got none")
    for layer, moments in totals.items():
        layer.reset_running_stats()  # what was there may be NaN, which no rate forgets
        layer.follow(moments, 1.0)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.overwrite(calls[layer])
