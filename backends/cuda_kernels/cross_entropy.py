"""Softmax cross-entropy with labels, a launch each way: a warp a row of scores, a block a long one;
where a sample has several positions, a thread each. Its mean is one launch more.

Scores are of float32 or of 16 bits, all else is float32.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .channel_plans import STORED
from .compilation import (
    NULL,
    TYPES,
    Source,
    f32,
    i32,
    i64,
    multiprocessors,
    tickets,
    vector_width,
)
from .teams import THREADS, WARP, blocks_for, team_for

EACH = 8
"""Labels for each thread that sums losses, where there are so many."""

SOURCE = Source(
    "cross_entropy.cu",
    [
        *(
            f"{kernel}<{TYPES[dtype]}, {team}, {width}>"
            for kernel in ("cross_entropy", "cross_entropy_grad")
            for dtype, most in STORED.items()
            for team, width in ((1, 1), (WARP, 1), (WARP, most), (THREADS, 1), (THREADS, most))
        ),
        *(f"mean_loss<{TYPES[dtype]}>" for dtype in STORED),
    ],
)


def launch(kernel: str, scores: tuple[Array, ...], args: tuple[Any, ...]) -> None:
    """For scores (N, C, *S), which are read, and written, in packs where there are no positions."""
    x = scores[0]
    samples, classes, *positions = x.shape
    space = math.prod(positions)
    team, width = 1, 1
    if space == 1:
        team, width = team_for(classes), vector_width(*scores, along=classes)
    labels = samples * space
    name = f"{kernel}<{TYPES[x.dtype.name]}, {team}, {width}>"
    sizes = i64(labels), i32(classes), i32(space)
    SOURCE.launch(name, blocks_for(labels, team), (THREADS,), (*args, *sizes))


def softmax_cross_entropy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array, Array]:
    shape = x.shape[0], 1, *x.shape[2:]
    losses, found, greatest, total = results = tuple(
        cupy.empty(shape, np.float32) for _ in range(4)
    )
    smoothing = np.bool_(label_smoothing != 0), f32(1 - label_smoothing), f32(label_smoothing)
    given = x, target, NULL if weight is None else weight, i64(ignore_index)
    launch("cross_entropy", (x,), (*given, *smoothing, *results))
    return losses, found, greatest, total


def mean_cross_entropy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array, Array, Array, Array]:
    losses, found, *kept = softmax_cross_entropy(x, target, weight, ignore_index, label_smoothing)
    labels = losses.size
    mean, share = cupy.empty((), x.dtype), cupy.empty((), np.float32)
    most = multiprocessors(x.data.device_id)
    blocks = min(-(-labels // (THREADS * EACH)), most)
    room = cupy.empty((blocks if blocks > 1 else 0, 2)), tickets(1)
    args = losses, found, *room, mean, share, i64(labels)
    SOURCE.launch(f"mean_loss<{TYPES[x.dtype.name]}>", (blocks,), (THREADS,), args)
    return mean, share, found, *kept


def grad_input(
    dy: Array,
    factor: Any,
    each: bool,
    x: Array,
    target: Array,
    weight: Array | None,
    found: Array,
    greatest: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """The gradient of x from those of ``each`` label, or from one; times a factor."""
    dx = cupy.empty(x.shape, x.dtype)
    shares = f32(1 - label_smoothing), f32(label_smoothing / x.shape[1])
    kept = target, NULL if weight is None else weight, found, greatest, total
    grads = dy, factor, i32(each)
    launch("cross_entropy_grad", (x, dx), (*grads, x, *kept, i64(ignore_index), *shares, dx))
    return dx


def softmax_cross_entropy_grad_input(dy: Array, x: Array, *rest: Any) -> Array:
    one = repeats(dy)
    dy = dy[(slice(0, 1),) * dy.ndim] if one else dy
    return grad_input(dy, NULL, not one, x, *rest)


def mean_cross_entropy_grad_input(dy: Array, share: Array, x: Array, *rest: Any) -> Array:
    return grad_input(dy, share, False, x, *rest)


def repeats(dy: Array) -> bool:
    """Whether all gradients are one, as those of a mean or a sum are."""
    return not any(dy.strides)


def plain(x: Array | None, dtype: Any) -> bool:
    """In C order and of that dtype, or absent."""
    return x is None or bool(x.dtype == dtype and x.flags.c_contiguous)


def accepts(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> bool:
    """Float32 or 16 bits (N, C, *S) in C order with values in it, and labels of int64."""
    return (
        x.ndim >= 2
        and x.size > 0
        and x.size // x.shape[1] < 1 << 30
        and x.shape[1] < 1 << 30
        and x.dtype.name in STORED
        and plain(x, x.dtype)
        and target.shape == (x.shape[0], *x.shape[2:])
        and plain(target, np.int64)
        and plain(weight, np.float32)
    )


def accepts_grad(
    dy: Array, x: Array, target: Array, weight: Array | None, *kept_and_options: Any
) -> bool:
    *kept, ignore_index, label_smoothing = kept_and_options
    return (
        accepts(x, target, weight, ignore_index, label_smoothing)
        and dy.shape == (x.shape[0], 1, *x.shape[2:])
        and (plain(dy, np.float32) or (repeats(dy) and dy.dtype == np.float32))
        and all(plain(known, np.float32) for known in kept)
    )


def accepts_mean_grad(dy: Array, share: Array, x: Array, *rest: Any) -> bool:
    """The same, and the gradient of the mean as a float32 on the device."""
    target, weight, *kept, ignore_index, label_smoothing = rest
    return (
        dy.shape == share.shape == ()
        and plain(dy, np.float32)
        and plain(share, np.float32)
        and accepts(x, target, weight, ignore_index, label_smoothing)
        and all(plain(known, np.float32) for known in kept)
    )


KERNELS = {
    "softmax_cross_entropy": Kernel(softmax_cross_entropy, accepts),
    "softmax_cross_entropy_grad_input": Kernel(softmax_cross_entropy_grad_input, accepts_grad),
    "mean_cross_entropy": Kernel(mean_cross_entropy, accepts),
    "mean_cross_entropy_grad_input": Kernel(mean_cross_entropy_grad_input, accepts_mean_grad),
}
