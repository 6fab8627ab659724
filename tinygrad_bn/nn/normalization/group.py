"""Group normalization."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.row_normalization import group_norm, require_groups
from tinygrad_bn.tensors import Tensor


class GroupNorm(Normalization):
    """Group normalization of (N, C, *S): each sample by itself, over groups of successive channels
    and all positions; the same in training and in evaluation.

        y = γ (x - mean) / √(var + ε) + β

    Parameters
    ----------
    num_groups : how many groups the channels make; 1 takes all of them together, C each alone.
    num_channels : the number of channels C, which the groups must divide.
    eps : ε, added to the biased variance.
    affine : whether γ (``weight``) and β (``bias``), (C,) each, exist and are learned.
    bias : whether β exists, where γ does.

    Shapes
    ------
    input (N, C) or (N, C, *S); the result the same.

    Raises
    ------
    ShapeError
        For channels that the groups do not divide, and for an input with another number of them.
    ArgumentError
        For fewer than one group.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    Prefer it to batch norm for images and volumes in batches of fewer than some 16 samples, such as
    detection and segmentation need: its error does not depend on the batch. Groups of 16 channels,
    or 32 groups, are what the paper finds best. With one group it is layer norm over (C, *S), with
    γ and β a channel; with C groups it is instance norm. A group of a single value gives exactly β,
    where PyTorch refuses a batch of one such sample and takes larger ones.

    References
    ----------
    Wu and He 2018, arXiv:1803.08494, equations 1 to 7.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_groups(num_groups, num_channels)
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.make_affine((num_channels,), affine, affine and bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, *S)."""
        require_floats(input)
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ShapeError(f"expected (N, {self.num_channels}, *S), got {input.shape}")
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
