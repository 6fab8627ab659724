"""Batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.normalization.base import RunningNormalization
from tinygrad_bn.ops.batch_normalization import (
    Moments,
    normalized_by_batch,
    normalized_by_running,
)
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


class BatchNorm(RunningNormalization):
    """What batch norms of every rank share; the subclasses say which ranks they take."""

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
        axis = self.check(input)
        require_mask(input, axis, mask)
        by_batch = self.by_batch
        counts = self.counts(input, axis, mask) if by_batch else ()
        if by_batch and self.on_single == "running" and self.tracked and sum(counts) < 2:
            by_batch = False
        require_eps(self.eps, by_batch)
        if not by_batch:
            return self.normalized_by_running(input, axis)
        require_several(sum(counts), input)
        y, moments = self.normalized_by_batch(input, mask, axis, counts)
        if self.training and self.tracked:
            self.learn(moments)
        return y

    def check(self, input: Tensor) -> int:
        """The axis of the channels in an input that fits this layer.

        Raises
        ------
        ShapeError, DtypeError, BackendError
            If it does not fit, or a vector of the layer's does not fit it; nothing has changed.
        """
        require_floats(input)
        fits = self.ranks is None or input.ndim in self.ranks
        axis = axis_of_channels(input, self.axis) if fits and input.ndim > 1 else None
        if axis is None or input.shape[axis] != self.num_features:
            layout = {1: "(N, {}, *S)", -1: "(N, *S, {})"}.get(
                self.axis, f"{{}} channels along axis {self.axis}"
            )
            ranks = "2 or more" if self.ranks is None else " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"expected {layout.format(self.num_features)} of rank {ranks}, got {input.shape}"
            )
        require_channels(
            input,
            self.num_features,
            running_mean=self.running_mean,
            running_var=self.running_var,
            weight=self.weight,
            bias=self.bias,
        )
        return axis

    # The three steps that other batch norms take in their own way

    def counts(self, input: Tensor, axis: int, mask: Tensor | None) -> Sequence[int]:
        """How many values a channel count for the statistics, in each part of the batch."""
        return (values_per_channel(input, axis, mask),)

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        """The input by the statistics of its batch, and those."""
        return normalized_by_batch(
            input, self.weight, self.bias, mask, eps=self.eps, axis=axis, counts=counts
        )

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        """The input by the running statistics."""
        return normalized_by_running(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
            axis=axis,
        )

    def extra_repr(self) -> str:
        known = super().extra_repr()
        known += f", axis={self.axis}" if self.axis != 1 else ""
        return known + (f", on_single={self.on_single!r}" if self.on_single != "error" else "")


class BatchNorm1d(BatchNorm):
    """Batch normalization of (N, C) or (N, C, L): each channel over the batch and its positions.

        y = γ (x - mean) / √(var + ε) + β

    Training takes the mean and the biased variance of the batch, and moves the running statistics
    towards them; evaluation takes the running ones.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the variance.
    momentum : the weight of the newest batch in the running statistics; None averages all batches
        alike.
    affine : whether γ (``weight``) and β (``bias``) exist and are learned.
    track_running_stats : whether running statistics exist; without them the batch's are taken
        always.
    bias : whether β exists, where γ does.
    axis : the axis of the channels; -1 for channels last, which are taken as they lie.
    running_var_correction : the variance that the running one moves towards: "unbiased" as in
        PyTorch, "biased" as in Keras and ONNX.
    on_single : what a batch with one value a channel, whose variance means nothing, does in
        training: an "error", or it is normalised by the "running" statistics, which stay.

    Shapes
    ------
    input (N, C) or (N, C, L); mask, where one is given in the call, (N,) or (N, L), true where the
    input counts for the batch's statistics; the result as input. What a mask leaves out is
    normalised by those statistics too.

    Raises
    ------
    ShapeError
        For another rank or number of channels, and for less than two values a channel in training.
    ArgumentError
        For an ε below 0, and for 0 in training.

    Notes
    -----
    Prefer it for batches of some 16 samples and more; with fewer, layer or group norm. It departs
    from PyTorch in precision: statistics are accumulated in float64 on the CPU, running buffers are
    never narrower than float32, and gradients of every order are exact.

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
    """

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalization of images (N, C, H, W): each channel over the batch and all pixels.

        y = γ (x - mean) / √(var + ε) + β

    Parameters, modes and errors are those of `BatchNorm1d`; a mask is (N, H, W).

    Notes
    -----
    A convolution gives one feature map a channel: statistics over its pixels keep what it is, a
    detector that works alike everywhere. Images of some hundred pixels make even batches of 4
    samples enough. With ``axis=-1`` it takes (N, H, W, C).

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.2.
    """

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalization of volumes (N, C, D, H, W): each channel over the batch and all voxels.

        y = γ (x - mean) / √(var + ε) + β

    Parameters, modes and errors are those of `BatchNorm1d`; a mask is (N, D, H, W).

    Notes
    -----
    For volumes and videos, whose batches are small for want of memory: the voxels make up for it.
    With ``axis=-1`` it takes (N, D, H, W, C).

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.2.
    """

    ranks = (5,)
