"""Convolution over one or two axes without unfolding.

A block of samples is laid out in lines, one for each channel and phase: rows and images one behind
the other, with as many zeros between them as windows reach into. A point of all windows is then the
same line a few places on, and the three phases of convolution are sums of products of such lines,
which `tiles.py` takes. A matrix product would be narrow for few channels, and wait for windows to
be laid out side by side.

With windows s apart there are s² phases: the places p + 0·s, p + 1·s, ... of both axes make a line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .borrowing import copied
from .calling import Call
from .compilation import compiled, inlined
from .tiles import correlations, products
from .unfolding import FLOATS, Size
from .vectors import BYTES

BLOCK = 2**19
"""How many bytes the lines of a block may have, so that they stay in a second cache."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How images (H, W) become lines, in which a point of all windows is a shift.

    Attributes
    ----------
    rows, columns : how far an image is from the next one, in rows, and a row, in places.
    stride, before : of windows along both axes, and the padding before.
    phases : (F, 2), what places of a phase leave if divided by the stride, padding counted.
    points : (K, 2), the phase of each point of a window, and its shift.
    """

    rows: int
    columns: int
    stride: Size
    before: Size
    phases: Array
    points: Array

    @property
    def reach(self) -> int:
        """The greatest shift."""
        return int(self.points[:, 1].max())

    def block(self, lines: int, itemsize: int) -> int:
        """How many samples a block may have, if each has so many lines."""
        return max(BLOCK // (self.rows * self.columns * lines * itemsize), 1)

    def length(self, samples: int, itemsize: int) -> int:
        """How many places a line has, with those that shifts and tiles read behind the last image.

        An odd number of cache lines: those of several channels then share no set of a cache.
        """
        line = 64 // itemsize
        places = samples * self.rows * self.columns + self.reach + 2 * BYTES // itemsize
        return (places // line | 1) * line + 2 * line


def pitch(size: int, count: int, step: int, before: int, after: int) -> int:
    """How far rows, or images, must be apart; zeros behind one are those before the next."""
    if step == 1:
        return max(size + max(before, after), count)
    return max(-(-(size + before + after) // step), count)


@lru_cache(maxsize=256)
def layout(wiring: Any) -> Layout:
    """The lines for windows over two axes, or over one as the second of two."""
    windows = wiring.windows
    axes = [*zip(wiring.size, wiring.count, windows.stride, windows.padding, strict=True)]
    extent = [*zip(windows.kernel, windows.dilation, windows.stride, strict=True)]
    if len(axes) == 1:
        axes.insert(0, (1, 1, 1, (0, 0)))
        extent.insert(0, (1, 1, 1))
    rows, columns = (pitch(n, m, step, *padding) for n, m, step, padding in axes)
    reached = [[divmod(i * apart, step) for i in range(k)] for k, apart, step in extent]
    phases = sorted(itertools.product(*({rest for _, rest in each} for each in reached)))
    points = [
        (phases.index((a, b)), down * columns + along)
        for (down, a), (along, b) in itertools.product(*reached)
    ]
    stride, before = tuple(axis[2] for axis in axes), tuple(axis[3][0] for axis in axes)
    return Layout(rows, columns, stride, before, np.array(phases), np.array(points))


@inlined
def along_row(width: Any, rest: Any, step: Any, before: Any) -> tuple[Any, Any, Any]:
    """The first value of a row that belongs to a phase, its place there, and how many there are."""
    first = (rest - before) % step
    return first, (first + before) // step, (width - first + step - 1) // step


@inlined
def enter(image: Any, phase: Any, stride: Any, before: Any, columns: Any, line: Any) -> None:
    """Put what belongs to a phase into a line."""
    first, place, count = along_row(image.shape[1], phase[1], stride[1], before[1])
    for h in range((phase[0] - before[0]) % stride[0], image.shape[0], stride[0]):
        start = (h + before[0]) // stride[0] * columns + place
        source, target = image[h, first:], line[start : start + count]
        if stride[1] == 1:
            for i in range(target.size):
                target[i] = source[i]
        else:
            for i in range(target.size):
                target[i] = source[i * stride[1]]


@inlined
def leave(line: Any, phase: Any, stride: Any, before: Any, columns: Any, image: Any) -> None:
    """Take what belongs to a phase from a line."""
    first, place, count = along_row(image.shape[1], phase[1], stride[1], before[1])
    for h in range((phase[0] - before[0]) % stride[0], image.shape[0], stride[0]):
        start = (h + before[0]) // stride[0] * columns + place
        source, target = line[start : start + count], image[h, first:]
        if stride[1] == 1:
            for i in range(source.size):
                target[i] = source[i]
        else:
            for i in range(source.size):
                target[i * stride[1]] = source[i]


@inlined
def enter_all(
    x: Any, phases: Any, stride: Any, before: Any, apart: Any, columns: Any, lines: Any
) -> None:
    """Samples x (N, C, H, W) as lines (C, F, more places)."""
    for c in range(x.shape[1]):
        for f in range(len(phases)):
            for i in range(x.shape[0]):
                enter(x[i, c], phases[f], stride, before, columns, lines[c, f, i * apart :])


WHOLE, NOTHING = (1, 1), (0, 0)
"""Stride and padding of what is taken as it is."""


@inlined
def starts(bias: Any, channels: Any, real: Any) -> Any:
    """What sums begin with; a multiple of four."""
    start = np.zeros((channels + 3) // 4 * 4, real)
    if bias is not None:
        copied(bias, start)
    return start


@inlined
def put(weights: Any, o: Any, terms: Any, j: Any, w: Any) -> None:
    """Weight j of output o, among so many (O/4, J, 4) in a row."""
    w[((o - o % 4) * terms) + 4 * j + o % 4] = weights


@compiled
def convolve(
    x: Any, weight: Any, bias: Any, y: Any, shape: Any, phases: Any, stride: Any, before: Any,
    at: Any,
) -> None:  # fmt: skip
    """y (N, O, P, Q) from x and weight (O, C·K); ``shape`` is that of a block: samples, rows,
    columns, places of a line.
    """
    block, rows, columns, length = shape
    apart, channels = rows * columns, x.shape[1]
    start = starts(bias, len(weight), x.dtype)
    w = np.zeros(start.size * at.size, x.dtype)
    for o in range(len(weight)):
        for j in range(at.size):
            put(weight[o, j], o, at.size, j, w)
    lines = np.zeros((channels, len(phases), length), x.dtype)
    sums = np.empty((start.size, length), x.dtype)
    for first in range(0, x.shape[0], block):
        some = x[first : first + block]
        enter_all(some, phases, stride, before, apart, columns, lines)
        products(lines.reshape(-1), at, w, start, len(some) * apart, sums)
        for o in range(y.shape[1]):
            for i in range(len(some)):
                line = sums[o, i * apart :]
                leave(line, NOTHING, WHOLE, NOTHING, columns, y[first + i, o])


@inlined
def put_all(weight: Any, points: Any, w: Any) -> None:
    """Weights (O, C, K) of some of the points, for sums over those and over outputs."""
    outputs, channels, count = len(weight), weight.shape[1], len(points)
    for c in range(channels):
        for o in range(outputs):
            for i in range(count):
                put(weight[o, c, points[i]], c, outputs * count, o * count + i, w)


@compiled
def transpose(
    y: Any, weight: Any, bias: Any, x: Any, shape: Any, phases: Any, stride: Any, before: Any,
    reach: Any, bounds: Any, points: Any, at: Any,
) -> None:  # fmt: skip
    """x (N, C, H, W), of which each phase is a convolution by its points, from y and weight
    (O, C, K); y begins where the greatest shift back still finds zeros.
    """
    block, rows, columns, length = shape
    apart, outputs = rows * columns, y.shape[1]
    start = starts(bias, x.shape[1], y.dtype)
    lines = np.zeros((outputs, 1, length), y.dtype)
    sums = np.empty((start.size, length), y.dtype)
    whole = np.zeros((1, 2), phases.dtype)
    each = start.size * outputs
    w = np.zeros(each * len(points), y.dtype)
    for f in range(len(phases)):
        a, b = bounds[f], bounds[f + 1]
        put_all(weight, points[a:b], w[each * a : each * b])
    for c in range(x.shape[1] if len(phases) < stride[0] * stride[1] else 0):
        x[:, c] = start[c]  # for places in no window
    for first in range(0, y.shape[0], block):
        some = y[first : first + block]
        enter_all(some, whole, WHOLE, NOTHING, apart, columns, lines[:, :, reach:])
        for f in range(len(phases)):
            a, b = bounds[f], bounds[f + 1]
            part, shifts = w[each * a : each * b], at[a * outputs : b * outputs]
            products(lines.reshape(-1), shifts, part, start, len(some) * apart, sums)
            for c in range(x.shape[1]):
                for i in range(len(some)):
                    line = sums[c, i * apart :]
                    leave(line, phases[f], stride, before, columns, x[first + i, c])


@compiled
def correlate(
    x: Any, y: Any, weight: Any, shape: Any, phases: Any, stride: Any, before: Any, at: Any,
    terms: Any,
) -> None:  # fmt: skip
    """weight (O, C·K), so many terms of as many shifts as tiles want."""
    block, rows, columns, length = shape
    apart, outputs = rows * columns, len(weight)
    filled = (outputs + 3) // 4 * 4
    lines = np.zeros((x.shape[1], len(phases), length), x.dtype)
    values = np.zeros((filled, 1, length), x.dtype)
    sums = np.zeros((filled, at.size))
    whole = np.zeros((1, 2), phases.dtype)
    for first in range(0, x.shape[0], block):
        some, others = x[first : first + block], y[first : first + block]
        places = len(some) * apart
        enter_all(some, phases, stride, before, apart, columns, lines)
        enter_all(others, whole, WHOLE, NOTHING, apart, columns, values)
        values[:, :, places:] = 0
        correlations(lines.reshape(-1), at, places, values[:, 0], sums)
    for o in range(outputs):
        copied(sums[o, :terms], weight[o])


@lru_cache(maxsize=256)
def reading(wiring: Any, channels: int, outputs: int, itemsize: int) -> tuple[Any, ...]:
    """The shape of a block; phases, stride and padding; and where each point of each channel is in
    lines (C, F, places).
    """
    how = layout(wiring)
    block = how.block(channels * len(how.phases) + outputs, itemsize)
    length = how.length(block, itemsize)
    at = np.arange(channels)[:, None] * len(how.phases) + how.points[:, 0]
    at = (at * length + how.points[:, 1]).reshape(-1)
    return (block, how.rows, how.columns, length), how.phases, how.stride, how.before, at


@lru_cache(maxsize=256)
def summing(wiring: Any, channels: int, outputs: int, itemsize: int) -> tuple[Any, ...]:
    """The same, with places in threes, and how many there are of them."""
    *how, at = reading(wiring, channels, outputs, itemsize)
    return *how, np.concatenate([at, np.zeros(-at.size % 3, at.dtype)]), at.size


@lru_cache(maxsize=256)
def writing(wiring: Any, channels: int, outputs: int, itemsize: int) -> tuple[Any, ...]:
    """The shape of a block; phases, stride and padding, and the greatest shift; for each phase,
    where its points begin among all; those points; and where each is, looked back from the greatest
    shift, in lines (O, places).
    """
    how = layout(wiring)
    block = how.block(channels + outputs, itemsize)
    length = how.length(block, itemsize)
    points = [np.flatnonzero(how.points[:, 0] == f) for f in range(len(how.phases))]
    lines, back = np.arange(outputs)[:, None] * length, how.reach - how.points[:, 1]
    at = np.concatenate([(lines + back[each]).reshape(-1) for each in points])
    shape, bounds = (block, how.rows, how.columns, length), np.cumsum([0, *map(len, points)])
    phases = how.phases, how.stride, how.before, how.reach
    return shape, *phases, bounds, np.concatenate(points), at


def over_plane(x: Array) -> Array:
    """(N, C, L) with an axis before L."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], 1, x.shape[2])


