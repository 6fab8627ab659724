"""Which kernel a convolution takes: the one for a channel a group, or the one for few channels.

Others are products with unfolded samples, or, where windows are points, with x itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from . import dense, depthwise
from .calling import Call, in_one_call


def family(wiring: Any) -> Any:
    return dense if wiring.groups == 1 else depthwise


def convolved(outs: tuple[Array, ...], *args: Any) -> Call:
    return family(args[-1]).convolved(outs, *args)  # type: ignore[no-any-return]


def spread(outs: tuple[Array, ...], *args: Any) -> Call:
    return family(args[-1]).spread(outs, *args)  # type: ignore[no-any-return]


def correlated(outs: tuple[Array, ...], *args: Any) -> Call:
    return family(args[-1]).correlated(outs, *args)  # type: ignore[no-any-return]


def of_places(x: Array, weight: Array, bias: Array | None, wiring: Any) -> tuple[Array, ...]:
    return (np.empty((x.shape[0], weight.shape[0], *wiring.count), x.dtype),)


def of_images(y: Array, weight: Array, bias: Array | None, wiring: Any) -> tuple[Array, ...]:
    channels = weight.shape[1] * wiring.groups
    return (np.empty((y.shape[0], channels, *wiring.size), y.dtype),)


def of_weights(x: Array, y: Array, wiring: Any) -> tuple[Array, ...]:
    shape = y.shape[1], x.shape[1] // wiring.groups, *wiring.windows.kernel
    return (np.empty(shape, x.dtype),)


def accepts(x: Array, weight: Array, bias: Array | None, wiring: Any) -> bool:
    if not weight.flags.c_contiguous:
        return False
    if wiring.groups > 1:
        return depthwise.accepts(x, weight, bias, wiring)
    return dense.accepts(x, weight.shape[1], weight.shape[0], wiring)


def accepts_both(x: Array, y: Array, wiring: Any) -> bool:
    if wiring.groups > 1:
        return depthwise.accepts_both(x, y, wiring)
    channels, outputs = x.shape[1], y.shape[1]
    return all(dense.accepts(each, channels, outputs, wiring) for each in (x, y))


KERNELS = {
    "convolved": in_one_call(of_places, convolved, accepts),
    "spread": in_one_call(of_images, spread, accepts),
    "correlated": in_one_call(of_weights, correlated, accepts_both),
}
