"""Activations and their chain rules: a launch and a pass over memory each, of float32.

Sixteen-bit floats come as float32, for that is what curves are computed in.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn import curves
from tinygrad_bn.backend import Array, Kernel

from .compilation import VECTOR_BYTES, Source, f32, i64, multiprocessors

THREADS, WIDTH, BLOCKS_EACH, NUMBERS = 256, 4, 32, 3
FLOAT32 = np.dtype(np.float32)
CURVES = (
    curves.Elu,
    curves.Gelu,
    curves.GeluTanh,
    curves.LeakyRelu,
    curves.LogSigmoid,
    curves.Mish,
    curves.Silu,
    curves.Softplus,
)
SOURCE = Source(
    "curves.cu",
    [f"{way}<{curve.__name__}>" for way in ("curve_value", "curve_grad") for curve in CURVES],
)


def launched(way: str, curve: Any, *arrays: Array) -> Array:
    x = arrays[0]
    y = cupy.empty(x.shape, x.dtype)
    packed = all(a.data.ptr % VECTOR_BYTES == 0 for a in (*arrays, y))
    numbers = [*map(f32, curve), *[f32(0)] * (NUMBERS - len(curve))]
    most = BLOCKS_EACH * multiprocessors(x.data.device_id)
    SOURCE.launch(
        f"{way}<{type(curve).__name__}>",
        (min(-(-x.size // (THREADS * WIDTH)), most),),
        (THREADS,),
        (*arrays, y, i64(x.size), np.bool_(packed), *numbers),
    )
    return y


def curve_value(x: Array, curve: Any) -> Array:
    return launched("curve_value", curve, x)


def curve_grad(dy: Array, x: Array, curve: Any) -> Array:
    return launched("curve_grad", curve, dy, x)


def accepts_value(x: Array, curve: Any) -> bool:
    """Float32 in C order, with values in it."""
    plain = x.dtype == FLOAT32 and x.size > 0 and x.flags.c_contiguous
    return type(curve) in CURVES and bool(plain)


def accepts_grad(dy: Array, x: Array, curve: Any) -> bool:
    return accepts_value(x, curve) and accepts_value(dy, curve) and dy.shape == x.shape


KERNELS = {
    "curve_value": Kernel(curve_value, accepts_value),
    "curve_grad": Kernel(curve_grad, accepts_grad),
}
