"""Layer normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.row_normalization import layer_norm
from tinygrad_bn.tensors import Tensor


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
