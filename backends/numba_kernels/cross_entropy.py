"""Cross-entropy of scores x (N, C) and labels (N,), row by row while it is in the cache.

The sum of exp is taken in the dtype of x over blocks of a thousand classes, as precise as NumPy's
by halves, and the blocks' in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, in_whole_registers, plus
from .vector_math import exp, largest

WHOLE = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}
INT64 = np.dtype(np.int64)
BLOCK = 1024


@compiled
def sum_of_exp(x: Any, i: Any, shift: Any) -> Any:
    """Σ exp(x - shift) of row i."""
    total, classes = 0.0, x.shape[1]
    for start in range(0, classes, BLOCK):
        part = x.dtype.type(0)
        # signed, an index could count from the end: the check for that is in the way of vectors
        for k in range(np.uint64(start), np.uint64(min(start + BLOCK, classes))):
            part = plus(part, exp(x[i, k] - shift))
        total += np.float64(part)
    return total


@compiled
def sum_of_costs(x: Any, i: Any, greatest: Any, total: Any, weight: Any) -> Any:
    """Σ w (total - (x - greatest)) of row i: what it costs to be any of the classes."""
    costs = 0.0
    for k in range(x.shape[1]):
        cost = total - (x[i, k] - greatest)
        if weight is not None:
            cost = cost * weight[k]
        costs = plus(costs, np.float64(cost))
    return costs


@compiled
def forward(
    x: Any,
    words: Any,
    target: Any,
    weight: Any,
    ignore_index: Any,
    smoothing: Any,
    losses: Any,
    found: Any,
    greatest: Any,
    total: Any,
) -> None:
    """The four results of the kernel point; ``words`` are the bits of x."""
    in_whole_registers()
    rounded = x.dtype.type
    n, classes = x.shape
    for i in range(n):
        label, most = target[i], largest(words, i)
        log_sum = rounded(np.log(sum_of_exp(x, i, most)))
        ignored, known = label == ignore_index, 0 <= label < classes
        index = label if known else 0
        w = rounded(1) if weight is None else weight[index]
        w = rounded(0) if ignored else (w if known else rounded(np.nan))
        loss = w * (log_sum - (x[i, index] - most))
        if smoothing is not None:
            even = rounded(sum_of_costs(x, i, most, log_sum, weight) / classes)
            loss = rounded(1 - smoothing) * loss + rounded(smoothing) * even
        losses[i, 0], found[i, 0] = rounded(0) if ignored else loss, w
        greatest[i, 0], total[i, 0] = most, log_sum


@compiled
def grad_input(
    dy: Any,
    x: Any,
    target: Any,
    share: Any,
    found: Any,
    greatest: Any,
    total: Any,
    ignore_index: Any,
    smoothing: Any,
    dx: Any,
) -> None:
    """dx = dy (mass p - wanted); ``even`` is wanted of each class, by its share, and of the label
    what is kept of its weight besides.
    """
    in_whole_registers()
    rounded = x.dtype.type
    n, classes = x.shape
    keep, even = rounded(1 - smoothing), rounded(smoothing / classes)
    shares = rounded(classes) if share is None else share.sum()
    mass_even = even * shares
    for i in range(n):
        label = target[i]
        if label == ignore_index:
            for k in range(classes):
                dx[i, k] = rounded(0)
            continue
        grad, most, log_sum, w = dy[i, 0], greatest[i, 0], total[i, 0], found[i, 0]
        mass, base = keep * w + mass_even, keep * (w * rounded(0))
        for k in range(classes):
            wanted = base + even if share is None else base + even * share[k]
            dx[i, k] = grad * (mass * exp((x[i, k] - most) - log_sum) - wanted)
        if 0 <= label < classes:
            wanted = keep * w + even if share is None else keep * w + even * share[label]
            p = exp((x[i, label] - most) - log_sum)
            dx[i, label] = grad * (mass * p - wanted)


def softmax_cross_entropy(
    outs: tuple[Array, ...],
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> Call:
    smoothing = float(label_smoothing) or None  # without it, what it needs is not compiled
    words = x.view(WHOLE[x.dtype])
    return forward, (x, words, target, weight, ignore_index, smoothing, *outs)


def softmax_cross_entropy_grad_input(
    outs: tuple[Array, ...],
    dy: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    found: Array,
    greatest: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Call:
    share = weight if label_smoothing else None
    kept = found, greatest, total
    return grad_input, (dy, x, target, share, *kept, ignore_index, float(label_smoothing), *outs)


def of_labels(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Four arrays for a number of each label."""
    shape, dtype = (x.shape[0], 1), x.dtype
    return tuple(np.empty(shape, dtype) for _ in range(4))


def like_scores(dy: Array, x: Array, *rest: Any) -> tuple[Array, ...]:
    return (np.empty(x.shape, x.dtype),)


def accepts(x: Array, target: Array, weight: Array | None, *rest: Any) -> bool:
    """Float32 or float64 (N, C) in C order with values in it, and int64 labels."""
    here, there = x.flags, target.flags
    return bool(
        x.ndim == 2
        and x.size
        and x.dtype in WHOLE
        and here.c_contiguous
        and here.aligned
        and target.dtype == INT64
        and there.c_contiguous
        and there.aligned
        and (weight is None or (weight.dtype == x.dtype and in_order(weight)))
    )


def in_order(x: Array) -> bool:
    flags = x.flags
    return bool(flags.c_contiguous and flags.aligned)


def accepts_grad(dy: Array, x: Array, *rest: Any) -> bool:
    """The same, and dy in the dtype of x."""
    return dy.dtype == x.dtype and accepts(x, *rest)


KERNELS = {
    "softmax_cross_entropy": in_one_call(of_labels, softmax_cross_entropy, accepts),
    "softmax_cross_entropy_grad_input": in_one_call(
        like_scores, softmax_cross_entropy_grad_input, accepts_grad
    ),
}
