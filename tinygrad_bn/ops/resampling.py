"""Images of another size: interpolation, and pixels that trade places with channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.mixing import Row, Table
from tinygrad_bn.ops.norm_arguments import require_floats
from tinygrad_bn.ops.pooling import adaptive_average_pool, averaged
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.windows import numbers

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["interpolate", "pixel_shuffle", "pixel_unshuffle"]

LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
"""Modes that place pixels by their centres or their corners, and over how many axes."""
MODES = ("nearest", "nearest-exact", "area", *LINEAR)
STEEPNESS = -0.75
"""The derivative at 1 of the kernel of bicubic interpolation, as in PyTorch and OpenCV."""


def nearest(source: float, size: int) -> Row:
    """The pixel that a point is in."""
    return ((min(math.floor(source), size - 1), 1.0),)


def linear(source: float, size: int) -> Row:
    """The two pixels beside a point, by how near they are."""
    source = min(max(source, 0.0), size - 1.0)
    low = min(int(source), size - 1)
    rest = source - low
    return ((low, 1 - rest), (low + 1, rest)) if rest else ((low, 1.0),)


def cubic(source: float, size: int) -> Row:
    """The four pixels around a point, by a polynomial of their distance; the border goes on."""
    low = math.floor(source)
    weights: dict[int, float] = {}
    for place in range(low - 1, low + 3):
        inside = min(max(place, 0), size - 1)
        weights[inside] = weights.get(inside, 0.0) + cubic_kernel(abs(source - place))
    return tuple(weights.items())


def cubic_kernel(x: float) -> float:
    """The weight of a pixel at this distance."""
    a = STEEPNESS
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


RULES: dict[str, Callable[[float, int], Row]] = {
    "nearest": nearest,
    "nearest-exact": nearest,
    "linear": linear,
    "bilinear": linear,
    "trilinear": linear,
    "bicubic": cubic,
}


@lru_cache(maxsize=256)
def resampled(size: int, count: int, factor: float | None, mode: str, corners: bool) -> Table:
    """The table from ``size`` to ``count`` pixels of an axis.

    Parameters
    ----------
    factor : how much larger the result is, where that is not count / size.
    corners : whether the first and last pixels fall onto each other, not their outer edges.
    """

    as_they_are = count == size and mode not in ("nearest-exact", "bicubic")
    if as_they_are or (count == 2 * size and mode == "nearest"):
        factor = None  # PyTorch too takes each pixel once, or twice, whatever was rounded

    def source(place: int) -> float:
        if corners:
            return place * (size - 1) / (count - 1) if count > 1 else 0.0
        at = place if mode == "nearest" else place + 0.5
        moved = at * size / count if factor is None else at / factor
        return moved if mode.startswith("nearest") else moved - 0.5

    return Table([RULES[mode](source(place), size) for place in range(count)], size)


@under_autocast
def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    axis: int = 1,
) -> Tensor:
    """An image of another size.

    Parameters
    ----------
    size : of the result; a number for all axes, or one for each.
    scale_factor : how much larger it is instead, rounded down.
    mode : "nearest" (the pixel in which the upper left corner falls), "nearest-exact" (in which the
        centre falls), "linear", "bilinear" and "trilinear" (by rank), "bicubic", or "area" (means,
        as in `adaptive_avg_pool2d`).
    align_corners : for modes that are linear or cubic, whether the first and last pixels fall onto
        each other, and not their outer edges.
    recompute_scale_factor : whether places are found by the ratio of sizes, and not by
        ``scale_factor``, which rounding may have made another one.
    axis : where the channels are: 1, or -1 for channels last.

    Shapes
    ------
    (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> (N, C, *size).

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        For another rank, an unknown mode or one of another rank, or not just one of ``size`` and
        ``scale_factor``.

    Notes
    -----
    Places are computed exactly, where PyTorch rounds them to float32.

    References
    ----------
    Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15 with
    a = -0.75.
    """
    require_floats(input)
    axes = input.ndim - 2
    if axes not in (1, 2, 3):
        raise ShapeError(f"expected (N, C, *S) of rank 3, 4 or 5, got {input.shape}")
    if mode not in MODES or LINEAR.get(mode, axes) != axes:
        known = ", ".join(name for name in MODES if LINEAR.get(name, axes) == axes)
        raise ArgumentError(f"expected for rank {input.ndim} a mode of {known}; got {mode!r}")
    if align_corners is not None and mode not in LINEAR:
        raise ArgumentError(f"expected align_corners for {', '.join(LINEAR)} only, got {mode!r}")
    if axis not in (1, -1):
        raise ArgumentError(f"expected the channels at axis 1 or -1, got {axis}")
    places = input.shape[2:] if axis == 1 else input.shape[1:-1]
    if not min(places):
        raise ShapeError(f"expected an input with positions, got {input.shape}")
    counts, factors = sizes_asked_for(places, size, scale_factor, bool(recompute_scale_factor))
    if mode == "area":
        return adaptive_average_pool(axes, input, counts, axis)
    each = zip(places, counts, factors, strict=True)
    return averaged(input, [resampled(*one, mode, bool(align_corners)) for one in each], axis)


def sizes_asked_for(
    places: Sequence[int], size: Any, scale_factor: Any, recompute: bool
) -> tuple[tuple[int, ...], Sequence[float | None]]:
    """The size of the result along each axis, and the factors that places are found by, if any.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
    """
    axes = len(places)
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"expected either size or scale_factor, got {size} and {scale_factor}")
    if size is not None:
        if recompute:
            raise ArgumentError("expected a scale_factor to recompute, got a size")
        return numbers("size", size, axes, 1), [None] * axes
    several = isinstance(scale_factor, (tuple, list))
    factors = [float(f) for f in scale_factor] if several else [float(scale_factor)] * axes
    if len(factors) != axes or not all(0 < f < math.inf for f in factors):
        raise ArgumentError(f"expected 1 or {axes} numbers > 0 as scale_factor, got {scale_factor}")
    counts = tuple(math.floor(n * f) for n, f in zip(places, factors, strict=True))
    if not min(counts):
        raise ArgumentError(f"expected a result of a size ≥ 1, got {counts} by {scale_factor}")
    return counts, [None] * axes if recompute else factors


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels as pixels: each r² of them make an image r times as high and wide.

    Shapes
    ------
    (*, C·r², H, W) -> (*, C, H·r, W·r).

    References
    ----------
    Shi et al. 2016, arXiv:1609.05158, equation 4.
    """
    require_tensor(input)
    (r,) = numbers("upscale_factor", upscale_factor, 1, 1)
    shape = input.shape
    if len(shape) < 3 or shape[-3] % (r * r):
        raise ShapeError(f"expected (*, C·{r * r}, H, W), got {shape}")
    *outer, channels, height, width = shape
    k = len(outer)
    x = input.reshape(*outer, channels // (r * r), r, r, height, width)
    x = x.permute(*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return x.reshape(*outer, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Pixels as channels: what `pixel_shuffle` was made of.

    Shapes
    ------
    (*, C, H·r, W·r) -> (*, C·r², H, W).
    """
    require_tensor(input)
    (r,) = numbers("downscale_factor", downscale_factor, 1, 1)
    shape = input.shape
    if len(shape) < 3 or shape[-2] % r or shape[-1] % r:
        raise ShapeError(f"expected (*, C, H·{r}, W·{r}), got {shape}")
    *outer, channels, height, width = shape
    k = len(outer)
    x = input.reshape(*outer, channels, height // r, r, width // r, r)
    x = x.permute(*range(k), k, k + 2, k + 4, k + 1, k + 3)
    return x.reshape(*outer, channels * r * r, height // r, width // r)
