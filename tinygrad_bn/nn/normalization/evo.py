"""Norms with their activation in one formula, found by evolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_bn import creation
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.ops.batch_normalization import Moments, as_met
from tinygrad_bn.ops.deviation import BatchDeviation, RowDeviation
from tinygrad_bn.ops.elementwise import maximum
from tinygrad_bn.ops.norm_arguments import require_channels, require_floats
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.row_normalization import require_groups
from tinygrad_bn.ops.unary import sigmoid
from tinygrad_bn.tensors import Parameter, Tensor


class Evolved(Normalization):
    """What the two have in common: γ, β and v, of a number for each channel."""

    num_features: int
    v: Parameter | None

    def make_v(self, nonlinear: bool, device: object, dtype: Any) -> None:
        """Make v = 1, or say that there is none."""
        self.nonlinear = nonlinear
        start = creation.ones(self.num_features, device=device, dtype=dtype)
        self.v = Parameter(start) if nonlinear else None

    def reset_parameters(self) -> None:
        """Set γ and v to 1 and β to 0."""
        super().reset_parameters()
        if self.v is not None:
            self.v.detach().fill_(1.0)

    def times_v(self, x: Tensor) -> Tensor:
        """v x."""
        assert self.v is not None
        return x * along_channels(self.v, x)

    def scaled(self, x: Tensor, dtype: Any) -> Tensor:
        """γ x + β, rounded to the dtype."""
        if self.weight is not None:
            x = x * along_channels(self.weight, x)
        if self.bias is not None:
            x = x + along_channels(self.bias, x)
        return x.to(dtype)


def along_channels(vector: Tensor, x: Tensor) -> Tensor:
    """A number for each channel in a shape that broadcasts with x (N, C, *S), in its dtype."""
    return vector.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))


class EvoNormB0(Evolved, ChannelNormalization):
    """EvoNorm-B0: normalization by the batch's variance and each sample's own, and activation.

        y = γ x / max(√(var_batch + ε), v x + √(var_instance + ε)) + β

    The variance var_batch is that of each channel over the batch and its positions, in evaluation
    the running one; var_instance that of each channel of each sample over its positions.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to both variances.
    momentum : the weight of the newest batch in the running variance; None averages all batches
        alike.
    affine : whether γ (``weight``) and β (``bias``), (C,) each, exist and are learned.
    track_running_stats : whether a running variance exists; without it the batch's is taken always.
    bias : whether β exists, where γ does.
    nonlinear : False leaves only γ x + β, as the paper has it where no activation is wanted.
    running_var_correction : the variance that the running one moves towards: "biased", which is the
        one that normalises, or "unbiased".
    on_single : what a batch with one value a channel does in training: an "error", or it is
        normalised by the "running" variance, which stays.

    Shapes
    ------
    input (N, C) or (N, C, *S); the result the same. v (``v``) is (C,), and begins as 1.

    Raises
    ------
    ShapeError
        For another number of channels, and for less than two values a channel in training.
    ArgumentError
        For an ε below 0, and for 0 in training.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    It replaces a batch norm with the ReLU or SiLU after it, and does slightly better in image
    classification with large batches; for small ones `EvoNormS0`. It takes no mean away. Variances
    are accumulated in float64 and exact for any mean; the running one is never narrower than
    float32.

    References
    ----------
    Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967, table 1.
    """

    statistics = {"running_var": 1.0}

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
        nonlinear: bool = True,
        running_var_correction: str = "biased",
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats and nonlinear,
            device,
            dtype,
            bias=bias,
            running_var_correction=running_var_correction,
            on_single=on_single,
        )
        self.make_v(nonlinear, device, dtype)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # an instance has no mask
        """Normalize and activate (N, C, *S)."""
        if self.nonlinear:
            return super().forward(input)
        self.check(input)
        return self.scaled(at_least_float32(input), input.dtype)

    def check(self, input: Tensor) -> int:
        axis = super().check(input)
        require_channels(input, self.num_features, v=self.v)
        return axis

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        x = at_least_float32(input)
        deviation, mean, var = BatchDeviation.apply(x, eps=self.eps)
        return self.over(x, deviation, input.dtype), Moments(mean, var, sum(counts))

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        assert self.running_var is not None
        (var,) = as_met(self.running_var)
        deviation = (var.double() + self.eps).sqrt()
        return self.over(at_least_float32(input), deviation, input.dtype)

    def over(self, x: Tensor, deviation: Tensor, dtype: Any) -> Tensor:
        """The formula, with √(var_batch + ε) as it is given."""
        n, channels, *space = x.shape
        instance = RowDeviation.apply(x, rows=(n, channels, 1, math.prod(space)), eps=self.eps)
        own = self.times_v(x) + instance.reshape(n, channels, *[1] * len(space))
        return self.scaled(x / maximum(along_channels(deviation, x), own), dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinear={self.nonlinear}"


class EvoNormS0(Evolved):
    """EvoNorm-S0: normalization by the standard deviation of groups, and activation; the same in
    training and in evaluation.

        y = γ x σ(v x) / √(var + ε) + β

    with the sigmoid σ, and the variance over successive channels, which make a group, and all
    positions of each sample.

    Parameters
    ----------
    num_features : the number of channels C, which the groups must divide.
    groups : how many groups the channels make.
    eps : ε, added to the variance.
    affine : whether γ (``weight``) and β (``bias``), (C,) each, exist and are learned.
    bias : whether β exists, where γ does.
    nonlinear : False leaves only γ x + β, as the paper has it where no activation is wanted.

    Shapes
    ------
    input (N, C) or (N, C, *S); the result the same. v (``v``) is (C,), and begins as 1.

    Raises
    ------
    ShapeError
        For channels that the groups do not divide, and for an input with another number of them.
    ArgumentError
        For fewer than one group, and an ε that is not positive.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    It replaces a group norm with the SiLU after it, and needs no batch: prefer it for images in
    small batches. It takes no mean away. The variance is accumulated in float64 and exact for any
    mean.

    References
    ----------
    Liu, Brock, Simonyan and Le 2020, arXiv:2004.02967, table 1.
    """

    def __init__(
        self,
        num_features: int,
        groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        nonlinear: bool = True,
    ) -> None:
        super().__init__()
        require_groups(groups, num_features)
        if not eps > 0:
            raise ArgumentError(f"expected eps > 0, got {eps}")
        self.num_features = num_features
        self.groups = groups
        self.eps = eps
        self.affine = affine
        self.make_affine((num_features,), affine, affine and bias, device, dtype)
        self.make_v(nonlinear, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize and activate (N, C, *S)."""
        require_floats(input)
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ShapeError(f"expected (N, {self.num_features}, *S), got {input.shape}")
        require_channels(input, self.num_features, weight=self.weight, bias=self.bias, v=self.v)
        x = at_least_float32(input)
        if not self.nonlinear:
            return self.scaled(x, input.dtype)
        n, channels, *space = x.shape
        rows = (n, self.groups, channels // self.groups, math.prod(space))
        deviation = RowDeviation.apply(x, rows=rows, eps=self.eps).reshape(n, self.groups, 1, 1)
        y = (x * sigmoid(self.times_v(x))).reshape(rows) / deviation
        return self.scaled(y.reshape(x.shape), input.dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, groups={self.groups}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}, nonlinear={self.nonlinear}"
        )
