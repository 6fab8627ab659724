"""The phases that lay windows out side by side and add them up again, as kernel points.

``unfolded`` reads x (N, C, *S) and gives (C·K, N·P): for each channel and each of the K points of a
window a row, with a column for each of the P windows of each sample. Convolution is a matrix
product with it. ``folded`` is its transpose, and so each is the gradient of the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.windows import Windows, numbers, on_both_sides, require_room

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["fold", "unfold"]


@kernel_point
def unfolded(backend: Backend, x: Array, windows: Windows) -> Array:
    """The windows of x (N, C, *S) as columns (C·K, N·P)."""
    xp, (n, channels, *size) = backend.xp, x.shape
    count = windows.count(size)
    if any(a or b for a, b in windows.padding):
        x = xp.pad(x, ((0, 0), (0, 0), *windows.padding), mode="constant", constant_values=0)
    x = xp.transpose(x, (1, 0, *range(2, 2 + len(size))))
    points = [x[(..., *places)] for places in windows.offsets(count)]
    return xp.reshape(xp.stack(points, axis=1), (channels * windows.points, n * math.prod(count)))


@kernel_point
def folded(backend: Backend, columns: Array, windows: Windows, shape: tuple[int, ...]) -> Array:
    """The sums of columns (C·K, N·P) at the positions of an image of ``shape`` (N, C, *S)."""
    xp, (n, channels, *size) = backend.xp, shape
    count = windows.count(size)
    points = xp.reshape(columns, (channels, windows.points, n, *count))
    whole = (channels, n, *windows.padded(size))
    total = xp.zeros(whole, dtype=columns.dtype)
    for k, places in enumerate(windows.offsets(count)):
        total = total + xp.add_at(whole, (..., *places), points[:, k])
    image = total[(..., *windows.inner)]
    return xp.contiguous(xp.transpose(image, (1, 0, *range(2, 2 + len(size)))))


def by_sample(xp: Any, columns: Array, n: int, places: int) -> Array:
    """Columns (C·K, N·P) as (N, C·K, P)."""
    each = xp.reshape(columns, (columns.shape[0], n, places))
    return xp.contiguous(xp.transpose(each, (1, 0, 2)))


def side_by_side(xp: Any, columns: Array) -> Array:
    """Columns (N, C·K, P) as (C·K, N·P)."""
    n, rows, places = columns.shape
    return xp.reshape(xp.transpose(columns, (1, 0, 2)), (rows, n * places))


class Unfold(Function):
    """The windows of x (N, C, *S) as (N, C·K, P)."""

    def forward(self, x: Array, *, windows: Windows) -> Array:
        self.windows, self.shape = windows, x.shape
        return windows_of(self.backend, x, windows)

    def backward(self, dy: Array, /) -> Array:
        return image_of(self.backend, dy, self.windows, self.shape)


class Fold(Function):
    """The sums of windows (N, C·K, P) at the positions of an image of ``shape``."""

    def forward(self, columns: Array, *, windows: Windows, shape: tuple[int, ...]) -> Array:
        self.windows = windows
        return image_of(self.backend, columns, windows, shape)

    def backward(self, dy: Array, /) -> Array:
        return windows_of(self.backend, dy, self.windows)


def windows_of(backend: Backend, x: Array, windows: Windows) -> Array:
    """What `Unfold` computes; of Tensors, as in a replay, an operation with a history."""
    if isinstance(x, Variable):
        return Unfold.apply(x, windows=windows)
    places = math.prod(windows.count(x.shape[2:]))
    return by_sample(backend.xp, unfolded(backend, x, windows), x.shape[0], places)


def image_of(backend: Backend, columns: Array, windows: Windows, shape: tuple[int, ...]) -> Array:
    """What `Fold` computes; of Tensors, as in a replay, an operation with a history."""
    if isinstance(columns, Variable):
        return Fold.apply(columns, windows=windows, shape=shape)
    xp = backend.xp
    image = folded(backend, wide(xp, side_by_side(xp, columns)), windows, shape)
    return narrow(xp, image, columns)


def windows_asked_for(kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Windows:
    """Windows over two axes, by PyTorch's arguments."""
    return Windows(
        numbers("kernel_size", kernel_size, 2, 1),
        numbers("stride", stride, 2, 1),
        numbers("dilation", dilation, 2, 1),
        on_both_sides(numbers("padding", padding, 2, 0)),
    )


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The windows of an image side by side, each as a column.

    Shapes
    ------
    (N, C, H, W) -> (N, C·K, P), with K points a window and P windows; or both without N.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError
        For another rank, sizes that are none, or windows larger than the padded image.
    """
    require_floats(input)
    windows = windows_asked_for(kernel_size, dilation, padding, stride)
    if input.ndim not in (3, 4):
        raise ShapeError(f"expected (N, C, H, W) or (C, H, W), got {input.shape}")
    require_room(windows, input.shape[-2:])
    if input.ndim == 3:
        return Unfold.apply(input.unsqueeze(0), windows=windows).squeeze(0)  # type: ignore[no-any-return]
    return Unfold.apply(input, windows=windows)  # type: ignore[no-any-return]


def fold(
    input: Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """The sum of windows where they lie in an image: the transpose of `unfold`, not its inverse.

    Shapes
    ------
    (N, C·K, P) -> (N, C, *output_size), with K points a window and P windows; or both without N.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError
        For another rank, sizes that are none, or an input of other windows than an image of
        ``output_size`` has.
    """
    require_floats(input)
    windows = windows_asked_for(kernel_size, dilation, padding, stride)
    size = numbers("output_size", output_size, 2, 1)
    require_room(windows, size)
    rows, places = windows.points, math.prod(windows.count(size))
    shape = input.shape
    if len(shape) not in (2, 3) or shape[-2] % rows or shape[-1] != places:
        raise ShapeError(
            f"expected (N, C·{rows}, {places}) or (C·{rows}, {places}), the windows of an image "
            f"{size}, got {shape}"
        )
    x = input if len(shape) == 3 else input.unsqueeze(0)
    y = Fold.apply(x, windows=windows, shape=(x.shape[0], shape[-2] // rows, *size))
    return y if len(shape) == 3 else y.squeeze(0)  # type: ignore[no-any-return]
