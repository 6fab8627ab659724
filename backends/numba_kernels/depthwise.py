"""Depthwise convolution without unfolding: each plane stays in the cache while a kernel passes.

A matrix product would have a single row for each channel, and wait for memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import compiled, inlined, plus
from .unfolding import FLOATS, geometry, inside, over_three


@inlined
def read(x: Any, weight: Any, h: Any, w: Any, down: Any, along: Any, y: Any) -> None:
    """y[q, r] += weight · x[h + q·down, w + r·along], where that is inside."""
    height, width = x.shape
    first, beyond = inside(w, along, width, y.shape[1])
    if first == beyond:
        return
    for q in range(y.shape[0]):
        row = h + q * down
        if 0 <= row < height:
            source, target = x[row, w + first * along :], y[q, first:beyond]
            if along == 1:
                for r in range(target.size):
                    target[r] += weight * source[r]
            else:
                for r in range(target.size):
                    target[r] += weight * source[r * along]


@inlined
def written(y: Any, weight: Any, h: Any, w: Any, down: Any, along: Any, x: Any) -> None:
    """x[h + q·down, w + r·along] += weight · y[q, r], where that is inside."""
    height, width = x.shape
    first, beyond = inside(w, along, width, y.shape[1])
    if first == beyond:
        return
    for q in range(y.shape[0]):
        row = h + q * down
        if 0 <= row < height:
            source, target = y[q, first:beyond], x[row, w + first * along :]
            if along == 1:
                for r in range(source.size):
                    target[r] += weight * source[r]
            else:
                for r in range(source.size):
                    target[r * along] += weight * source[r]


@inlined
def product(x: Any, h: Any, w: Any, down: Any, along: Any, y: Any) -> Any:
    """Σ y[q, r] x[h + q·down, w + r·along], where that is inside; rows are added in float64."""
    height, width = x.shape
    first, beyond = inside(w, along, width, y.shape[1])
    total = 0.0
    if first == beyond:
        return total
    for q in range(y.shape[0]):
        row = h + q * down
        if 0 <= row < height:
            source, values = x[row, w + first * along :], y[q, first:beyond]
            part = x.dtype.type(0)
            if along == 1:
                for r in range(values.size):
                    part = plus(part, values[r] * source[r])
            else:
                for r in range(values.size):
                    part = plus(part, values[r] * source[r * along])
            total += part
    return total


@compiled
def convolve(
    x: Any, weight: Any, bias: Any, kernel: Any, stride: Any, dilation: Any, before: Any, y: Any
) -> None:
    """y (N, O, Pd, Ph, Pw) from x (N, C, D, H, W) and weight (O, Kd, Kh, Kw)."""
    n, outputs, planes = y.shape[:3]
    each = outputs // x.shape[1]
    for i in range(n):
        for o in range(outputs):
            for p in range(planes):
                y[i, o, p] = bias[o]
                for kd in range(kernel[0]):
                    z = kd * dilation[0] - before[0] + p * stride[0]
                    if not 0 <= z < x.shape[2]:
                        continue
                    for kh in range(kernel[1]):
                        for kw in range(kernel[2]):
                            h = kh * dilation[1] - before[1]
                            w = kw * dilation[2] - before[2]
                            plane, factor = x[i, o // each, z], weight[o, kd, kh, kw]
                            read(plane, factor, h, w, stride[1], stride[2], y[i, o, p])


@compiled
def transpose(
    y: Any, weight: Any, bias: Any, kernel: Any, stride: Any, dilation: Any, before: Any, x: Any
) -> None:
    """x (N, C, D, H, W) from y (N, O, Pd, Ph, Pw) and weight (O, Kd, Kh, Kw)."""
    n, outputs, planes = y.shape[:3]
    channels, depth = x.shape[1:3]
    each = outputs // channels
    for i in range(n):
        for c in range(channels):
            x[i, c] = bias[c]
        for o in range(outputs):
            for p in range(planes):
                for kd in range(kernel[0]):
                    z = kd * dilation[0] - before[0] + p * stride[0]
                    if not 0 <= z < depth:
                        continue
                    for kh in range(kernel[1]):
                        for kw in range(kernel[2]):
                            h = kh * dilation[1] - before[1]
                            w = kw * dilation[2] - before[2]
                            plane, factor = x[i, o // each, z], weight[o, kd, kh, kw]
                            written(y[i, o, p], factor, h, w, stride[1], stride[2], plane)


@compiled
def correlate(
    x: Any, y: Any, kernel: Any, stride: Any, dilation: Any, before: Any, weight: Any
) -> None:
    """weight (O, Kd, Kh, Kw) in float64, which is zeros, from x and y."""
    n, outputs, planes = y.shape[:3]
    each = outputs // x.shape[1]
    for i in range(n):
        for o in range(outputs):
            for p in range(planes):
                for kd in range(kernel[0]):
                    z = kd * dilation[0] - before[0] + p * stride[0]
                    if not 0 <= z < x.shape[2]:
                        continue
                    for kh in range(kernel[1]):
                        for kw in range(kernel[2]):
                            h = kh * dilation[1] - before[1]
                            w = kw * dilation[2] - before[2]
                            plane = x[i, o // each, z]
                            weight[o, kd, kh, kw] += product(
                                plane, h, w, stride[1], stride[2], y[i, o, p]
                            )


def over_volume(x: Array) -> Array:
    """x (N, C, *S) as (N, C, D, H, W)."""
    return x.reshape(*x.shape[:2], *over_three(x.shape[2:], 1))


def constants(bias: Array | None, weight: Array, channels: int) -> Array:
    """What sums start from."""
    return np.zeros(channels, weight.dtype) if bias is None else np.ascontiguousarray(bias)


def convolved(x: Array, weight: Array, bias: Array | None, wiring: Any) -> Array:
    y = np.empty((x.shape[0], weight.shape[0], *wiring.count), x.dtype)
    over = geometry(wiring.windows)
    kernel = weight.reshape(weight.shape[0], *over[0])
    convolve(over_volume(x), kernel, constants(bias, weight, y.shape[1]), *over, over_volume(y))
    return y


def spread(y: Array, weight: Array, bias: Array | None, wiring: Any) -> Array:
    x = np.empty((y.shape[0], wiring.groups, *wiring.size), y.dtype)
    over = geometry(wiring.windows)
    kernel = weight.reshape(weight.shape[0], *over[0])
    transpose(over_volume(y), kernel, constants(bias, weight, x.shape[1]), *over, over_volume(x))
    return x


def correlated(x: Array, y: Array, wiring: Any) -> Array:
    over = geometry(wiring.windows)
    weight = np.zeros((y.shape[1], *over[0]))
    correlate(over_volume(x), over_volume(y), *over, weight)
    return weight.astype(x.dtype).reshape(y.shape[1], 1, *wiring.windows.kernel)


def is_plain(x: Array, wiring: Any) -> bool:
    """Float32 or float64 in C order, channels first, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size and not wiring.last)


def accepts(x: Array, weight: Array, bias: Array | None, wiring: Any) -> bool:
    """A channel each group."""
    return is_plain(x, wiring) and weight.shape[1] == 1 and weight.flags.c_contiguous


def accepts_both(x: Array, y: Array, wiring: Any) -> bool:
    return is_plain(x, wiring) and is_plain(y, wiring) and x.shape[1] == wiring.groups


KERNELS = {
    "convolved": Kernel(convolved, accepts),
    "spread": Kernel(spread, accepts),
    "correlated": Kernel(correlated, accepts_both),
}
