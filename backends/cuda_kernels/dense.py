"""The bias and its gradient, ReLU: a launch and a pass over memory each, bit for bit as NumPy's but
for the order of a bias gradient's sums, which are of float64.
"""

from __future__ import annotations

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .channel_plans import MOST_CHANNELS, STORED, plan_of
from .compilation import TYPES, VECTOR_BYTES, Source, i64, multiprocessors, u32

THREADS, BLOCKS_EACH, MOST = 256, 32, 1 << 30
SOURCE = Source(
    "dense.cu",
    [
        *(f"{kernel}<{t}>" for kernel in ("relu", "relu_grad", "add_bias") for t in TYPES.values()),
        *(
            f"column_sums<{TYPES[dtype]}, {width}, {width}>"
            for dtype in STORED
            for width in (1, MOST_CHANNELS)
        ),
    ],
)


def elementwise(kernel: str, *arrays: Array, columns: int = 0) -> Array:
    """What becomes of each element; ``columns`` is the length of rows, where it matters."""
    x = arrays[0]
    y = cupy.empty(x.shape, x.dtype)
    width = VECTOR_BYTES // x.dtype.itemsize
    packed = columns % width == 0 and all(a.data.ptr % VECTOR_BYTES == 0 for a in (*arrays, y))
    most = BLOCKS_EACH * multiprocessors(x.data.device_id)
    sizes = (i64(x.size), u32(columns)) if columns else (i64(x.size),)
    SOURCE.launch(
        f"{kernel}<{TYPES[x.dtype.name]}>",
        (min(-(-x.size // (THREADS * width)), most),),
        (THREADS,),
        (*arrays, y, *sizes, np.bool_(packed)),
    )
    return y


def relu(x: Array) -> Array:
    return elementwise("relu", x)


def relu_grad(dy: Array, x: Array) -> Array:
    return elementwise("relu_grad", dy, x)


def add_bias(x: Array, bias: Array) -> Array:
    return elementwise("add_bias", x, bias, columns=x.shape[1])


def column_sums(x: Array) -> Array:
    n, channels = x.shape
    result, plan = cupy.empty(channels, x.dtype), plan_of(x.reshape(n, channels, 1))
    parts, *room = plan.shared_out()
    args = x, result, *room, *plan.sizes
    SOURCE.launch("column_sums" + plan.arguments, (plan.tiles, parts), plan.block, args)
    return result


def accepts(x: Array, *others: Array) -> bool:
    """Floats in C order, with values in them."""
    return bool(
        x.dtype.name in TYPES
        and x.size > 0
        and all(a.dtype == x.dtype and a.flags.c_contiguous for a in (x, *others))
    )


def accepts_two(dy: Array, x: Array) -> bool:
    return dy.shape == x.shape and accepts(dy, x)


def accepts_bias(x: Array, bias: Array) -> bool:
    return bool(x.ndim == 2 and bias.shape == x.shape[1:] and x.size < MOST and accepts(x, bias))


def accepts_rows(x: Array) -> bool:
    return bool(x.ndim == 2 and x.dtype.name in STORED and max(x.shape) < MOST and accepts(x))


KERNELS = {
    "add_bias": Kernel(add_bias, accepts_bias),
    "column_sums": Kernel(column_sums, accepts_rows),
    "relu": Kernel(relu, accepts),
    "relu_grad": Kernel(relu_grad, accepts_two),
}
