"""Transposed convolution: the gradient of a convolution, as an operation of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.convolution import (
    Spread,
    batch_of,
    require_fit,
    require_groups,
    require_operands,
)
from tinygrad_bn.ops.rearrange import pad
from tinygrad_bn.ops.windows import Windows, numbers
from tinygrad_bn.ops.wiring import Wiring

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def transposed_convolution(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    axis: int,
) -> Tensor:
    """Transposed convolution over so many axes; see `conv_transpose2d`."""
    require_operands(input, weight, axes, axis)
    steps, apart = numbers("stride", stride, axes, 1), numbers("dilation", dilation, axes, 1)
    fewer = numbers("padding", padding, axes, 0)
    more = numbers("output_padding", output_padding, axes, 0)
    if any(n >= max(s, d) for n, s, d in zip(more, steps, apart, strict=True)):
        raise ArgumentError(
            f"expected output_padding below stride or dilation, got {more}, {steps} and {apart}"
        )
    groups = require_groups(groups, weight)
    x, channels, count = batch_of(input, axes, axis)
    require_fit(input, channels, weight.shape[0], bias, weight.shape[1] * groups, groups)
    if not min(count):
        raise ShapeError(f"expected an input with positions, got {input.shape}")
    # what more than the stride would make room for another window: it comes out of the padding
    taken = [n if n >= step else 0 for n, step in zip(more, steps, strict=True)]
    ends = tuple((p, max(p - n, 0)) for p, n in zip(fewer, taken, strict=True))
    beyond = [max(n - p, 0) for p, n in zip(fewer, taken, strict=True)]
    windows = Windows(weight.shape[2:], steps, apart, ends)
    size = tuple(
        (n - 1) * step + reach - 2 * p + add - zeros
        for n, step, reach, p, add, zeros in zip(
            count, steps, windows.reach, fewer, more, beyond, strict=True
        )
    )
    if min(size) < 1:
        raise ShapeError(
            f"expected a result of a size ≥ 1, got {size} from an input {input.shape} and padding "
            f"{fewer}"
        )
    wiring = Wiring(windows, size, groups, axis == -1)
    if any(beyond):
        y = with_border(Spread.apply(x, weight, None, wiring=wiring), bias, beyond, axis)
    else:
        y = Spread.apply(x, weight, bias, wiring=wiring)
    return y if x is input else y.squeeze(0)


def with_border(x: Tensor, bias: Tensor | None, widths: list[int], axis: int) -> Tensor:
    """x with zeros at the end of its axes, where no window lies, and then with the bias."""
    after = [n for width in reversed(widths) for n in (0, width)]
    y = pad(x, after if axis == 1 else [0, 0, *after])
    if bias is None:
        return y
    return y + (bias if axis == -1 else bias.reshape(-1, *(1 for _ in widths)))


@under_autocast
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """`conv_transpose2d` of (N, C, L) with a weight (C, O/G, K)."""
    return transposed_convolution(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, axis
    )


@under_autocast
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """Each value of an image times a kernel, added up where the kernels lie: what the gradient of a
    convolution with this weight makes of the gradient of its result.

        y[n, o, p·stride + k·dilation - padding] = b[o] + Σ w[c, o, k] x[n, c, p]

    Gradients exist to every order.

    Parameters
    ----------
    stride, dilation : how far kernels, and the points of one, are apart; a number for both axes, or
        one for each.
    padding : how many positions are left out on each side.
    output_padding : how many positions more there are at the end, below stride or dilation: several
        sizes have as many windows.
    groups : into how many parts the channels are divided.
    axis : where the channels are: 1, or -1 for channels last, in the input and in the result.

    Shapes
    ------
    input (N, C, H, W), weight (C, O/G, *K), bias (O,) -> (N, O, *S) with
    S = (H - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1; or without N.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For another rank, other channels or groups, or padding that leaves nothing.
    """
    return transposed_convolution(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, axis
    )


@under_autocast
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    axis: int = 1,
) -> Tensor:
    """`conv_transpose2d` of (N, C, D, H, W) with a weight (C, O/G, *K)."""
    return transposed_convolution(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, axis
    )
