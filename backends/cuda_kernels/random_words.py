"""Random words by Philox, and dropout that draws them where it uses them: the bits of the CPU."""

from __future__ import annotations

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import TYPES, Source, f32, f64, i64, multiprocessors

THREADS, WORDS, BLOCKS_EACH = 256, 4, 32

SOURCE = Source("random_words.cu", ["philox", *(f"dropped<{t}>" for t in TYPES.values())])


def blocks_for(n: int, array: Array) -> tuple[int]:
    """A thread for every four words, up to so many blocks for each multiprocessor."""
    most = BLOCKS_EACH * multiprocessors(array.data.device_id)
    return (min(-(-n // (THREADS * WORDS)), most),)


def packed(*arrays: Array) -> np.bool_:
    """Whether all begin where four elements may be moved at once."""
    return np.bool_(all(x.data.ptr % (WORDS * x.dtype.itemsize) == 0 for x in arrays))


def philox_words(key: Array, counter: Array, n: int) -> Array:
    words = cupy.empty(n, np.uint32)
    args = key, counter, words, i64(n), packed(words)
    SOURCE.launch("philox", blocks_for(n, words), (THREADS,), args)
    return words


def dropped(x: Array, key: Array, counter: Array, keep: float) -> tuple[Array, Array]:
    y, mask = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    scale = f64(x.dtype.type(1 / keep if keep else 0.0))
    args = x, key, counter, f32(keep), scale, y, mask, i64(x.size), packed(x, y, mask)
    kernel = f"dropped<{TYPES[x.dtype.name]}>"
    SOURCE.launch(kernel, blocks_for(x.size, x), (THREADS,), args)
    return y, mask


def of_a_stream(key: Array, counter: Array) -> bool:
    return all(x.dtype == np.uint64 and x.flags.c_contiguous for x in (key, counter))


def accepts_words(key: Array, counter: Array, n: int) -> bool:
    return n > 0 and of_a_stream(key, counter)


def accepts_dropped(x: Array, key: Array, counter: Array, keep: float) -> bool:
    """Floats in C order, with values in them."""
    whole = x.size > 0 and x.flags.c_contiguous
    return bool(x.dtype.name in TYPES and whole and of_a_stream(key, counter))


KERNELS = {
    "philox_words": Kernel(philox_words, accepts_words),
    "dropped": Kernel(dropped, accepts_dropped),
}
