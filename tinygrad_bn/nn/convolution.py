"""Convolutions with parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from tinygrad_bn.creation import empty
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.module import Module
from tinygrad_bn.ops.convolution import conv1d, conv2d, conv3d
from tinygrad_bn.ops.rearrange import pad
from tinygrad_bn.ops.windows import numbers
from tinygrad_bn.tensors import Parameter, Tensor

MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}
"""Padding modes of a layer, and what `pad` calls them."""


class Convolution(Module):
    """What convolutions of every rank, and transposed ones, have in common."""

    axes: ClassVar[int]
    transposed: bool = False
    """Whether inputs are the first axis of the weight, and outputs the second."""
    output_padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        axis: int,
        device: object,
        dtype: Any,
    ) -> None:
        super().__init__()
        (self.in_channels,) = numbers("in_channels", in_channels, 1, 1)
        (self.out_channels,) = numbers("out_channels", out_channels, 1, 1)
        (self.groups,) = numbers("groups", groups, 1, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ArgumentError(
                f"expected channels that {groups} groups divide, got {in_channels} and "
                f"{out_channels}"
            )
        if padding_mode not in MODES:
            raise ArgumentError(f"expected padding_mode of {', '.join(MODES)}, got {padding_mode}")
        if axis not in (1, -1):
            raise ArgumentError(f"expected the channels at axis 1 or -1, got {axis}")
        self.kernel_size = numbers("kernel_size", kernel_size, self.axes, 1)
        self.stride = numbers("stride", stride, self.axes, 1)
        self.dilation = numbers("dilation", dilation, self.axes, 1)
        self.padding = self.checked_padding(padding)
        self.output_padding = (0,) * self.axes
        self.padding_mode, self.axis = padding_mode, axis
        self.make_parameters(bias, device, dtype)

    def checked_padding(self, padding: Any) -> str | tuple[int, ...]:
        """The padding as numbers, or a word that a forward knows."""
        if not isinstance(padding, str):
            return numbers("padding", padding, self.axes, 0)
        if padding not in ("same", "valid"):
            raise ArgumentError(f"expected padding 'same', 'valid' or numbers, got {padding!r}")
        if padding == "same" and max(self.stride) > 1:
            raise ArgumentError(f"expected stride 1 for padding 'same', got {self.stride}")
        return padding

    def make_parameters(self, bias: bool, device: object, dtype: Any) -> None:
        """Make weight and bias, and draw them."""
        ends = (self.out_channels, self.in_channels)
        first, second = reversed(ends) if self.transposed else ends
        shape = first, second // self.groups, *self.kernel_size
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        self.bias = (
            Parameter(empty(self.out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight)[0])
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        plain = (0,) * self.axes
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        ]
        parts += [f"padding={self.padding}"] if self.padding != plain else []
        parts += [f"dilation={self.dilation}"] if max(self.dilation) > 1 else []
        parts += [f"output_padding={self.output_padding}"] if self.output_padding != plain else []
        parts += [f"groups={self.groups}"] if self.groups > 1 else []
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"padding_mode={self.padding_mode}"] if self.padding_mode != "zeros" else []
        parts += [f"axis={self.axis}"] if self.axis != 1 else []
        return ", ".join(parts)


class Correlation(Convolution):
    """What convolutions of every rank have in common, but not transposed ones."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: object = None,
        dtype: Any = None,
        *,
        axis: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            axis,
            device,
            dtype,
        )

    def widths(self) -> list[int]:
        """What `pad` is to add around the image: after and before each axis, the last one first."""
        widths: list[int] = [0, 0] if self.axis == -1 else []
        for i in reversed(range(self.axes)):
            reach = self.dilation[i] * (self.kernel_size[i] - 1)
            if isinstance(self.padding, str):
                widths += [reach // 2, reach - reach // 2] if self.padding == "same" else [0, 0]
            else:
                widths += [self.padding[i]] * 2
        return widths

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(input, self.widths(), self.padding_mode), 0
        return type(self).function(
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            axis=self.axis,
        )


class Conv1d(Correlation):
    """Convolution over the axis of (N, C, L); see `Conv2d`.

    Shapes
    ------
    (N, C, L) -> (N, O, P), or without N; ``weight`` is (O, C/G, K).
    """

    axes = 1
    function = staticmethod(conv1d)


class Conv2d(Correlation):
    """Convolution of images (N, C, H, W): each window's product with a learned kernel.

        y[n, o, p] = b[o] + Σ w[o, c, k] x[n, c, p·stride + k·dilation - padding]

    Parameters
    ----------
    in_channels, out_channels : C and O.
    kernel_size, stride, dilation : how many points a window has, how far windows are apart, and how
        far their points; a number for both axes, or one for each.
    padding : how much is added on each side; "valid" for nothing, "same" for as many windows as
        positions.
    groups : into how many parts the channels are divided; C of them make it depthwise.
    bias : whether there is a b.
    padding_mode : what is added: "zeros", "reflect" (mirrored), "replicate" (the border) or
        "circular" (from the other end).
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, O, *P), or without N; with ``axis=-1``, (N, H, W, C) -> (N, *P, O).
    ``weight`` is (O, C/G, *K) in either case.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        For options that mean nothing, when it is made; for an input of another rank, other channels
        or smaller than a window, when it is called.

    Notes
    -----
    Weight and bias start as PyTorch's do: uniform within ±1/√(C/G·K). Before a batch norm, which
    takes the mean away, a bias does nothing: use ``bias=False``. After training
    `nn.utils.fold_batch_norm` makes that norm part of the convolution.

    References
    ----------
    Dumoulin and Visin 2016, arXiv:1603.07285, for the arithmetic of sizes.
    """

    axes = 2
    function = staticmethod(conv2d)


class Conv3d(Correlation):
    """Convolution over the three axes of (N, C, D, H, W); see `Conv2d`.

    Shapes
    ------
    (N, C, D, H, W) -> (N, O, *P), or without N; ``weight`` is (O, C/G, *K).
    """

    axes = 3
    function = staticmethod(conv3d)
