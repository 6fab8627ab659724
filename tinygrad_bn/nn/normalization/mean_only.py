"""Mean-only batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.ops.batch_normalization import Moments
from tinygrad_bn.ops.mean_centring import centred_by_batch, centred_by_running
from tinygrad_bn.tensors import Tensor


class MeanOnlyBatchNorm(ChannelNormalization):
    """Mean-only batch normalization of (N, C, *S): each channel less its mean over the batch and
    its positions.

        y = x - mean + β

    Training takes the mean of the batch, and moves the running mean towards it; evaluation takes
    the running one.

    Parameters
    ----------
    num_features : the number of channels C.
    momentum : the weight of the newest batch in the running mean; None averages all batches alike.
    bias : whether β (``bias``) exists and is learned.
    track_running_stats : whether the running mean exists; without it the batch's is taken always.
    axis : the axis of the channels; -1 for channels last, which are taken as they lie.
    on_single : what a batch with one value a channel, of which nothing would be left, does in
        training: an "error", or the "running" mean is taken from it, which stays.

    Shapes
    ------
    input (N, C, *S) of any rank from 2, or with C at another ``axis``; mask, where one is given in
    the call, (N, *S), true where the input counts for the mean; the result as input.

    Raises
    ------
    ShapeError
        For another number of channels, and for less than two values a channel in training.

    Notes
    -----
    It goes between a weight-normalised layer without bias and its activation: weight norm
    (`nn.utils.weight_norm`) holds the scale, which this leaves alone, and this
    holds the mean. Prefer the two to batch norm where its noise harms: the gradient is centred
    only, y is linear in x, and the noise of a mean is milder than that of a variance.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868, section 4, equations 11 and 12.
    """

    statistics = {"running_mean": 0.0}

    def __init__(
        self,
        num_features: int,
        momentum: float | None = 0.1,
        bias: bool = True,
        track_running_stats: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        axis: int = 1,
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features,
            1.0,  # ε, which nothing here is divided by
            momentum,
            bias,
            track_running_stats,
            device,
            dtype,
            axis=axis,
            on_single=on_single,
        )

    def make_affine(
        self, shape: Sequence[int], weight: bool, bias: bool, device: object, dtype: Any
    ) -> None:
        """Make β = 0, or say that there is none; there never is a γ."""
        super().make_affine(shape, False, bias, device, dtype)

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        return centred_by_batch(input, self.bias, mask, axis=axis, count=sum(counts))

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        mean = self.running_mean
        assert mean is not None
        return centred_by_running(input, mean, self.bias, axis=axis)

    def extra_repr(self) -> str:
        parts = [
            f"{self.num_features}, momentum={self.momentum}, bias={self.bias is not None}",
            f"track_running_stats={self.track_running_stats}",
            f"axis={self.axis}" if self.axis != 1 else "",
            f"on_single={self.on_single!r}" if self.on_single != "error" else "",
            "stats_frozen=True" if self.stats_frozen else "",
        ]
        return ", ".join(part for part in parts if part)
