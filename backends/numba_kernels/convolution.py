"""Which kernel a convolution takes: the one for a channel a group, or the one for few channels.

Others are products with unfolded samples, or, where windows are points, with x itself.
"""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Kernel

from . import dense, depthwise


def convolved(x: Array, weight: Array, bias: Array | None, wiring: Any) -> Array:
    return (dense if wiring.groups == 1 else depthwise).convolved(x, weight, bias, wiring)


def spread(y: Array, weight: Array, bias: Array | None, wiring: Any) -> Array:
    return (dense if wiring.groups == 1 else depthwise).spread(y, weight, bias, wiring)


def correlated(x: Array, y: Array, wiring: Any) -> Array:
    return (dense if wiring.groups == 1 else depthwise).correlated(x, y, wiring)


def accepts(x: Array, weight: Array, bias: Array | None, wiring: Any) -> bool:
    if wiring.groups > 1:
        return depthwise.accepts(x, weight, bias, wiring)
    return dense.accepts(x, weight.shape[1], weight.shape[0], wiring)


def accepts_both(x: Array, y: Array, wiring: Any) -> bool:
    if wiring.groups > 1:
        return depthwise.accepts_both(x, y, wiring)
    channels, outputs = x.shape[1], y.shape[1]
    return all(dense.accepts(each, channels, outputs, wiring) for each in (x, y))


KERNELS = {
    "convolved": Kernel(convolved, accepts),
    "spread": Kernel(spread, accepts),
    "correlated": Kernel(correlated, accepts_both),
}
