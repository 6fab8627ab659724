"""Normalization by the root of the mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.nn.normalization.base import Normalization
from tinygrad_bn.ops.row_normalization import rms_norm
from tinygrad_bn.ops.shape import as_shape
from tinygrad_bn.tensors import Tensor


class RMSNorm(Normalization):
    """RMS normalization: each sample over its trailing axes, the same in training and evaluation.

        y = γ x / √(mean(x²) + ε)

    Parameters
    ----------
    normalized_shape : the trailing axes to normalise over, all of them together.
    eps : ε, added to the mean square. By default it follows the input: 2⁻⁵² for float64, and 2⁻²³
        for float32 and 16 bits, whose mean square is computed wider than they are.
    elementwise_affine : whether γ (``weight``), of that shape, exists and is learned.

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
    Layer norm without the mean: it does not care about the scale of its input, but does about a
    shift. Prefer it in transformers, where it trains as well for less; prefer layer norm where the
    mean of a sample means nothing. PyTorch's default ε is the same.

    References
    ----------
    Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """

    def __init__(
        self,
        normalized_shape: Sequence[int] | int,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = as_shape((normalized_shape,))
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.make_affine(self.normalized_shape, elementwise_affine, False, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (*, *normalized_shape)."""
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
