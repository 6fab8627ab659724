"""Layer normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.row_normalization import layer_norm
from tinygrad_bn.ops.shape import as_shape
from tinygrad_bn.tensors import Tensor


class LayerNorm(Normalization):
    """Layer normalization: each sample over its trailing axes, the same in training and evaluation.

        y = γ (x - mean) / √(var + ε) + β

    Parameters
    ----------
    normalized_shape : the trailing axes to normalise over, all of them together.
    eps : ε, added to the biased variance.
    elementwise_affine : whether γ (``weight``) and β (``bias``), of that shape, exist and are
        learned.
    bias : whether β exists, where γ does.

    Shapes
    ------
    input (*, *normalized_shape); the result the same.

    Raises
    ------
    ShapeError
        If the input does not end in ``normalized_shape``.
    DtypeError
        If it is not of floats.

    Notes
    -----
    It needs no batch and no running statistics: prefer it for sequences, for recurrent networks and
    transformers, and for batches of few samples. RMS norm does without the mean and is cheaper;
    group norm keeps channels of images apart. It departs from PyTorch in precision: statistics are
    accumulated in float64, and a constant sample gives exactly β.

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
        self.normalized_shape = as_shape((normalized_shape,))
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
