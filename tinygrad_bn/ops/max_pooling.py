"""The greatest value of each window, as kernel points, and its gradient."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.config import get_workspace_limit
from tinygrad_bn.dtypes import int64
from tinygrad_bn.ops.spans import Spans


def filled(spans: Spans) -> list[list[int]]:
    """The positions of each window, the last of them again where others have more."""
    longest = max(map(len, spans))
    return [[*span, *[span[-1]] * (longest - len(span))] for span in spans]


def positions(backend: Backend, size: tuple[int, ...], spans: tuple[Spans, ...]) -> Array:
    """The place of each point of each window in an image in C order, (*P, K)."""
    xp, axes = backend.xp, len(size)
    total = xp.zeros((), dtype=int64)
    for axis, (n, each) in enumerate(zip(size, spans, strict=True)):
        table = backend.asarray(filled(each), int64)
        shape = [1] * (2 * axes)
        shape[axis], shape[axes + axis] = table.shape
        total = total * n + xp.reshape(table, shape)
    return xp.reshape(total, (*total.shape[:axes], math.prod(total.shape[axes:])))


@kernel_point
def maxima(backend: Backend, x: Array, spans: tuple[Spans, ...]) -> tuple[Array, Array]:
    """The greatest value of each window of x (M, *S), and its place in the image; NaN is greatest,
    and of equals the first one is taken.
    """
    xp, (n, *size) = backend.xp, x.shape
    places = positions(backend, tuple(size), spans)
    count, flat = places.shape[:-1], xp.reshape(x, (n, math.prod(size)))
    places = xp.reshape(places, (math.prod(count), places.shape[-1]))
    most = max(get_workspace_limit() // (places.size * x.dtype.itemsize), 1)
    indices = []
    for start in range(0, max(n, 1), most):
        windows = flat[start : start + most][:, places]
        best = xp.expand_dims(xp.argmax(windows, axis=2), 2)
        every = xp.broadcast_to(places, windows.shape)
        indices.append(xp.squeeze(xp.take_along_axis(every, best, 2), 2))
    chosen = indices[0] if len(indices) == 1 else xp.concatenate(indices, axis=0)
    y = xp.take_along_axis(flat, chosen, 1)
    return xp.reshape(y, (n, *count)), xp.reshape(chosen, (n, *count))


@kernel_point
def placed(backend: Backend, values: Array, indices: Array, size: int) -> Array:
    """Zeros (M, size), to which values (M, P) are added at their places."""
    return backend.xp.add_along_axis((values.shape[0], size), indices, values, 1)


class MaxPool(Function):
    """The greatest value of each window of x (M, *S), and its place."""

    auxiliary = True

    def forward(self, x: Array, *, spans: tuple[Spans, ...]) -> tuple[Array, Array]:
        xp, self.shape = self.xp, x.shape
        n, places = x.shape[0], math.prod(x.shape[1:])
        if isinstance(x, Variable):  # the places have no history, what is read there has
            indices: Any = x.wrap_like(maxima(x.backend, x.array, spans)[1])
            self.indices = xp.reshape(indices, (n, math.prod(indices.shape[1:])))
            y = xp.take_along_axis(xp.reshape(x, (n, places)), self.indices, 1)
            return xp.reshape(y, indices.shape), indices
        y, indices = maxima(self.backend, x, spans)
        self.indices = xp.reshape(indices, (n, math.prod(indices.shape[1:])))
        return y, indices

    def backward(self, dy: Array, /) -> Array:
        xp, places = self.xp, math.prod(self.shape[1:])
        dy = xp.reshape(dy, self.indices.shape)
        return xp.reshape(placed(self.backend, dy, self.indices, places), self.shape)
