"""Normalization to a learned length."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.response_normalization import normalize
from tinygrad_bn.tensors import Parameter, Tensor


class ScaleNorm(Normalization):
    """Scale normalization: vectors along the last axis, all brought to one learned length; the same
    in training and in evaluation.

        y = g x / max(‖x‖₂, ε)

    Parameters
    ----------
    num_features : d, the size of the last axis.
    eps : ε, the least length that is divided by.

    Shapes
    ------
    input (*, d); the result the same. g (``weight``) is a single number, √d to begin with.

    Raises
    ------
    ShapeError
        For another size of the last axis.
    ArgumentError
        For an ε below 0.
    DtypeError
        For an input that is not of floats.

    Notes
    -----
    RMS norm with one number for all γ: at √d the two agree, but for ε. Prefer it in transformers
    that translate with little data, together with normalised embeddings; elsewhere RMS norm, whose
    γ may weigh the features. Zero stays zero.

    References
    ----------
    Nguyen and Salazar 2019, arXiv:1910.05895.
    """

    weight: Parameter

    def __init__(
        self, num_features: int, eps: float = 1e-5, device: object = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.make_affine((), True, False, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set g to √d."""
        self.weight.detach().fill_(math.sqrt(self.num_features))

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (*, d)."""
        require_floats(input)
        if input.shape[-1:] != (self.num_features,):
            raise ShapeError(f"expected (*, {self.num_features}), got {input.shape}")
        y = normalize(at_least_float32(input), 2.0, -1, self.eps) * self.weight
        return y.to(input.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"
