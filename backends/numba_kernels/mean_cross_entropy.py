"""The mean cross-entropy and its gradient, in one call each."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from .calling import Call, in_one_call
from .compilation import compiled, in_whole_registers
from .cross_entropy import WHOLE, accepts, forward, grad_input, like_scores


@compiled
def whole(
    x: Any,
    words: Any,
    target: Any,
    weight: Any,
    ignore_index: Any,
    smoothing: Any,
    y: Any,
    share: Any,
    found: Any,
    greatest: Any,
    total: Any,
) -> None:
    """The losses, which nobody needs, and the five results of the kernel point."""
    in_whole_registers()
    losses = np.empty(found.shape, x.dtype)
    forward(x, words, target, weight, ignore_index, smoothing, losses, found, greatest, total)
    loss = count = 0.0
    for i in range(len(losses)):
        loss += losses[i, 0]
        count += found[i, 0]
    part = 1 / (count if count != 0 else np.nan)
    y[()], share[()] = loss * part, part


@compiled
def whole_grad(
    dy: Any,
    share: Any,
    x: Any,
    target: Any,
    class_share: Any,
    found: Any,
    greatest: Any,
    total: Any,
    ignore_index: Any,
    smoothing: Any,
    dx: Any,
) -> None:
    """dx from the gradient of the mean."""
    in_whole_registers()
    each = np.empty(found.shape, x.dtype)
    each[:] = dy[()] * share[()]
    grad_input(each, x, target, class_share, found, greatest, total, ignore_index, smoothing, dx)


def mean_cross_entropy(
    outs: tuple[Array, ...],
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> Call:
    smoothing = float(label_smoothing) or None  # without it, what it needs is not compiled
    return whole, (x, x.view(WHOLE[x.dtype]), target, weight, ignore_index, smoothing, *outs)


def mean_cross_entropy_grad_input(
    outs: tuple[Array, ...], dy: Array, share: Array, x: Array, *rest: Any
) -> Call:
    target, weight, found, greatest, total, ignore_index, label_smoothing = rest
    class_share = weight if label_smoothing else None
    kept = found, greatest, total
    options = ignore_index, float(label_smoothing)
    numbers = np.asarray(dy), np.asarray(share)  # which NumPy may have made scalars of
    return whole_grad, (*numbers, x, target, class_share, *kept, *options, *outs)


def of_mean(x: Array, *rest: Any) -> tuple[Array, ...]:
    """The mean, what one loss counts, and three arrays for a number of each label."""
    shape, dtype = (x.shape[0], 1), x.dtype
    kept = np.empty(shape, dtype), np.empty(shape, dtype), np.empty(shape, dtype)
    return np.empty(()), np.empty((), dtype), *kept


def like(dy: Array, share: Array, x: Array, *rest: Any) -> tuple[Array, ...]:
    return like_scores(dy, x)


def accepts_grad(dy: Array, share: Array, x: Array, *rest: Any) -> bool:
    """The scores and labels, a number, and what one loss counts, of the dtype of the scores."""
    return dy.dtype == share.dtype == x.dtype and not dy.shape and accepts(x, *rest)


KERNELS = {
    "mean_cross_entropy": in_one_call(of_mean, mean_cross_entropy, accepts),
    "mean_cross_entropy_grad_input": in_one_call(like, mean_cross_entropy_grad_input, accepts_grad),
}
