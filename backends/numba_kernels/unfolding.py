"""Windows laid out side by side, and added up again; each axis that is missing has one position.

Padding is never stored: a row of windows is zeros, values, zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, inlined

Size = tuple[int, ...]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@inlined
def inside(start: Any, step: Any, size: Any, count: Any) -> tuple[Any, Any]:
    """The first window whose point start + i·step is a position, and the first after it that is
    beyond.
    """
    first = 0 if start >= 0 else min((-start + step - 1) // step, count)
    beyond = min((size - start + step - 1) // step, count) if size > start else 0
    return first, max(first, beyond)


@inlined
def copied(source: Any, target: Any) -> None:
    for i in range(target.size):
        target[i] = source[i]


@inlined
def cleared(target: Any) -> None:
    for i in range(target.size):
        target[i] = 0


@inlined
def shifted(plane: Any, h: Any, w: Any, out: Any) -> None:
    """out (H, W), where as many windows as positions lie one apart: the plane, moved by h and w,
    in one piece, and then zeros where that has come from another row.
    """
    height, width = plane.shape
    source, target = plane.reshape(-1), out.reshape(-1)
    size, offset = height * width, h * width + w
    start, stop = min(max(-offset, 0), size), max(min(size - offset, size), 0)
    cleared(target[:start])
    if stop > start:
        copied(source[start + offset : stop + offset], target[start:stop])
    cleared(target[max(stop, 0) :])
    first, beyond = inside(w, 1, width, width)
    for q in range(height):
        for r in range(first):
            out[q, r] = 0
        for r in range(beyond, width):
            out[q, r] = 0


@inlined
def gathered(plane: Any, h: Any, w: Any, down: Any, along: Any, out: Any) -> None:
    """out[q, r] = plane[h + q·down, w + r·along], or 0 outside of it."""
    height, width = plane.shape
    rows, places = out.shape
    first, beyond = inside(w, along, width, places)
    for q in range(rows):
        y, line = h + q * down, out[q]
        if y < 0 or y >= height or first == beyond:
            cleared(line)
            continue
        cleared(line[:first])
        source, target = plane[y, w + first * along :], line[first:beyond]
        if along == 1:
            copied(source, target)
        else:
            for r in range(target.size):
                target[r] = source[r * along]
        cleared(line[beyond:])


@compiled
def unfold(x: Any, kernel: Any, stride: Any, dilation: Any, before: Any, columns: Any) -> None:
    """columns (C, Kd, Kh, Kw, N, Pd, Ph, Pw) from x (N, C, D, H, W)."""
    n, channels, depth, height, width = x.shape
    planes, rows, places = columns.shape[5:]
    whole = stride[1] == 1 and stride[2] == 1 and rows == height and places == width
    for c in range(channels):
        for kd in range(kernel[0]):
            for kh in range(kernel[1]):
                h = kh * dilation[1] - before[1]
                for kw in range(kernel[2]):
                    w = kw * dilation[2] - before[2]
                    for i in range(n):
                        for p in range(planes):
                            z = kd * dilation[0] - before[0] + p * stride[0]
                            out = columns[c, kd, kh, kw, i, p]
                            if z < 0 or z >= depth:
                                cleared(out.reshape(-1))
                            elif whole:
                                shifted(x[i, c, z], h, w, out)
                            else:
                                gathered(x[i, c, z], h, w, stride[1], stride[2], out)


@inlined
def scattered(values: Any, h: Any, w: Any, down: Any, along: Any, plane: Any) -> None:
    """plane[h + q·down, w + r·along] += values[q, r], but for those outside of it."""
    height, width = plane.shape
    rows, places = values.shape
    first, beyond = inside(w, along, width, places)
    if first == beyond:
        return
    for q in range(rows):
        y = h + q * down
        if y < 0 or y >= height:
            continue
        source, target = values[q, first:beyond], plane[y, w + first * along :]
        if along == 1:
            for r in range(source.size):
                target[r] += source[r]
        else:
            for r in range(source.size):
                target[r * along] += source[r]


@compiled
def fold(columns: Any, kernel: Any, stride: Any, dilation: Any, before: Any, x: Any) -> None:
    """x (N, C, D, H, W), what no window reads zero, from columns (C, Kd, Kh, Kw, N, Pd, Ph, Pw)."""
    n, channels, depth = x.shape[:3]
    planes = columns.shape[5]
    for c in range(channels):
        for i in range(n):
            x[i, c] = 0
            for kd in range(kernel[0]):
                for kh in range(kernel[1]):
                    h = kh * dilation[1] - before[1]
                    for kw in range(kernel[2]):
                        w = kw * dilation[2] - before[2]
                        for p in range(planes):
                            z = kd * dilation[0] - before[0] + p * stride[0]
                            if 0 <= z < depth:
                                values = columns[c, kd, kh, kw, i, p]
                                scattered(values, h, w, stride[1], stride[2], x[i, c, z])


def over_three(values: Size, missing: int) -> Size:
    """A number for each of three axes, the first of which may be missing."""
    return (missing,) * (3 - len(values)) + values


def geometry(windows: Any) -> tuple[Size, Size, Size, Size]:
    """Kernel, stride, dilation, and padding before, over three axes."""
    before = tuple(a for a, _ in windows.padding)
    return (
        over_three(windows.kernel, 1),
        over_three(windows.stride, 1),
        over_three(windows.dilation, 1),
        over_three(before, 0),
    )


def unfolded(outs: tuple[Array, ...], x: Array, windows: Any) -> Call:
    n, channels, *size = x.shape
    shape, count = geometry(windows), over_three(windows.count(size), 1)
    columns = outs[0].reshape(channels, *shape[0], n, *count)
    return unfold, (x.reshape(n, channels, *over_three(tuple(size), 1)), *shape, columns)


def folded(outs: tuple[Array, ...], columns: Array, windows: Any, shape: tuple[int, ...]) -> Call:
    n, channels, *size = shape
    over = geometry(windows)
    whole = outs[0].reshape(n, channels, *over_three(tuple(size), 1))
    count = over_three(windows.count(size), 1)
    return fold, (columns.reshape(channels, *over[0], n, *count), *over, whole)


def of_columns(x: Array, windows: Any) -> tuple[Array, ...]:
    n, channels, *size = x.shape
    shape = channels * windows.points, n * math.prod(windows.count(size))
    return (np.empty(shape, x.dtype),)


def of_images(columns: Array, windows: Any, shape: tuple[int, ...]) -> tuple[Array, ...]:
    return (np.empty(shape, columns.dtype),)


def accepts(x: Array, windows: Any, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


KERNELS = {
    "unfolded": in_one_call(of_columns, unfolded, accepts),
    "folded": in_one_call(of_images, folded, accepts),
}
