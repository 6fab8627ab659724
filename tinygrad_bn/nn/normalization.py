"""Normalization layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn import creation
from tinygrad_bn.backend import current
from tinygrad_bn.config import recomputing
from tinygrad_bn.dtypes import float32
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.module import Module, convert
from tinygrad_bn.ops.normalization import (
    batch_norm,
    layer_norm,
    require_eps,
    require_several,
)
from tinygrad_bn.tensors import Buffer, Parameter, Tensor


class Normalization(Module):
    """What normalization layers have in common: their γ and β are not for weight decay."""

    weight: Parameter | None
    bias: Parameter | None

    def make_affine(
        self, shape: Sequence[int], weight: bool, bias: bool, device: object, dtype: Any
    ) -> None:
        """Make γ = 1 and β = 0, or say that there is none."""
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = Parameter(creation.ones(*shape, **options)) if weight else None
        self.bias = Parameter(creation.zeros(*shape, **options)) if bias else None

    def reset_parameters(self) -> None:
        """Set γ to 1 and β to 0."""
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                parameter.detach().fill_(value)


class BatchNorm(Normalization):
    """What batch norms of every rank share; the subclasses say which ranks they take."""

    ranks: tuple[int, ...] = ()
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None

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
    ) -> None:
        super().__init__()
        if num_features < 0:
            raise ArgumentError(f"expected num_features ≥ 0, got {num_features}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.make_affine((num_features,), affine, affine and bias, device, dtype)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.make_running_stats(device, dtype)

    def make_running_stats(self, device: object, dtype: Any) -> None:
        """Mean 0, variance 1 and no batch seen; never in fewer bits than float32."""
        zeros = creation.zeros(self.num_features, device=device, dtype=dtype)
        if zeros.element_size() < 4:
            zeros = zeros.float()
        self.running_mean = Buffer(zeros)
        self.running_var = Buffer(creation.ones_like(zeros))
        self.num_batches_tracked = Buffer(creation.zeros((), dtype="int64", device=device))

    def _convert(self, dtype: Any, device: object) -> None:
        """γ and β as asked; the running statistics never in fewer bits than float32."""
        for parameter in self.parameters(recurse=False):
            convert(parameter, dtype, device)
        narrow = dtype is not None and dtype.itemsize < 4
        for buffer in self.buffers(recurse=False):
            convert(buffer, float32 if narrow else dtype, device)

    def reset_running_stats(self) -> None:
        """Forget every batch seen: mean 0, variance 1."""
        for buffer, value in (
            (self.running_mean, 0),
            (self.running_var, 1),
            (self.num_batches_tracked, 0),
        ):
            if buffer is not None:
                buffer.fill_(value)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, *S) by the batch's statistics in training, else by the running ones."""
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            ranks = " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"expected (N, {self.num_features}, *S) of rank {ranks}, got {input.shape}"
            )
        by_batch = self.training or self.running_mean is None
        require_eps(self.eps, by_batch)  # before the batch is counted, as all that can fail
        if by_batch:
            require_several(input)
        update = self.training and self.num_batches_tracked is not None
        return batch_norm(
            input,
            self.running_mean if update or not by_batch else None,
            self.running_var if update or not by_batch else None,
            self.weight,
            self.bias,
            training=by_batch,
            momentum=self.advance() if update else 0.0,
            eps=self.eps,
        )

    def advance(self) -> float | Tensor:
        """Count a batch; the weight of the newest one in the running statistics, 1 / count for a
        plain average.
        """
        count = self.num_batches_tracked
        assert count is not None
        if not recomputing.get():
            with current(count.backend):
                count.overwrite(count.array + 1)
        if self.momentum is not None:
            return self.momentum
        return count.detach().double().reciprocal()

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(BatchNorm):
    """Batch normalization of (N, C) or (N, C, L): each channel over the batch and its positions.

        y = γ (x - mean) / √(var + ε) + β

    Training takes the mean and the biased variance of the batch, and moves the running statistics
    towards them (the variance unbiased, as PyTorch does); ``eval()`` takes the running ones.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the variance.
    momentum : the weight of the newest batch in the running statistics; None averages all batches
        alike.
    affine : whether γ (``weight``) and β (``bias``) exist and are learned.
    track_running_stats : whether running statistics exist; without them the batch's are taken
        always.
    bias : whether β does, where γ does.

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


class LayerNorm(Normalization):
    """Layer normalization: each sample over its trailing axes, the same in training and in
    evaluation.

        y = γ (x - mean) / √(var + ε) + β

    Parameters
    ----------
    normalized_shape : the trailing axes to normalise over, all of them together.
    eps : ε, added to the biased variance.
    elementwise_affine : whether γ (``weight``) and β (``bias``), of that shape, exist and are
        learned.
    bias : whether β does.

    Notes
    -----
    It needs no batch: prefer it for small batches, sequences and recurrent networks.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
    """

    def __init__(
        self,
        normalized_shape: Sequence[int] | int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        affine = elementwise_affine
        self.make_affine(self.normalized_shape, affine, affine and bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (*, *normalized_shape)."""
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
