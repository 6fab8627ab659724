"""Pooling layers."""

from __future__ import annotations

from typing import Any, ClassVar

from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops import pooling
from tinygrad_bn.ops.spans import require_padding
from tinygrad_bn.ops.windows import numbers
from tinygrad_bn.tensors import Tensor


class AveragePool(Module):
    """What averages over windows of every rank have in common."""

    axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        axis: int = 1,
    ) -> None:
        super().__init__()
        kernel = numbers("kernel_size", kernel_size, self.axes, 1)
        numbers("stride", kernel if stride is None else stride, self.axes, 1)
        require_padding(numbers("padding", padding, self.axes, 0), kernel)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override
        self.axis = axis

    def forward(self, input: Tensor) -> Tensor:
        return pooling.average_pool(
            self.axes,
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            self.axis,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool(Module):
    """What maxima of windows of every rank have in common."""

    axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        axis: int = 1,
    ) -> None:
        super().__init__()
        kernel = numbers("kernel_size", kernel_size, self.axes, 1)
        apart = numbers("dilation", dilation, self.axes, 1)
        numbers("stride", kernel if stride is None else stride, self.axes, 1)
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, apart, strict=True))
        require_padding(numbers("padding", padding, self.axes, 0), reach)
        self.kernel_size, self.dilation = kernel_size, dilation
        self.stride = kernel_size if stride is None else stride
        self.padding, self.return_indices, self.ceil_mode = padding, return_indices, ceil_mode
        self.axis = axis

    def forward(self, input: Tensor) -> Any:
        return pooling.max_pool(
            self.axes,
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            self.axis,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AdaptiveAveragePool(Module):
    """What means of parts have in common."""

    axes: ClassVar[int]

    def __init__(self, output_size: Any, *, axis: int = 1) -> None:
        super().__init__()
        self.output_size, self.axis = output_size, axis

    def forward(self, input: Tensor) -> Tensor:
        return pooling.adaptive_average_pool(self.axes, input, self.output_size, self.axis)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool(Module):
    """What maxima of parts have in common."""

    axes: ClassVar[int]

    def __init__(self, output_size: Any, return_indices: bool = False, *, axis: int = 1) -> None:
        super().__init__()
        self.output_size, self.return_indices, self.axis = output_size, return_indices, axis

    def forward(self, input: Tensor) -> Any:
        return pooling.adaptive_max_pool(
            self.axes, input, self.output_size, self.return_indices, self.axis
        )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AvgPool1d(AveragePool):
    """The mean of every window of (N, C, L); see `AvgPool2d`."""

    axes = 1

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        axis: int = 1,
    ) -> None:
        kernel = numbers("kernel_size", kernel_size, 1, 1)
        steps = kernel if stride is None else numbers("stride", stride, 1, 1)
        more = numbers("padding", padding, 1, 0)
        super().__init__(kernel, steps, more, ceil_mode, count_include_pad, axis=axis)


class AvgPool2d(AveragePool):
    """The mean of every window of images (N, C, H, W).

    Parameters
    ----------
    kernel_size, stride : how many positions a window has, and how far windows are apart, by default
        as many; a number for both axes, or one for each.
    padding : how many zeros stand around the image; at most half a window.
    ceil_mode : whether there is a last window that begins inside but ends beyond the padding.
    count_include_pad : whether zeros of the padding count for the mean.
    divisor_override : what sums are divided by instead.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *P), or without N.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        For options that mean nothing, when it is made; for an input of another rank, or smaller
        than a window, when it is called.
    """

    axes = 2


class AvgPool3d(AveragePool):
    """The mean of every window of (N, C, D, H, W); see `AvgPool2d`."""

    axes = 3


class MaxPool1d(MaxPool):
    """The greatest value of every window of (N, C, L); see `MaxPool2d`."""

    axes = 1


class MaxPool2d(MaxPool):
    """The greatest value of every window of images (N, C, H, W).

    Parameters
    ----------
    kernel_size, stride : how many points a window has, and how far windows are apart, by default as
        many; a number for both axes, or one for each.
    padding : how far windows may begin before the image, at most by half a window.
    dilation : how far the points of a window are apart.
    return_indices : whether to return also where the greatest values were, as numbers in the C
        order of the image.
    ceil_mode : whether there is a last window that begins inside but ends beyond the padding.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *P), or without N.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        For options that mean nothing, when it is made; for an input of another rank, or smaller
        than a window, when it is called.

    Notes
    -----
    Of equal values the first is taken, and it alone has the gradient. NaN counts as greatest.
    """

    axes = 2


class MaxPool3d(MaxPool):
    """The greatest value of every window of (N, C, D, H, W); see `MaxPool2d`."""

    axes = 3


class AdaptiveAvgPool1d(AdaptiveAveragePool):
    """The means of parts of (N, C, L); see `AdaptiveAvgPool2d`."""

    axes = 1


class AdaptiveAvgPool2d(AdaptiveAveragePool):
    """The mean of each of so many parts of images (N, C, H, W); of 1, the mean of each channel.

    Part i of P along an axis of n goes from ⌊i n / P⌋ to ⌈(i + 1) n / P⌉.

    Parameters
    ----------
    output_size : how many parts; a number for both axes, or one for each; None for as many as there
        are positions.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *output_size), or without N.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        When it is called, for another rank, an axis without positions, or sizes that are none.
    """

    axes = 2


class AdaptiveAvgPool3d(AdaptiveAveragePool):
    """The means of parts of (N, C, D, H, W); see `AdaptiveAvgPool2d`."""

    axes = 3


class AdaptiveMaxPool1d(AdaptiveMaxPool):
    """The greatest values of parts of (N, C, L); see `AdaptiveMaxPool2d`."""

    axes = 1


class AdaptiveMaxPool2d(AdaptiveMaxPool):
    """The greatest value of each of so many parts of images (N, C, H, W), as `AdaptiveAvgPool2d`
    has them.

    Parameters
    ----------
    output_size : how many parts; a number for both axes, or one for each; None for as many as there
        are positions.
    return_indices : whether to return also where the greatest values were, as numbers in the C
        order of the image.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *output_size), or without N.
    """

    axes = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool):
    """The greatest values of parts of (N, C, D, H, W); see `AdaptiveMaxPool2d`."""

    axes = 3
