"""How far batch norms' running statistics are from what they meet."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tinygrad_bn.config import no_grad
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import ChannelNormalization
from tinygrad_bn.nn.utils.freezing import norms_of
from tinygrad_bn.nn.utils.passes import in_mode, run
from tinygrad_bn.ops.batch_normalization import Moments, moments_of
from tinygrad_bn.ops.norm_arguments import require_mask, values_per_channel

__all__ = ["BatchNormReport", "LayerDrift", "bn_report"]

Values = np.ndarray[Any, Any]
NOTHING = (math.nan, math.nan)
FLAT = 0.01
"""The part of ε below which a variance counts as none: x̂ varies by less than a tenth."""


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """One batch norm: what it meets in a batch, against its running statistics.

    Means and greatest values are over the channels whose statistics are finite; NaN where there are
    none, or no running statistics.

    Attributes
    ----------
    path, kind : where the layer is, and its class.
    channels, count : how many channels, and values of each; 0 where the batch did not get there.
    mean_shift, max_shift : of |batch mean - running mean| / √(running variance + ε), how far x̂ is
        off centre, in standard deviations.
    mean_log_ratio, max_log_ratio : of |ln((batch variance + ε) / (running variance + ε))|, 0.69 for
        twice or half.
    dead : channels that hardly vary in the batch: a variance below a hundredth of ε.
    nonfinite : channels with NaN or infinity in the batch's statistics or the running ones.
    """

    path: str
    kind: str
    channels: int
    count: int
    mean_shift: float
    max_shift: float
    mean_log_ratio: float
    max_log_ratio: float
    dead: int
    nonfinite: int


@dataclass(frozen=True, slots=True)
class BatchNormReport:
    """The batch norms of a model in its order; printed, a table."""

    layers: tuple[LayerDrift, ...]

    def __iter__(self) -> Iterator[LayerDrift]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, path: str) -> LayerDrift:
        return {layer.path: layer for layer in self.layers}[path]

    def __str__(self) -> str:
        titles = [field.name.replace("_", " ") for field in fields(LayerDrift)]
        rows = [titles, *([shown(getattr(x, f.name)) for f in fields(x)] for x in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def shown(value: object) -> str:
    """A cell of the table."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def bn_report(model: Module, batch: Any, device: object = None) -> BatchNormReport:
    """What a batch shows of every batch norm: how far its running statistics are off, and channels
    that are dead or not finite.

    The batch, a tensor or a sequence whose first is the input, is moved to the ``device``, and the
    model evaluates it once, without gradients: each layer meets what inference gives it. The
    model, its state and its modes are afterwards what they were.

    Notes
    -----
    What it tells: shifts and ratios that grow from layer to layer are data unlike that of training;
    ratios alone, dropout before batch norm (training saw its noise); all layers alike, statistics
    that lag behind the weights: `update_bn`. Small batches differ by chance, their means by
    1/√count standard deviations.

    References
    ----------
    Li, Chen, Hu and Yang 2018, arXiv:1801.05134, on dropout and batch norm.

    Examples
    --------
    >>> print(bn_report(model, next(iter(loader))))
    """
    norms = [(path, norm) for path, norm in norms_of(model) if "running_var" in norm.statistics]
    seen: dict[ChannelNormalization, list[Moments]] = {norm: [] for _, norm in norms}

    def look(norm: ChannelNormalization, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[norm].append(met(norm, args, kwargs))

    with ExitStack() as stack, no_grad(), in_mode(model, False):
        for norm in seen:
            stack.enter_context(norm.register_forward_pre_hook(look, with_kwargs=True))
        run(model, batch, device)
    return BatchNormReport(tuple(drift_of(path, norm, seen[norm]) for path, norm in norms))


def met(norm: ChannelNormalization, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Moments:
    """The moments of the input in a call of the layer, which checks it."""
    given = inspect.signature(norm.forward).bind(*args, **kwargs).arguments
    input, mask = given["input"], given.get("mask")
    axis = norm.check(input)
    require_mask(input, axis, mask)
    return moments_of(input, mask, axis, values_per_channel(input, axis, mask))


def drift_of(path: str, norm: ChannelNormalization, parts: list[Moments]) -> LayerDrift:
    """What the calls of a layer have shown."""
    kind, channels = type(norm).__name__, norm.num_features
    count = sum(part.count for part in parts)
    if not count:
        return LayerDrift(path, kind, channels, 0, *NOTHING, *NOTHING, 0, 0)
    moments = Moments.merged(parts)
    mean, var = host(moments.mean), host(moments.var)
    dead = int((var < FLAT * norm.eps).sum()) if count > 1 else 0
    finite = np.isfinite(mean) & np.isfinite(var)
    shift, ratio = NOTHING, NOTHING
    if norm.tracked:
        known_mean, known_var = host(norm.running_mean), host(norm.running_var)
        finite &= np.isfinite(known_mean) & np.isfinite(known_var)
        var = var * moments.factor(norm.running_var_correction) + norm.eps
        known_var = known_var + norm.eps
        shift = mean_and_greatest(((mean - known_mean) / np.sqrt(known_var))[finite])
        ratio = mean_and_greatest(np.log(var / known_var)[finite])
    nonfinite = int((~finite).sum())
    return LayerDrift(path, kind, channels, count, *shift, *ratio, dead, nonfinite)


def host(x: Any) -> Values:
    return np.asarray(x.backend.to_numpy(x.array), np.float64)


def mean_and_greatest(values: Values) -> tuple[float, float]:
    """Of the absolute values; NaN of none."""
    sizes = np.abs(values)
    return (float(sizes.mean()), float(sizes.max())) if sizes.size else NOTHING
