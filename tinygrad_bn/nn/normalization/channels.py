"""Normalization of each channel over the batch: what batch norm and its relatives share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.normalization.base import RunningNormalization
from tinygrad_bn.ops.batch_normalization import Moments
from tinygrad_bn.ops.norm_arguments import (
    axis_of_channels,
    require_channels,
    require_eps,
    require_floats,
    require_mask,
    require_several,
    values_per_channel,
)
from tinygrad_bn.tensors import Tensor

SINGLE = ("error", "running")


class ChannelNormalization(RunningNormalization):
    """What norms of each channel over the batch have in common: the inputs that they take, and when
    the batch's own statistics normalise, or the running ones, and when those learn.

    A norm defines the steps at the end.
    """

    ranks: tuple[int, ...] | None = None
    """The ranks of input that it takes; None for every one from 2."""

    def __init__(
        self,
        num_features: int,
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
        if on_single not in SINGLE:
            raise ArgumentError(f"expected on_single 'error' or 'running', got {on_single!r}")
        if on_single == "running" and not track_running_stats:
            raise ArgumentError("expected track_running_stats=True for on_single='running'")
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
            running_var_correction=running_var_correction,
        )
        self.axis = axis
        self.on_single = on_single

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalize (N, C, *S) by the batch's statistics in training, else by the running ones.

        A mask (N, *S) is true where the input counts for the batch's statistics.
        """
        axis, counts = self.prepared(input, mask)
        if counts is None:
            return self.normalized_by_running(input, axis)
        y, moments = self.normalized_by_batch(input, mask, axis, counts)
        self.meet(moments)
        return y

    def prepared(self, input: Tensor, mask: Tensor | None) -> tuple[int, Sequence[int] | None]:
        """The axis of the channels, and how many values a channel count in each part of the batch;
        None where the running statistics normalise. All arguments have been checked then.
        """
        axis = self.check(input)
        if mask is not None:
            require_mask(input, axis, mask)
        counts: Sequence[int] | None = None
        if self.by_batch:
            counts = self.counts(input, axis, mask)
            fewest = counts[0] if len(counts) == 1 else self.fewest(counts)
            if fewest < 2 and self.on_single == "running" and self.tracked:
                counts = None
        if not self.eps > 0:
            require_eps(self.eps, counts is not None)
        if counts is not None and fewest < 2:
            require_several(fewest, input)
        return axis, counts

    def meet(self, moments: Moments) -> None:
        """Learn from a batch in training, where statistics are tracked."""
        if self.training and self.track_running_stats and self.tracked:
            self.learn(moments)

    def check(self, input: Tensor) -> int:
        """The axis of the channels in an input that fits this layer.

        Raises
        ------
        ShapeError, DtypeError, BackendError
            If it does not fit, or a vector of the layer's does not fit it; nothing has changed.
        """
        if not (isinstance(input, Variable) and input.array.dtype.kind == "f"):
            require_floats(input)
        shape, axis = input.array.shape, None
        if len(shape) > 1 and (self.ranks is None or len(shape) in self.ranks):
            first = self.axis.__class__ is int and self.axis == 1  # as most often, and quick
            axis = 1 if first else axis_of_channels(input, self.axis)
        if axis is None or shape[axis] != self.num_features:
            layout = {1: "(N, {}, *S)", -1: "(N, *S, {})"}.get(
                self.axis, f"{{}} channels along axis {self.axis}"
            )
            ranks = "2 or more" if self.ranks is None else " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"expected {layout.format(self.num_features)} of rank {ranks}, got {input.shape}"
            )
        backend, wanted = input.backend, (self.num_features,)
        for name in (*self.statistics, "weight", "bias"):
            x = getattr(self, name)
            if x is None or (
                x.backend is backend and x.array.shape == wanted and x.array.dtype.kind == "f"
            ):  # as it mostly is: found out in a quarter of the time of the checks
                continue
            require_channels(input, self.num_features, **{name: x})
        return axis

    # The steps that a norm takes in its own way

    def counts(self, input: Tensor, axis: int, mask: Tensor | None) -> Sequence[int]:
        """How many values a channel count for the statistics, in each part of the batch."""
        return (values_per_channel(input, axis, mask),)

    def fewest(self, counts: Sequence[int]) -> int:
        """Over how many values a channel the statistics are, or those of them that are over the
        fewest: here over all parts together.
        """
        return sum(counts)

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        """The input by the statistics of its batch, and those."""
        raise NotImplementedError

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        """The input by the running statistics."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        known = super().extra_repr()
        known += f", axis={self.axis}" if self.axis != 1 else ""
        return known + (f", on_single={self.on_single!r}" if self.on_single != "error" else "")
