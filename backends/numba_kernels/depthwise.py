"""Depthwise convolution without unfolding: a plane, padded, is in the cache while a kernel passes.

A matrix product would have a single row for each channel, and wait for memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .borrowing import copied
from .calling import Call
from .compilation import compiled, inlined, plus
from .unfolding import FLOATS, Size, geometry, over_three

CHUNK = 1024
"""So many products are added up in the dtype of x before their sum is, in float64."""


@inlined
def put(plane: Any, h: Any, w: Any, padded: Any) -> None:
    """Copy a plane into a larger one, with its first value at (h, w)."""
    for q in range(plane.shape[0]):
        source, target = plane[q], padded[h + q, w : w + plane.shape[1]]
        for r in range(source.size):
            target[r] = source[r]


@inlined
def read(x: Any, weight: Any, h: Any, w: Any, down: Any, along: Any, places: Any, y: Any) -> None:
    """y[q, r] += weight · x[h + q·down, w + r·along] for the first ``places`` of each row.

    Rows of both are equally long, so that windows one apart are read in one piece; what that puts
    behind the places means nothing.
    """
    if down == 1 and along == 1:
        source = x.reshape(-1)[h * x.shape[1] + w :]
        target = y.reshape(-1)[: (y.shape[0] - 1) * y.shape[1] + places]
        for r in range(target.size):
            target[r] += weight * source[r]
    else:
        for q in range(y.shape[0]):
            source, target = x[h + q * down, w:], y[q, :places]
            for r in range(target.size):
                target[r] += weight * source[r * along]


@inlined
def write(y: Any, weight: Any, h: Any, w: Any, down: Any, along: Any, places: Any, x: Any) -> None:
    """x[h + q·down, w + r·along] += weight · y[q, r]; behind the places y is zero."""
    if down == 1 and along == 1:
        target = x.reshape(-1)[h * x.shape[1] + w :]
        source = y.reshape(-1)[: (y.shape[0] - 1) * y.shape[1] + places]
        for r in range(source.size):
            target[r] += weight * source[r]
    else:
        for q in range(y.shape[0]):
            source, target = y[q, :places], x[h + q * down, w:]
            for r in range(source.size):
                target[r * along] += weight * source[r]


@inlined
def product(x: Any, h: Any, w: Any, down: Any, along: Any, places: Any, y: Any) -> Any:
    """Σ y[q, r] x[h + q·down, w + r·along]; behind the places y is zero."""
    total = 0.0
    if down == 1 and along == 1:
        source = x.reshape(-1)[h * x.shape[1] + w :]
        values = y.reshape(-1)[: (y.shape[0] - 1) * y.shape[1] + places]
        for start in range(0, values.size, CHUNK):
            some, others = values[start : start + CHUNK], source[start:]
            part = x.dtype.type(0)
            for r in range(some.size):
                part = plus(part, some[r] * others[r])
            total += part
    else:
        for q in range(y.shape[0]):
            source, values = x[h + q * down, w:], y[q, :places]
            part = x.dtype.type(0)
            for r in range(values.size):
                part = plus(part, values[r] * source[r * along])
            total += part
    return total


@compiled
def convolve(
    x: Any, weight: Any, bias: Any, stride: Any, dilation: Any, before: Any, padded: Any, y: Any
) -> None:
    """y (N, O, Pd, Ph, Pw) from x (N, C, D, H, W) and weight (O, Kd, Kh, Kw); ``padded`` (H, W) is
    the size of a plane with its padding.
    """
    n, outputs, planes, rows, places = y.shape
    each = outputs // x.shape[1]
    whole, sums = np.zeros(padded, x.dtype), np.empty((rows, padded[1]), x.dtype)
    for i in range(n):
        for o in range(outputs):
            for p in range(planes):
                sums[:] = x.dtype.type(0) if bias is None else bias[o]
                for kd in range(weight.shape[1]):
                    z = kd * dilation[0] - before[0] + p * stride[0]
                    if not 0 <= z < x.shape[2]:
                        continue
                    put(x[i, o // each, z], before[1], before[2], whole)
                    for kh in range(weight.shape[2]):
                        for kw in range(weight.shape[3]):
                            h, w = kh * dilation[1], kw * dilation[2]
                            factor = weight[o, kd, kh, kw]
                            read(whole, factor, h, w, stride[1], stride[2], places, sums)
                put(sums[:, :places], 0, 0, y[i, o, p])


@compiled
def transpose(
    y: Any, weight: Any, bias: Any, stride: Any, dilation: Any, before: Any, padded: Any, x: Any
) -> None:
    """x (N, C, D, H, W) from y (N, O, Pd, Ph, Pw) and weight (O, Kd, Kh, Kw)."""
    n, channels, depth, height, width = x.shape
    _, outputs, planes, rows, places = y.shape
    each = outputs // channels
    sums, values = np.empty(padded, x.dtype), np.zeros((rows, padded[1]), x.dtype)
    for i in range(n):
        for c in range(channels):
            for z in range(depth):
                sums[:] = x.dtype.type(0) if bias is None else bias[c]
                for o in range(c * each, (c + 1) * each):
                    for kd in range(weight.shape[1]):
                        p, beside = divmod(z + before[0] - kd * dilation[0], stride[0])
                        if beside or not 0 <= p < planes:
                            continue
                        put(y[i, o, p], 0, 0, values)
                        for kh in range(weight.shape[2]):
                            for kw in range(weight.shape[3]):
                                h, w = kh * dilation[1], kw * dilation[2]
                                factor = weight[o, kd, kh, kw]
                                write(values, factor, h, w, stride[1], stride[2], places, sums)
                h, w = before[1], before[2]
                put(sums[h : h + height, w : w + width], 0, 0, x[i, c, z])


@compiled
def correlate(
    x: Any, y: Any, stride: Any, dilation: Any, before: Any, padded: Any, weight: Any
) -> None:
    """weight (O, Kd, Kh, Kw) from x and y; its sums are of float64."""
    n, outputs, planes, rows, places = y.shape
    each, sums = outputs // x.shape[1], np.zeros(weight.shape)
    whole, values = np.zeros(padded, x.dtype), np.zeros((rows, padded[1]), x.dtype)
    for i in range(n):
        for o in range(outputs):
            for p in range(planes):
                put(y[i, o, p], 0, 0, values)
                for kd in range(weight.shape[1]):
                    z = kd * dilation[0] - before[0] + p * stride[0]
                    if not 0 <= z < x.shape[2]:
                        continue
                    put(x[i, o // each, z], before[1], before[2], whole)
                    for kh in range(weight.shape[2]):
                        for kw in range(weight.shape[3]):
                            h, w = kh * dilation[1], kw * dilation[2]
                            sums[o, kd, kh, kw] += product(
                                whole, h, w, stride[1], stride[2], places, values
                            )
    copied(sums.reshape(-1), weight.reshape(-1))


def over_volume(x: Array) -> Array:
    """x (N, C, *S) as (N, C, D, H, W)."""
    return x.reshape(*x.shape[:2], *over_three(x.shape[2:], 1))


def layout(wiring: Any) -> tuple[Size, Size, Size, Size]:
    """Stride, dilation and padding before over three axes, and the size of a padded plane."""
    _, stride, dilation, before = geometry(wiring.windows)
    return stride, dilation, before, over_three(wiring.windows.padded(wiring.size), 1)[1:]


def over_kernel(weight: Array, windows: Any) -> Array:
    """A weight (O, 1, *K) as (O, Kd, Kh, Kw)."""
    return weight.reshape(weight.shape[0], *over_three(windows.kernel, 1))


def convolved(
    outs: tuple[Array, ...], x: Array, weight: Array, bias: Array | None, wiring: Any
) -> Call:
    kernel, y = over_kernel(weight, wiring.windows), over_volume(outs[0])
    return convolve, (over_volume(x), kernel, bias, *layout(wiring), y)


def spread(
    outs: tuple[Array, ...], y: Array, weight: Array, bias: Array | None, wiring: Any
) -> Call:
    kernel, x = over_kernel(weight, wiring.windows), over_volume(outs[0])
    return transpose, (over_volume(y), kernel, bias, *layout(wiring), x)


def correlated(outs: tuple[Array, ...], x: Array, y: Array, wiring: Any) -> Call:
    weight = over_kernel(outs[0], wiring.windows)
    return correlate, (over_volume(x), over_volume(y), *layout(wiring), weight)


def is_plain(x: Array, wiring: Any) -> bool:
    """Float32 or float64 in C order, channels first, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size and not wiring.last)


def accepts(x: Array, weight: Array, bias: Array | None, wiring: Any) -> bool:
    """A channel each group, and several of them."""
    single = weight.shape[1] == 1 and wiring.groups > 1
    return is_plain(x, wiring) and single and weight.flags.c_contiguous


def accepts_both(x: Array, y: Array, wiring: Any) -> bool:
    single = x.shape[1] == wiring.groups > 1
    return is_plain(x, wiring) and is_plain(y, wiring) and single
