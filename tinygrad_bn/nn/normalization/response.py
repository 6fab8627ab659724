"""Local response normalization."""

from __future__ import annotations

from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.response_normalization import local_response_norm
from tinygrad_bn.tensors import Tensor


class LocalResponseNorm(Module):
    """Local response normalization of (N, C, *S): each value over those of neighbouring channels at
    its position; the same in training and in evaluation. Nothing is learned.

        y = x / (k + α/n Σ x²)^β, with the sum over n neighbouring channels

    Parameters
    ----------
    size : n, the channels of a window: n // 2 before and (n - 1) // 2 after its own; those that do
        not exist count as 0.
    alpha : α.
    beta : β.
    k : what the sum of squares is added to.

    Shapes
    ------
    input (N, C, *S) with at least one axis of positions; the result the same.

    Raises
    ------
    ShapeError
        For a rank below 3.
    ArgumentError
        For a size below 1.
    DtypeError
        If the input is not of floats.

    Notes
    -----
    Channels compete: a strong response weakens its neighbours', which have no order but the one
    they learn from this. AlexNet has n = 5, k = 2, α = 5 · 10⁻⁴ in these terms, and β = 0.75.
    Prefer it only to rebuild networks of that time; batch norm trains better. As PyTorch, and
    unlike the paper, it divides α by n.

    References
    ----------
    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.3.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, *S)."""
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
