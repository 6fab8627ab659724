"""The three phases of convolution, as kernel points: products with unfolded samples.

Convolution is linear in x and in the weight, so that Σ dy · conv(x, w) is linear in each of three.
Its derivative for dy is the convolution, for x the transposed convolution of dy, and for w the
correlation of both. None of them ever holds more than a block of unfolded samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.config import get_workspace_limit
from tinygrad_bn.ops.linear import transposed
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.unfolding import folded, unfolded
from tinygrad_bn.ops.windows import Windows

CACHE = 2**20
"""On a CPU, columns are multiplied while they are in its second cache."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which values a convolution multiplies with which.

    Attributes
    ----------
    windows : how the kernel lies over the positions of x.
    size : of x along the last axes, which its windows do not tell.
    groups : into how many parts channels are divided; each sees the channels of its part.
    last : whether channels are the last axis of x and y, and not the second one.
    """

    windows: Windows
    size: tuple[int, ...]
    groups: int = 1
    last: bool = False

    @property
    def count(self) -> tuple[int, ...]:
        """The size of y along the last axes."""
        return self.windows.count(self.size)

    def first(self, xp: Any, x: Array) -> Array:
        """x or y as (N, C, *S)."""
        axes = range(1, len(x.shape) - 1)
        return xp.transpose(x, (0, len(x.shape) - 1, *axes)) if self.last else x

    def as_rows(self, xp: Any, y: Array) -> Array:
        """y as (G, O/G, N·P)."""
        y, n = self.first(xp, y), len(y.shape)
        channels, places = y.shape[1], y.shape[0] * math.prod(y.shape[2:])
        rows = xp.transpose(y, (1, 0, *range(2, n)))
        return xp.reshape(rows, (self.groups, channels // self.groups, places))

    def as_image(self, xp: Any, rows: Array, n: int) -> Array:
        """What `as_rows` was made of, as it lies in memory."""
        channels, count = rows.shape[0] * rows.shape[1], self.count
        y = xp.reshape(rows, (channels, n, *count))
        places = tuple(range(2, 2 + len(count)))
        return xp.transpose(y, (1, *places, 0) if self.last else (1, 0, *places))

    def as_columns(self, backend: Backend, x: Array) -> Array:
        """The windows of x as (G, C/G·K, N·P)."""
        xp = backend.xp
        columns = unfolded(backend, wide(xp, self.first(xp, x)), self.windows)
        rows, places = columns.shape
        return xp.reshape(columns, (self.groups, rows // self.groups, places))

    def as_matrices(self, xp: Any, weight: Array) -> Array:
        """A weight (O, C/G, *K) as (G, O/G, C/G·K)."""
        rows = weight.shape[0] // self.groups
        return xp.reshape(wide(xp, weight), (self.groups, rows, math.prod(weight.shape[1:])))

    def blocks(self, backend: Backend, n: int, channels: int, itemsize: int) -> Iterator[slice]:
        """Samples whose columns together stay below the limit; at least one at a time."""
        limit = get_workspace_limit()
        if backend.device == "cpu":
            limit = min(limit, CACHE)
        each = channels * self.windows.points * math.prod(self.count) * max(itemsize, 4)
        most = max(limit // max(each, 1), 1)
        return (slice(start, start + most) for start in range(0, max(n, 1), most))


def pointwise(xp: Any, x: Array, w: Array, b: Array | None, wiring: Wiring) -> Array:
    """The product of each position of x with matrices w (G, O/G, C/G), where windows are points."""
    groups, out, channels = w.shape
    n, places = x.shape[0], math.prod(wiring.size)
    if wiring.last:
        parts = xp.transpose(xp.reshape(wide(xp, x), (n * places, groups, channels)), (1, 0, 2))
        y = xp.matmul(parts, transposed(xp, w))
        y = y if b is None else y + xp.reshape(b, (groups, 1, out))
        y = xp.reshape(xp.transpose(y, (1, 0, 2)), (n, *wiring.size, groups * out))
        return xp.contiguous(narrow(xp, y, x))
    y = xp.matmul(w, xp.reshape(wide(xp, x), (n, groups, channels, places)))
    y = y if b is None else y + xp.reshape(b, (groups, out, 1))
    return narrow(xp, xp.reshape(y, (n, groups * out, *wiring.size)), x)


def joined(xp: Any, parts: Sequence[Array]) -> Array:
    """Blocks of samples in one array, in C order."""
    return xp.contiguous(parts[0]) if len(parts) == 1 else xp.concatenate(parts, axis=0)


@kernel_point
def convolved(
    backend: Backend, x: Array, weight: Array, bias: Array | None, wiring: Wiring
) -> Array:
    """y[n, o, p] = Σ w[o, c, k] x[n, c, p·stride + k·dilation - padding] + b[o]."""
    xp, w, parts = backend.xp, wiring.as_matrices(backend.xp, weight), []
    channels = weight.shape[1] * wiring.groups
    if wiring.windows.are_points:
        return pointwise(xp, x, w, None if bias is None else wide(xp, bias), wiring)
    b = None if bias is None else xp.reshape(wide(xp, bias), (*w.shape[:2], 1))
    for some in wiring.blocks(backend, x.shape[0], channels, x.dtype.itemsize):
        part = x[some]
        rows = xp.matmul(w, wiring.as_columns(backend, part))
        rows = rows if b is None else rows + b
        parts.append(wiring.as_image(xp, narrow(xp, rows, x), part.shape[0]))
    return joined(xp, parts)


@kernel_point
def spread(backend: Backend, y: Array, weight: Array, bias: Array | None, wiring: Wiring) -> Array:
    """x[n, c, p·stride + k·dilation - padding] = Σ w[o, c, k] y[n, o, p] + b[c]: the transpose."""
    xp, w, parts = backend.xp, transposed(backend.xp, wiring.as_matrices(backend.xp, weight)), []
    channels = weight.shape[1] * wiring.groups
    if wiring.windows.are_points:
        return pointwise(xp, y, w, None if bias is None else wide(xp, bias), wiring)
    b = None if bias is None else xp.reshape(wide(xp, bias), (channels, *(1 for _ in wiring.size)))
    for some in wiring.blocks(backend, y.shape[0], channels, y.dtype.itemsize):
        part = wiring.as_rows(xp, wide(xp, y[some]))
        columns = xp.reshape(xp.matmul(w, part), (w.shape[0] * w.shape[1], part.shape[2]))
        shape = (y[some].shape[0], channels, *wiring.size)
        x = folded(backend, columns, wiring.windows, shape)
        x = narrow(xp, x if b is None else x + b, y)
        axes = tuple(range(2, len(shape)))
        parts.append(xp.transpose(x, (0, *axes, 1)) if wiring.last else x)
    return joined(xp, parts)


@kernel_point
def correlated(backend: Backend, x: Array, y: Array, wiring: Wiring) -> Array:
    """w[o, c, k] = Σ y[n, o, p] x[n, c, p·stride + k·dilation - padding]."""
    xp, total = backend.xp, backend.xp.zeros((), dtype=x.dtype)
    channels = wiring.first(xp, x).shape[1]
    for some in wiring.blocks(backend, x.shape[0], channels, x.dtype.itemsize):
        rows = wiring.as_rows(xp, wide(xp, y[some]))
        total = total + xp.matmul(rows, transposed(xp, wiring.as_columns(backend, x[some])))
    shape = (total.shape[0] * total.shape[1], channels // wiring.groups, *wiring.windows.kernel)
    return narrow(xp, xp.reshape(total, shape), x)
