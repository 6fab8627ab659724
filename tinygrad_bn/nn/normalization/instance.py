"""Instance normalization."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.normalization.base import RunningNormalization
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.row_normalization import instance_norm
from tinygrad_bn.tensors import Tensor


class InstanceNorm(RunningNormalization):
    """What instance norms of every rank share; the subclasses say how many axes of positions there
    are.
    """

    positions: int
    """How many axes the positions have."""
    _dispensable = frozenset({"num_batches_tracked"})  # PyTorch's had none before 0.4.1

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        running_var_correction: str = "unbiased",
    ) -> None:
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

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, *S), or one sample (C, *S)."""
        require_floats(input)
        samples = input.ndim - 1 - self.positions
        if samples not in (0, 1) or input.shape[samples] != self.num_features:
            channels = ", ".join([str(self.num_features), *"DHW"[3 - self.positions :]])
            raise ShapeError(f"expected (N, {channels}) or ({channels}), got {input.shape}")
        y = self.normalized(input if samples else input.unsqueeze(0))
        return y if samples else y.squeeze(0)

    def normalized(self, x: Tensor) -> Tensor:
        """x (N, C, *S) normalised, by its own statistics or by the running ones."""
        tracks = self.track_running_stats
        return instance_norm(
            x,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            self.weight,
            self.bias,
            self.by_batch or not tracks,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            running_var_correction=self.running_var_correction,
        )


class InstanceNorm1d(InstanceNorm):
    """Instance normalization of (N, C, L): each channel of each sample over its positions.

        y = γ (x - mean) / √(var + ε) + β

    The mean and the biased variance are those of the input in training and in evaluation alike,
    unless running statistics are tracked, which evaluation then takes.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the variance.
    momentum : the weight of the newest batch in the running statistics; None leaves them at their
        start, as in PyTorch.
    affine : whether γ (``weight``) and β (``bias``), (C,) each, exist and are learned.
    track_running_stats : whether running statistics exist. In training they move towards the mean
        over the samples of their means and of their variances. Set to False later, it makes
        evaluation too take those of the input.
    bias : whether β exists, where γ does.
    running_var_correction : the variance that the running one moves towards: "unbiased" as in
        PyTorch, or "biased".

    Shapes
    ------
    input (N, C, L), or one sample (C, L); the result the same.

    Raises
    ------
    ShapeError
        For another rank or number of channels, and for a single position to take statistics of.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    It takes away what a sample's contrast and brightness are: prefer it for style transfer and
    generation, and batch or group norm where those tell classes apart. With ``affine=True`` it is
    group norm with a group for each channel. The running statistics mix samples that were not
    normalised alike, and training never sees them: leave them out unless a state dict has them.

    PyTorch's oddities are kept, so that state dicts agree: ``num_batches_tracked`` exists and stays
    0, and ``momentum=None`` is no average but a standstill. But channels that are not
    ``num_features`` are refused without γ too, where PyTorch warns, and a batch of no samples
    leaves the running statistics alone, where PyTorch's become NaN.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022, equation 3.
    """

    positions = 1


class InstanceNorm2d(InstanceNorm):
    """Instance normalization of images (N, C, H, W): each channel of each over its pixels.

        y = γ (x - mean) / √(var + ε) + β

    Parameters, modes, errors and notes are those of `InstanceNorm1d`; one image is (C, H, W).

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022, equation 3.
    """

    positions = 2


class InstanceNorm3d(InstanceNorm):
    """Instance normalization of volumes (N, C, D, H, W): each channel of each over its voxels.

        y = γ (x - mean) / √(var + ε) + β

    Parameters, modes, errors and notes are those of `InstanceNorm1d`; one volume is (C, D, H, W).

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022, equation 3.
    """

    positions = 3
