"""Pooling: the mean, or the greatest, of each window of an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.max_pooling import MaxPool
from tinygrad_bn.ops.mixing import Mix, Table
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.spans import (
    Spans,
    means_of_parts,
    means_of_windows,
    parts_asked_for,
    require_padding,
    spans_of_parts,
    spans_of_windows,
    sums_of_windows,
)
from tinygrad_bn.ops.windows import numbers

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


def image_size(input: Any, axes: int, axis: int) -> tuple[int, ...]:
    """The size of images over so many axes, with or without an axis of samples.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If the input is none.
    """
    require_floats(input)
    if axis not in (1, -1):
        raise ArgumentError(f"expected the channels at axis 1 or -1, got {axis}")
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"expected an input of rank {axes + 2}, or {axes + 1} without samples, "
            f"got {input.shape}"
        )
    shape: tuple[int, ...] = input.shape
    return shape[-axes:] if axis == 1 else shape[-axes - 1 : -1]


def averaged(input: Tensor, tables: list[Table], axis: int) -> Tensor:
    """The input by a table for each of its positions' axes."""
    first = input.ndim - len(tables) - (axis == -1)
    return Mix.apply(input, tables=tuple((first + i, t) for i, t in enumerate(tables)))  # type: ignore[no-any-return]


def greatest(
    input: Tensor, spans: tuple[Spans, ...], axis: int, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest of windows with these positions along each axis, and perhaps its place."""
    x = input if axis == 1 else input.movedim(-1, -len(spans) - 1)
    leading = x.shape[: -len(spans)]
    flat = x.reshape(math.prod(leading), *x.shape[-len(spans) :])
    found = [y.reshape(*leading, *y.shape[1:]) for y in MaxPool.apply(flat, spans=spans)]
    y, indices = (y if axis == 1 else y.movedim(-len(spans) - 1, -1) for y in found)
    return (y, indices) if return_indices else y


def average_pool(
    axes: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    axis: int,
) -> Tensor:
    """The mean of windows over so many axes; see `avg_pool2d`."""
    size = image_size(input, axes, axis)
    kernel = numbers("kernel_size", kernel_size, axes, 1)
    steps = kernel if stride in (None, ()) else numbers("stride", stride, axes, 1)
    more = numbers("padding", padding, axes, 0)
    require_padding(more, kernel)
    places = [*zip(size, kernel, steps, more, strict=True)]
    if divisor_override is None:
        tables = [means_of_windows(*each, ceil_mode, count_include_pad) for each in places]
    else:
        (divisor,) = numbers("divisor_override", divisor_override, 1, -(2**63))
        if not divisor:
            raise ArgumentError("expected a divisor_override other than 0")
        tables = [sums_of_windows(*each, ceil_mode, 1) for each in places[:-1]]
        tables.append(sums_of_windows(*places[-1], ceil_mode, divisor))
    return averaged(input, tables, axis)


def max_pool(
    axes: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
    axis: int,
) -> Any:
    """The greatest of windows over so many axes; see `max_pool2d`."""
    size = image_size(input, axes, axis)
    kernel = numbers("kernel_size", kernel_size, axes, 1)
    steps = kernel if stride in (None, ()) else numbers("stride", stride, axes, 1)
    more = numbers("padding", padding, axes, 0)
    apart = numbers("dilation", dilation, axes, 1)
    require_padding(more, tuple(d * (k - 1) + 1 for k, d in zip(kernel, apart, strict=True)))
    places = zip(size, kernel, steps, more, apart, strict=True)
    spans = tuple(spans_of_windows(*each, ceil_mode) for each in places)
    return greatest(input, spans, axis, return_indices)


def adaptive_average_pool(axes: int, input: Tensor, output_size: Any, axis: int) -> Tensor:
    """The mean of parts of so many axes; see `adaptive_avg_pool2d`."""
    size = image_size(input, axes, axis)
    parts = parts_asked_for(output_size, size)
    tables = [means_of_parts(n, m) for n, m in zip(size, parts, strict=True)]
    return averaged(input, tables, axis)


def adaptive_max_pool(
    axes: int, input: Tensor, output_size: Any, return_indices: bool, axis: int
) -> Any:
    """The greatest of parts of so many axes; see `adaptive_max_pool2d`."""
    size = image_size(input, axes, axis)
    parts = parts_asked_for(output_size, size)
    spans = tuple(spans_of_parts(n, m) for n, m in zip(size, parts, strict=True))
    return greatest(input, spans, axis, return_indices)


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    axis: int = 1,
) -> Tensor:
    """The mean of every window of (N, C, L); see `avg_pool2d`."""
    return average_pool(
        1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, axis
    )


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    axis: int = 1,
) -> Tensor:
    """The mean of every window of an image.

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
    ShapeError, DtypeError, ArgumentError
        For another rank, options that mean nothing, or no window that fits.

    Notes
    -----
    The mean is taken along one axis after the other.
    """
    return average_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, axis
    )


@under_autocast
def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    axis: int = 1,
) -> Tensor:
    """The mean of every window of (N, C, D, H, W); see `avg_pool2d`."""
    return average_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, axis
    )


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    axis: int = 1,
) -> Any:
    """The greatest value of every window of (N, C, L); see `max_pool2d`."""
    return max_pool(
        1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, axis
    )


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    axis: int = 1,
) -> Any:
    """The greatest value of every window of an image.

    Parameters
    ----------
    kernel_size, stride : how many points a window has, and how far windows are apart, by default as
        many; a number for both axes, or one for each.
    padding : how far windows may begin before the image, at most by half a window; what is there is
        never the greatest.
    dilation : how far the points of a window are apart.
    ceil_mode : whether there is a last window that begins inside but ends beyond the padding.
    return_indices : whether to return also where the greatest values were, as numbers in the C
        order of the image, int64.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *P), or without N.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For another rank, options that mean nothing, no window that fits, or one without positions.

    Notes
    -----
    Of equal values the first is taken, and it alone has the gradient. NaN counts as greatest.
    """
    return max_pool(
        2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, axis
    )


def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    axis: int = 1,
) -> Any:
    """The greatest value of every window of (N, C, D, H, W); see `max_pool2d`."""
    return max_pool(
        3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, axis
    )


def adaptive_avg_pool1d(input: Tensor, output_size: Any, *, axis: int = 1) -> Tensor:
    """The means of parts of (N, C, L); see `adaptive_avg_pool2d`."""
    return adaptive_average_pool(1, input, output_size, axis)


def adaptive_avg_pool2d(input: Tensor, output_size: Any, *, axis: int = 1) -> Tensor:
    """The mean of each of so many parts of an image, which overlap where they must.

    Part i of P along an axis of n goes from ⌊i n / P⌋ to ⌈(i + 1) n / P⌉.

    Parameters
    ----------
    output_size : how many parts; a number for both axes, or one for each; None for as many as there
        are positions. 1 is the mean of the whole image.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, H, W) -> (N, C, *output_size), or without N.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For another rank, an axis without positions, or sizes that are none.
    """
    return adaptive_average_pool(2, input, output_size, axis)


def adaptive_avg_pool3d(input: Tensor, output_size: Any, *, axis: int = 1) -> Tensor:
    """The means of parts of (N, C, D, H, W); see `adaptive_avg_pool2d`."""
    return adaptive_average_pool(3, input, output_size, axis)


def adaptive_max_pool1d(
    input: Tensor, output_size: Any, return_indices: bool = False, *, axis: int = 1
) -> Any:
    """The greatest values of parts of (N, C, L); see `adaptive_max_pool2d`."""
    return adaptive_max_pool(1, input, output_size, return_indices, axis)


def adaptive_max_pool2d(
    input: Tensor, output_size: Any, return_indices: bool = False, *, axis: int = 1
) -> Any:
    """The greatest value of each of so many parts of an image, which overlap where they must.

    The parts are those of `adaptive_avg_pool2d`; the rest is as in `max_pool2d`.
    """
    return adaptive_max_pool(2, input, output_size, return_indices, axis)


def adaptive_max_pool3d(
    input: Tensor, output_size: Any, return_indices: bool = False, *, axis: int = 1
) -> Any:
    """The greatest values of parts of (N, C, D, H, W); see `adaptive_max_pool2d`."""
    return adaptive_max_pool(3, input, output_size, return_indices, axis)
