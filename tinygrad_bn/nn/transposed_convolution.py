"""Transposed convolutions with parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.convolution import Convolution
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.transposed_convolution import (
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from tinygrad_bn.ops.windows import numbers
from tinygrad_bn.tensors import Tensor


class TransposedConvolution(Convolution):
    """What transposed convolutions of every rank have in common."""

    function: ClassVar[Callable[..., Tensor]]
    transposed = True
    padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: object = None,
        dtype: Any = None,
        *,
        axis: int = 1,
    ) -> None:
        if padding_mode != "zeros":
            raise ArgumentError(f"expected padding_mode zeros, got {padding_mode!r}")
        more = numbers("output_padding", output_padding, self.axes, 0)
        numbers("padding", padding, self.axes, 0)
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
        self.output_padding = more

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The result; of ``output_size``, with or without samples and channels, where that is given
        instead of `output_padding`.
        """
        return type(self).function(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding if output_size is None else self.missing(input, output_size),
            self.groups,
            self.dilation,
            axis=self.axis,
        )

    def missing(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding with which the result has this size.

        Raises
        ------
        ShapeError
            If the input has other windows than an image of that size.
        """
        require_tensor(input)
        if input.ndim not in (self.axes + 1, self.axes + 2):
            raise ShapeError(
                f"expected an input of rank {self.axes + 2}, or {self.axes + 1} without samples, "
                f"got {input.shape}"
            )
        wanted, last = tuple(output_size), self.axis == -1
        if len(wanted) == input.ndim:
            wanted = wanted[-self.axes - 1 : -1] if last else wanted[-self.axes :]
        have = input.shape[-self.axes - 1 : -1] if last else input.shape[-self.axes :]
        least = tuple(
            (n - 1) * step - 2 * p + d * (k - 1) + 1
            for n, step, p, d, k in zip(
                have, self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        if len(wanted) != self.axes or not all(
            low <= n < low + step for n, low, step in zip(wanted, least, self.stride, strict=True)
        ):
            raise ShapeError(
                f"expected an output_size from {least}, less than {self.stride} beyond it, got "
                f"{tuple(output_size)}"
            )
        return tuple(n - low for n, low in zip(wanted, least, strict=True))


class ConvTranspose1d(TransposedConvolution):
    """Transposed convolution over the axis of (N, C, L); see `ConvTranspose2d`.

    Shapes
    ------
    (N, C, L) -> (N, O, S), or without N; ``weight`` is (C, O/G, K).
    """

    axes = 1
    function = staticmethod(conv_transpose1d)


class ConvTranspose2d(TransposedConvolution):
    """Each value of images (N, C, H, W) times a learned kernel, added up where the kernels lie.

        y[n, o, p·stride + k·dilation - padding] = b[o] + Σ w[c, o, k] x[n, c, p]

    It is what the gradient of a `Conv2d` does with these options, and where that makes images
    smaller, this makes them larger; it does not invert it.

    Parameters
    ----------
    in_channels, out_channels : C and O.
    kernel_size, stride, dilation : how many points a kernel has, how far kernels are apart, and how
        far their points; a number for both axes, or one for each.
    padding : how many positions are left out on each side.
    output_padding : how many positions more there are at the end, below stride or dilation.
    groups : into how many parts the channels are divided.
    bias : whether there is a b.
    padding_mode : "zeros", and no other.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, O, *S) with S = (H - 1)·stride - 2·padding + dilation·(K - 1) +
    output_padding + 1, or without N; with ``axis=-1``, (N, H, W, C) -> (N, *S, O). ``weight`` is
    (C, O/G, *K) in either case. In the call, ``output_size`` asks for a size among those that have
    as many windows.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        For options that mean nothing, when it is made; for an input of another rank or other
        channels, or a size that cannot be, when it is called.

    Notes
    -----
    Weight and bias start as PyTorch's do: uniform within ±1/√(O/G·K).

    References
    ----------
    Dumoulin and Visin 2016, arXiv:1603.07285, section 4.
    """

    axes = 2
    function = staticmethod(conv_transpose2d)


class ConvTranspose3d(TransposedConvolution):
    """Transposed convolution over the three axes of (N, C, D, H, W); see `ConvTranspose2d`.

    Shapes
    ------
    (N, C, D, H, W) -> (N, O, *S), or without N; ``weight`` is (C, O/G, *K).
    """

    axes = 3
    function = staticmethod(conv_transpose3d)
