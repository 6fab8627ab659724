"""Filter response normalization, and the activation that goes with it."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn import creation
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.elementwise import maximum
from tinygrad_bn.ops.filter_response import FilterResponse
from tinygrad_bn.ops.norm_arguments import require_channels, require_floats
from tinygrad_bn.tensors import Parameter, Tensor

LEARNED = 1e-4
"""What ε_l begins with."""


class FilterResponseNorm(Normalization):
    """Filter response normalization: each channel of each sample over its positions, by the mean
    square around zero; the same in training and in evaluation.

        y = γ x / √(ν² + ε) + β,    ν² = mean of x² over the positions

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the mean square.
    affine : whether γ (``weight``) and β (``bias``), (C,) each, exist and are learned.
    learnable_eps : whether |ε_l| with a learned number ε_l (``eps_l``, 1e-4 to begin with) is added
        to ε.
    bias : whether β exists, where γ does.

    Shapes
    ------
    input (N, C, *S), or (N, C) with a learned ε; the result the same.

    Raises
    ------
    ShapeError
        For another number of channels, and for a rank below 3 without a learned ε, which would
        leave hardly more than the sign of x.
    ArgumentError
        For an ε that is not positive.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    It needs neither a batch nor other channels: prefer it to group norm for images in small
    batches, where the number of channels suits no groups. It takes no mean away, so that `TLU`,
    whose threshold is learned, should follow it in the place of ReLU; and it wants a learning rate
    that warms up. Where maps shrink to 1×1, learn ε. The mean square is accumulated in float64.

    References
    ----------
    Singh and Krishnan 2019, arXiv:1911.09737, section 3.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        affine: bool = True,
        learnable_eps: bool = False,
        device: object = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not eps > 0:
            raise ArgumentError(f"expected eps > 0, got {eps}")
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        self.make_affine((num_features,), affine, affine and bias, device, dtype)
        self.eps_l: Parameter | None = None
        if learnable_eps:
            self.eps_l = Parameter(creation.full((1,), LEARNED, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Set γ to 1, β to 0 and ε_l to where it begins."""
        super().reset_parameters()
        if self.eps_l is not None:
            self.eps_l.detach().fill_(LEARNED)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, *S)."""
        require_floats(input)
        least = 3 if self.eps_l is None else 2
        if input.ndim < least or input.shape[1] != self.num_features:
            layout = f"(N, {self.num_features}, *S) of rank {least} or more"
            remedy = "" if least == 2 or input.ndim != 2 else "; learnable_eps=True takes rank 2"
            raise ShapeError(f"expected {layout}, got {input.shape}{remedy}")
        require_channels(input, self.num_features, weight=self.weight, bias=self.bias)
        rows = (input.shape[0], self.num_features, 1, math.prod(input.shape[2:]))
        return FilterResponse.apply(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.eps_l, rows=rows, eps=self.eps
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, "
            f"learnable_eps={self.eps_l is not None}, bias={self.bias is not None}"
        )


class TLU(Module):
    """Thresholded linear unit: ReLU with a learned threshold for each channel.

        z = max(y, τ)

    Parameters
    ----------
    num_features : the number of channels C.

    Shapes
    ------
    input (N, C, *S); the result the same. τ (``tau``) is (C,), and begins as 0, which is ReLU.

    Raises
    ------
    ShapeError
        For another number of channels.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    Made to follow `FilterResponseNorm`, whose outputs may lie all on one side of zero. Where y is
    equal to τ, each gets half of the gradient.

    References
    ----------
    Singh and Krishnan 2019, arXiv:1911.09737, section 3.
    """

    def __init__(self, num_features: int, device: object = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_features = num_features
        self.tau = Parameter(creation.zeros(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Set τ to 0."""
        self.tau.detach().fill_(0.0)

    def forward(self, input: Tensor) -> Tensor:
        """The greater of (N, C, *S) and τ."""
        require_floats(input)
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ShapeError(f"expected (N, {self.num_features}, *S), got {input.shape}")
        require_channels(input, self.num_features, tau=self.tau)
        tau = self.tau.to(input.dtype).reshape(-1, *[1] * (input.ndim - 2))
        return maximum(input, tau)

    def extra_repr(self) -> str:
        return str(self.num_features)
