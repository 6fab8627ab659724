"""Dropout: training with a random part of the activations left out.

``inplace``, which PyTorch's have, is accepted and has no effect: the result is the same.
"""

from __future__ import annotations

import math

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.activation import require_floats
from tinygrad_bn.ops.thinning import thinned
from tinygrad_bn.random import Generator, bernoulli
from tinygrad_bn.tensors import Tensor

SATURATION = -1.7580993408473766
"""What SELU tends to as x falls: -λα."""


def require_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ArgumentError(f"expected a probability p within [0, 1], got {p}")


def ready(input: Tensor, p: float) -> None:
    require_floats(input, "dropout")
    require_probability(p)


def kept(input: Tensor, p: float, generator: Generator | None) -> Tensor:
    """One where an element stays, with probability 1 - p, and zero where it goes.

    Drawn outside of the operation that uses it, so that gradients of every order see the same mask.
    """
    return bernoulli(input.detach(), 1 - p, generator=generator)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Set each element to zero with probability p, and divide the others by 1 - p.

    The input itself if it is not ``training`` or p is 0.

    References
    ----------
    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    ready(input, p)
    if not training or p == 0:
        return input
    return thinned(input, 1 - p, generator)


def dropped_channels(
    axes: int, input: Tensor, p: float, training: bool, generator: Generator | None
) -> Tensor:
    """Dropout of whole channels of an image over so many axes, with or without samples."""
    ready(input, p)
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"expected an input of rank {axes + 2}, or {axes + 1} without samples, "
            f"got {input.shape}"
        )
    if not training or p == 0:
        return input
    channels = input.detach().new_zeros((*input.shape[:-axes], *(1,) * axes))
    return input * (kept(channels, p, generator) * (0.0 if p == 1 else 1 / (1 - p)))


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """`dropout2d` of (N, C, L), or of (C, L)."""
    return dropped_channels(1, input, p, training, generator)


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Set each channel of each image (N, C, H, W), or (C, H, W), to zero with probability p, and
    divide the others by 1 - p: neighbours in a channel say much the same, so that single elements
    left out would be no loss.

    The input itself if it is not ``training`` or p is 0.

    References
    ----------
    Tompson et al. 2015, arXiv:1411.4280, section 3.2.
    """
    return dropped_channels(2, input, p, training, generator)


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """`dropout2d` of (N, C, D, H, W), or of (C, D, H, W)."""
    return dropped_channels(3, input, p, training, generator)


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Set each element to SELU's saturation with probability p; standardised inputs stay so.

    References
    ----------
    Klambauer et al. 2017, arXiv:1706.02515, section 3.
    """
    ready(input, p)
    if not training or p == 0:
        return input
    mask = kept(input, p, generator)
    if p == 1:
        return input * mask
    scale = 1 / math.sqrt((1 - p) * (1 + p * SATURATION**2))
    return input * (mask * scale) + ((1 - mask) * SATURATION - p * SATURATION) * scale


class Dropout(Module):
    """Dropout while training; the identity in evaluation.

    Parameters
    ----------
    p : the probability of an element to be set to zero; the others are divided by 1 - p.
    generator : where the masks are drawn; the default generator if none.
    """

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None
    ) -> None:
        super().__init__()
        require_probability(p)
        self.p, self.generator = p, generator

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class AlphaDropout(Dropout):
    """Dropout for networks of SELU units, which keeps mean and variance; see `alpha_dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training, generator=self.generator)


class Dropout1d(Dropout):
    """Dropout of whole channels of (N, C, L), or of (C, L), while training; see `Dropout2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout1d(input, self.p, self.training, generator=self.generator)


class Dropout2d(Dropout):
    """Dropout of whole channels of images while training; the identity in evaluation.

    Parameters
    ----------
    p : the probability of a channel to be set to zero; the others are divided by 1 - p.
    generator : where the masks are drawn; the default generator if none.

    Shapes
    ------
    (N, C, H, W), or (C, H, W); the result as the input.

    References
    ----------
    Tompson et al. 2015, arXiv:1411.4280, section 3.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return dropout2d(input, self.p, self.training, generator=self.generator)


class Dropout3d(Dropout):
    """Dropout of whole channels of (N, C, D, H, W), or of (C, D, H, W); see `Dropout2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout3d(input, self.p, self.training, generator=self.generator)
