"""Softmax cross-entropy with labels, a launch each way: a warp a row, a block a long one.

Scores are of float32, as the losses hand on those of 16 bits.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .compilation import NULL, Source, f32, i32, i64, vector_width
from .teams import THREADS, WARP, blocks_for, team_for

SOURCE = Source(
    "cross_entropy.cu",
    [
        f"{kernel}<{team}, {width}>"
        for kernel in ("cross_entropy", "cross_entropy_grad")
        for team in (WARP, THREADS)
        for width in (1, 4)
    ],
)


def launch(kernel: str, scores: tuple[Array, ...], args: tuple[Any, ...]) -> None:
    """For scores (N, C), which are read, and written, in packs."""
    rows, classes = scores[0].shape
    team, width = team_for(classes), vector_width(*scores, along=classes)
    sizes = i64(rows), i32(classes)
    name = f"{kernel}<{team}, {width}>"
    SOURCE.launch(name, blocks_for(rows, team), (THREADS,), (*args, *sizes))


def softmax_cross_entropy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array, Array]:
    losses, found, greatest, total = results = tuple(
        cupy.empty((x.shape[0], 1), np.float32) for _ in range(4)
    )
    smoothing = np.bool_(label_smoothing != 0), f32(1 - label_smoothing), f32(label_smoothing)
    given = x, target, NULL if weight is None else weight, i64(ignore_index)
    launch("cross_entropy", (x,), (*given, *smoothing, *results))
    return losses, found, greatest, total


def softmax_cross_entropy_grad_input(
    dy: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    found: Array,
    greatest: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    dx, one = cupy.empty(x.shape, x.dtype), repeats(dy)
    shares = f32(1 - label_smoothing), f32(label_smoothing / x.shape[1])
    grads = dy[:1] if one else dy, i32(not one)
    kept = target, NULL if weight is None else weight, found, greatest, total
    launch("cross_entropy_grad", (x, dx), (*grads, x, *kept, i64(ignore_index), *shares, dx))
    return dx


def repeats(dy: Array) -> bool:
    """Whether all gradients are one, as those of a mean or a sum are."""
    return bool(dy.strides[0] == 0)


def plain(x: Array | None, dtype: Any) -> bool:
    """In C order and of that dtype, or absent."""
    return x is None or bool(x.dtype == dtype and x.flags.c_contiguous)


def accepts(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> bool:
    """Float32 (N, C) in C order with values in it, and labels of int64."""
    return (
        x.ndim == 2
        and x.size > 0
        and max(x.shape) < 1 << 30
        and plain(x, np.float32)
        and plain(target, np.int64)
        and plain(weight, np.float32)
    )


def accepts_grad(
    dy: Array, x: Array, target: Array, weight: Array | None, *kept_and_options: Any
) -> bool:
    *kept, ignore_index, label_smoothing = kept_and_options
    return (
        accepts(x, target, weight, ignore_index, label_smoothing)
        and dy.shape == (x.shape[0], 1)
        and (plain(dy, np.float32) or (repeats(dy) and dy.dtype == np.float32))
        and all(plain(known, np.float32) for known in kept)
    )


KERNELS = {
    "softmax_cross_entropy": Kernel(softmax_cross_entropy, accepts),
    "softmax_cross_entropy_grad_input": Kernel(softmax_cross_entropy_grad_input, accepts_grad),
}