def convolved(
    outs: tuple[Array, ...], x: Array, weight: Array, bias: Array | None, wiring: Any
) -> Call:
    outputs, channels = weight.shape[:2]
    how = reading(wiring, channels, outputs, x.itemsize)
    y = over_plane(outs[0])
    return convolve, (over_plane(x), weight.reshape(outputs, -1), bias, y, *how)


def spread(
    outs: tuple[Array, ...], y: Array, weight: Array, bias: Array | None, wiring: Any
) -> Call:
    outputs, channels = weight.shape[:2]
    how, points = writing(wiring, channels, outputs, y.itemsize), wiring.windows.points
    w = weight.reshape(outputs, channels, points)
    return transpose, (over_plane(y), w, bias, over_plane(outs[0]), *how)


def correlated(outs: tuple[Array, ...], x: Array, y: Array, wiring: Any) -> Call:
    channels, outputs = x.shape[1], y.shape[1]
    how = summing(wiring, channels, outputs, x.itemsize)
    return correlate, (over_plane(x), over_plane(y), outs[0].reshape(outputs, -1), *how)


FEW = 64 * 64
"""With more products of a channel and an output, a matrix product is as fast."""


def accepts(x: Array, channels: int, outputs: int, wiring: Any) -> bool:
    """Float32 or float64 in C order, with values in it, channels first, and few of them."""
    plain = x.dtype in FLOATS and x.flags.c_contiguous and x.size and not wiring.last
    small = channels * outputs <= FEW and len(wiring.size) < 3
    return bool(plain and small and not wiring.windows.are_points)
