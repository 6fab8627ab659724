"""Batch normalization."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_bn.nn.activation import ReLU
from tinygrad_bn.nn.module import Joint
from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.ops.batch_normalization import (
    Moments,
    normalized_by_batch,
    normalized_by_running,
)
from tinygrad_bn.ops.piecewise import relu
from tinygrad_bn.ops.residual_norms import residual_norm
from tinygrad_bn.tensors import Tensor


class BatchNorm(ChannelNormalization):
    """What batch norms of every rank share; the subclasses say which ranks they take."""

    _dispensable = frozenset({"num_batches_tracked"})  # PyTorch's had none before 0.4.1

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        return normalized_by_batch(
            input, self.weight, self.bias, mask, eps=self.eps, axis=axis, counts=counts
        )

    def with_relu(self, input: Tensor) -> Tensor:
        """max(y, 0) of the layer's result y, in one node where the batch's statistics normalise."""
        axis, counts = self.prepared(input, None)
        if counts is None:
            return relu(self.normalized_by_running(input, axis))
        y, moments = normalized_by_batch(
            input, self.weight, self.bias, eps=self.eps, axis=axis, counts=counts, relu=True
        )
        self.meet(moments)
        return y

    def with_residual(self, input: Tensor, residual: Tensor) -> Tensor:
        """max(y + residual, 0) of the layer's result y, in one node where the batch's statistics
        normalise, and y and the residual are alike.
        """
        alike = residual.backend is input.backend and residual.dtype == input.dtype
        if not alike or residual.shape != input.shape:
            return relu(self.forward(input) + residual)
        axis, counts = self.prepared(input, None)
        if counts is None:
            return relu(self.normalized_by_running(input, axis) + residual)
        y, moments = residual_norm(
            input, residual, self.weight, self.bias, eps=self.eps, axis=axis, counts=counts
        )
        self.meet(moments)
        return y

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        return normalized_by_running(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
            axis=axis,
        )


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
        always. Set to False later, it makes training leave them as they are.
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
        For another rank or number of channels, and for a single value a channel in training. A
        batch of no samples gives an empty result, and is not counted.
    ArgumentError
        For an ε below 0, and for 0 in training.
    DtypeError
        For an input that is not of floats, and a mask that is not of booleans.

    Notes
    -----
    Prefer it for batches of some 16 samples and more; with fewer, layer or group norm. It departs
    from PyTorch in precision: statistics are accumulated in float64 on the CPU, running buffers are
    never narrower than float32, and gradients of every order are exact.

    ``freeze()`` holds the running statistics, γ and β, or either, through ``train()`` and
    ``eval()``. A checkpointed forward advances the statistics once, and so do the micro-batches
    inside of `nn.utils.accumulate_statistics`. See there too for `fold_batch_norm` (inference),
    `update_bn` (averaged weights) and `bn_report` (statistics that do not fit the data).

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


for _kind in (BatchNorm1d, BatchNorm2d, BatchNorm3d):
    _kind._joint = Joint(_kind, ReLU, BatchNorm.with_relu, BatchNorm.with_residual)
