"""The norms of recurrent layers as one node takes them: those of all steps together.

A norm that was exchanged for another kind, that has hooks, or that does not fit is not taken: its
layer then calls it at every step, which does justice to everything, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygrad_bn.backend import current
from tinygrad_bn.config import as_first_seen
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization.base import RunningNormalization
from tinygrad_bn.nn.normalization.batch import BatchNorm1d
from tinygrad_bn.nn.normalization.layer import LayerNorm
from tinygrad_bn.nn.normalization.stepwise import StepBatchNorm
from tinygrad_bn.ops.batch_normalization import Moments
from tinygrad_bn.ops.join import cat
from tinygrad_bn.ops.norm_arguments import fits
from tinygrad_bn.ops.recurrent_norms import Norm
from tinygrad_bn.tensors import Tensor


@dataclass(frozen=True, slots=True)
class NormOfWalk:
    """A norm for all steps of a walk.

    Attributes
    ----------
    norm : what its node is told.
    tensors : γ, β, and the means and variances of steps that do not take those of their batch.
    steps : for batch norm, what has the statistics of each step.
    """

    norm: Norm
    tensors: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
    steps: tuple[BatchNorm1d, ...] = ()


def is_plain(module: Module, kind: type[Module]) -> bool:
    """Whether it is of that very class, and calling it does nothing beside its forward."""
    hooks = module._hooks
    return type(module) is kind and not (hooks and (hooks.before or hooks.after or hooks.backward))


def fit(x: Tensor, channels: int, *vectors: Tensor | None) -> bool:
    """Whether vectors have a number for each channel, in the dtype of x and where it is."""
    return all(
        v is None or (fits(v, x.backend, (channels,)) and v.dtype == x.dtype) for v in vectors
    )


def of_layer_norms(
    norms: Sequence[LayerNorm], widths: tuple[int, ...], place: str, x: Tensor
) -> NormOfWalk | None:
    """Layer norms of the parts of rows, which have these widths, as one."""
    for norm, width in zip(norms, widths, strict=True):
        plain = is_plain(norm, LayerNorm) and norm.normalized_shape == (width,)
        if not (plain and fit(x, width, norm.weight, norm.bias)):
            return None
    weights = [norm.weight for norm in norms if norm.weight is not None]
    biases = [norm.bias for norm in norms if norm.bias is not None]
    if len(weights) < len(norms) or (biases and place != "c"):
        return None
    weight = weights[0] if len(norms) == 1 else cat(weights)
    known = Norm(place, tuple(norm.eps for norm in norms), widths)
    return NormOfWalk(known, (weight, biases[0] if biases else None, None, None))


def of_batch_norm(
    norm: StepBatchNorm, channels: int, place: str, x: Tensor, sizes: Sequence[int]
) -> NormOfWalk | None:
    """Batch norm of the steps of a walk, which have so many values of each channel."""
    weight, bias = norm.weight, norm.bias
    plain = is_plain(norm, StepBatchNorm) and (bias is None or place == "c")
    if weight is None or not plain or not fit(x, channels, weight, bias):
        return None
    last = norm.last
    steps = tuple(norm.at(min(step, last)) for step in range(len(sizes)))
    by_batch = []
    for step, count in zip(steps, sizes, strict=True):
        takes_batch = takes_its_batch(step, count)
        ready = count > 1 if takes_batch else step.tracked
        if not ready or not is_ready(step, channels, x):
            return None
        by_batch.append(takes_batch)
    known = Norm(place, tuple(step.eps for step in steps), (), tuple(by_batch))
    if all(by_batch):
        return NormOfWalk(known, (weight, bias, None, None), steps)
    if not all(step.tracked for step in steps):
        return None
    given = as_first_seen(lambda: running_statistics(steps))
    return NormOfWalk(known, (weight, bias, *given), steps)


def takes_its_batch(step: BatchNorm1d, count: int) -> bool:
    """Whether so many values are normalised by their own statistics."""
    return step.by_batch and not (count < 2 and step.on_single == "running" and step.tracked)


def is_ready(step: BatchNorm1d, channels: int, x: Tensor) -> bool:
    """Whether a step's statistics are what batch norm without γ and β makes of such values."""
    mean, var, shape = step.running_mean, step.running_var, (channels,)
    return (
        is_plain(step, BatchNorm1d)
        and step.weight is step.bias is None
        and step.axis in (1, -1)
        and step.eps > 0
        and step.num_features == channels
        and (mean is None or fits(mean, x.backend, shape))
        and (var is None or fits(var, x.backend, shape))
    )


def running_statistics(steps: Sequence[BatchNorm1d]) -> tuple[Tensor, Tensor]:
    """Copies of the running means and variances of steps, (T, C) each."""
    found = []
    for name in ("running_mean", "running_var"):
        buffers = [getattr(step, name) for step in steps]
        backend = buffers[0].backend
        with current(backend):
            array = backend.xp.stack([buffer.array for buffer in buffers])
        found.append(buffers[0].wrap_like(array))
    return found[0], found[1]


def teach(
    norm: NormOfWalk,
    mean: Tensor,
    var: Tensor,
    sizes: Sequence[int],
    lessons: dict[RunningNormalization, list[Moments]],
) -> None:
    """Add the moments of a walk's steps, (T, C) each, to what those are to learn from that learn in
    training.
    """
    with current(mean.backend):
        for t, step in enumerate(norm.steps):
            learns = step.training and step.track_running_stats and step.tracked
            if learns and norm.norm.by_batch[t]:
                of_step = mean.wrap_like(mean.array[t]), mean.wrap_like(var.array[t])
                lessons.setdefault(step, []).append(Moments(*of_step, sizes[t]))
