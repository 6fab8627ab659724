"""Ghost batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.backend import current
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.normalization.batch import BatchNorm
from tinygrad_bn.ops.batch_normalization import Moments, normalized_by_batch
from tinygrad_bn.ops.join import cat
from tinygrad_bn.ops.moments import merged_moments
from tinygrad_bn.tensors import Tensor

LARGE = 1 << 14
"""From how many elements virtual batches are normalised one after another: no copy lays them side
by side then, and each stays in a CPU's cache.
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive virtual batches of one size, which are normalised at once."""

    batches: int
    samples: int
    """How many samples each of them has."""
    count: int
    """How many values a channel each of them has."""


class GhostBatchNorm(BatchNorm):
    """Ghost batch normalization of (N, C, *S): each channel over the samples of a virtual batch and
    their positions.

        y = γ (x - mean) / √(var + ε) + β

    In training, consecutive samples form virtual batches of a given size, and each of these is
    normalised by its own mean and biased variance. The running statistics, which normalise in
    evaluation, move once a step, towards those of all the samples together.

    Parameters
    ----------
    num_features : the number of channels C.
    virtual_batch_size : how many samples a virtual batch has. The last one has those that are left;
        if they have but one value a channel, whose variance means nothing, they join the one before
        it.
    eps, momentum, affine, track_running_stats, bias, axis, running_var_correction, on_single : as
        for `BatchNorm1d`. A single value a channel is one in each virtual batch, where
        ``virtual_batch_size`` is 1 and there are no positions.

    Shapes
    ------
    input (N, C, *S) of any rank from 2, or with C at another ``axis``: samples then lie along the
    first of the other axes. mask, where one is given in the call, (N, *S), true where the input
    counts for the statistics; a virtual batch that it leaves less than two values joins the one
    before it, the first joins the one after it. The result as input.

    Raises
    ------
    ShapeError
        For another number of channels, and for less than two values a channel in training.
    ArgumentError
        For a ``virtual_batch_size`` below 1, for an ε below 0, and for 0 in training.

    Notes
    -----
    Large batches, for the sake of speed, take from batch norm the noise that generalises: prefer it
    there, with virtual batches of the size that did well before, such as 32 to 128. It is also what
    data-parallel training on unsynchronised devices computes. With a single virtual batch it is
    `BatchNorm1d` and its kin.

    It departs from the paper in the running statistics. The paper moves them once for each virtual
    batch, and averages the variances within those only; here they are the moments of the whole
    batch (Chan et al.), so that ``momentum`` means the same for every size of virtual batch, and
    evaluation is that of batch norm. Virtual batches of one size are normalised at once, as
    channels of their own; with a mask, and large ones, one after another.

    References
    ----------
    Hoffer, Hubara and Soudry 2017, arXiv:1705.08741, algorithm 1.
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
    """

    def __init__(
        self,
        num_features: int,
        virtual_batch_size: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        axis: int = 1,
        running_var_correction: str = "unbiased",
        on_single: str = "error",
    ) -> None:
        if not isinstance(virtual_batch_size, int) or virtual_batch_size < 1:
            raise ArgumentError(
                f"expected a whole number ≥ 1 as virtual_batch_size, got {virtual_batch_size!r}"
            )
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
            axis=axis,
            running_var_correction=running_var_correction,
            on_single=on_single,
        )
        self.virtual_batch_size = virtual_batch_size

    def counts(self, input: Tensor, axis: int, mask: Tensor | None) -> Sequence[int]:
        stretches = self.stretches(input, axis, mask)
        return [s.count for s in stretches for _ in range(s.batches)]

    def fewest(self, counts: Sequence[int]) -> int:
        return min(counts, default=0)

    def stretches(self, input: Tensor, axis: int, mask: Tensor | None) -> list[Stretch]:
        """The virtual batches of an input, in its order; with a mask each for itself, and large
        ones too.
        """
        size, samples = self.virtual_batch_size, input.shape[batch_axis(axis)]
        positions = input.numel() // max(samples * self.num_features, 1)
        if mask is None:
            full, rest = divmod(samples, size)
            if full and rest * positions == 1 < size * positions:
                full, rest = full - 1, rest + size
            runs = [(full, size), (1, rest)]
            if size * positions * self.num_features >= LARGE:
                runs = [(1, size)] * full + [(1, rest)]
            return [Stretch(k, n, n * positions) for k, n in runs if k and n]
        each = mask.reshape(samples, positions).sum(1).tolist()
        parts = [each[i : i + size] for i in range(0, samples, size)]
        alone = [Stretch(1, len(part), sum(part)) for part in parts]
        return joined(alone) if size * positions > 1 else alone

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        if len(counts) < 2:
            return super().normalized_by_batch(input, mask, axis, counts)
        stretches = self.stretches(input, axis, mask)
        lengths = [s.batches * s.samples for s in stretches]
        along = batch_axis(axis)
        inputs = input.split(lengths, along)
        masks = [None] * len(inputs) if mask is None else mask.split(lengths)
        # in float64, where the gradients that virtual batches give γ and β add up unrounded
        weight, bias = (None if v is None else v.double() for v in (self.weight, self.bias))
        results = [
            self.side_by_side(x, weight, bias, m, axis, stretch)
            for x, m, stretch in zip(inputs, masks, stretches, strict=True)
        ]
        return cat([y for y, _ in results], along), Moments.merged([m for _, m in results])

    def side_by_side(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mask: Tensor | None,
        axis: int,
        stretch: Stretch,
    ) -> tuple[Tensor, Moments]:
        """Virtual batches of one size as so many times the channels of one batch."""
        k, along = stretch.batches, batch_axis(axis)
        options: dict[str, Any] = {"eps": self.eps, "axis": axis, "counts": (stretch.count,)}
        if k == 1:
            return normalized_by_batch(x, weight, bias, mask, **options)
        channels = x.shape[axis]
        beside = x.unflatten(along, (k, stretch.samples)).movedim(along, axis)
        y, found = normalized_by_batch(
            beside.flatten(axis, axis + 1),
            None if weight is None else weight.repeat(k),
            None if bias is None else bias.repeat(k),
            **options,
        )
        y = y.unflatten(axis, (k, channels)).movedim(axis, along).flatten(along, along + 1)
        return y, together(found, k)

    def extra_repr(self) -> str:
        features, _, options = super().extra_repr().partition(", ")
        return f"{features}, virtual_batch_size={self.virtual_batch_size}, {options}"


def batch_axis(axis: int) -> int:
    """Along which axis the samples lie: the first that is not the channels'."""
    return 0 if axis else 1


def joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The virtual batches, where one with less than two values joins the one before it; the first
    has none before it, and is joined by the next.
    """
    found: list[Stretch] = []
    for stretch in stretches:
        if found and min(stretch.count, found[-1].count) < 2:
            last = found.pop()
            samples, count = last.samples + stretch.samples, last.count + stretch.count
            stretch = Stretch(1, samples, count)
        found.append(stretch)
    return found


def together(moments: Moments, batches: int) -> Moments:
    """The moments of each channel from those of each channel in each of k virtual batches, (k·C,),
    which have no gradient.
    """
    source, count = moments.mean, moments.count
    mean, var = (x.unflatten(0, (batches, -1)).array for x in (moments.mean, moments.var))
    with current(source.backend):
        mean, var = merged_moments(source.backend.xp, [count] * batches, mean, var)
    return Moments(source.wrap_like(mean), source.wrap_like(var), count * batches)
