"""Layers that change the size of images, or lay their windows out."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.resampling import interpolate, pixel_shuffle, pixel_unshuffle
from tinygrad_bn.ops.unfolding import fold, unfold
from tinygrad_bn.ops.windows import numbers
from tinygrad_bn.tensors import Tensor


class Upsample(Module):
    """Images of another size; see `functional.interpolate`, which has the same options.

    Parameters
    ----------
    size : of the result; a number for all axes, or one for each.
    scale_factor : how much larger it is instead, rounded down.
    mode : "nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic" or "area".
    align_corners : whether the first and last pixels fall onto each other, and not their outer
        edges.
    recompute_scale_factor : whether places are found by the ratio of sizes.

    Shapes
    ------
    (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> (N, C, *size).
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Any = tuple(map(float, scale_factor))
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class PixelShuffle(Module):
    """Channels as pixels: (*, C·r², H, W) -> (*, C, H·r, W·r).

    Parameters
    ----------
    upscale_factor : r.

    References
    ----------
    Shi et al. 2016, arXiv:1609.05158, equation 4.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        (self.upscale_factor,) = numbers("upscale_factor", upscale_factor, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels as channels: (*, C, H·r, W·r) -> (*, C·r², H, W).

    Parameters
    ----------
    downscale_factor : r.
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        (self.downscale_factor,) = numbers("downscale_factor", downscale_factor, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class Unfold(Module):
    """The windows of images side by side: (N, C, H, W) -> (N, C·K, P), or both without N.

    Parameters
    ----------
    kernel_size, dilation, padding, stride : as of a `Conv2d`.
    """

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Unfold):
    """The sums of windows where they lie in images: (N, C·K, P) -> (N, C, *output_size), or both
    without N. It is the transpose of `Unfold`, not its inverse.

    Parameters
    ----------
    output_size : the size of the images.
    kernel_size, dilation, padding, stride : as of a `Conv2d`.
    """

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"
