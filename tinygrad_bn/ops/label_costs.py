"""What labels cost under the softmax of scores, as kernel points.

In the maths scores are x (N, C, *S) and labels (N, *S); what there is one of for each label has
an axis of size 1 in place of the classes. Scores of 16 bits are computed in float32: what comes
of them is float32, their gradient too, unless a kernel rounds it as it leaves it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.precision import wide


class Labels(NamedTuple):
    """What labels say of C classes, (N, 1, *S) each."""

    index: Array
    """The label; 0 where it is no class, so that it may be read with."""
    ignored: Array
    """Whether the label is to be passed over."""
    weight: Array
    """Of the label's class; 0 for an ignored label, NaN for another that is no class."""


def per_class(xp: Any, values: Array, ndim: int) -> Array:
    """Values (C,) along axis 1 of ``ndim``."""
    return xp.reshape(values, (1, -1, *(1,) * (ndim - 2)))


def read_labels(
    xp: Any, x: Array, target: Array, weight: Array | None, ignore_index: int
) -> Labels:
    """What the labels (N, *S) say of the classes that x (N, C, *S) has scores for."""
    target = xp.expand_dims(target, 1)
    ignored = target == ignore_index
    known = xp.logical_and(target >= 0, target < x.shape[1])
    index = xp.where(known, target, 0)
    found = xp.astype(known, x.dtype) if weight is None else weight[index]
    return Labels(index, ignored, xp.where(ignored, 0.0, xp.where(known, found, math.nan)))


def is_label(xp: Any, x: Array, target: Array) -> Array:
    """Whether each class of x (N, C, *S) is the label's."""
    return xp.expand_dims(target, 1) == per_class(xp, xp.arange(x.shape[1]), len(x.shape))


@kernel_point
def softmax_cross_entropy(
    backend: Backend,
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array, Array]:
    """Minus the weighted log-probability of each label (N, *S) under the softmax of x (N, C, *S).

    Parameters
    ----------
    weight : of the classes, (C,), or None.
    label_smoothing : how much of each label is spread evenly over all classes.

    Returns
    -------
    Four arrays (N, 1, *S): the losses; the weights whose sum makes a mean of them; the greatest
    score; and the logarithm of the sum of exp(x - greatest).
    """
    xp = backend.xp
    if x.dtype.itemsize == 2:  # for which there may be a kernel now
        options = target, weight, ignore_index, label_smoothing
        return softmax_cross_entropy(backend, wide(xp, x), *options)
    greatest = xp.max(x, axis=1, keepdims=True)
    centred = x - greatest
    total = xp.log(xp.sum(xp.exp(centred), axis=1, keepdims=True))
    index, ignored, found = read_labels(xp, x, target, weight, ignore_index)
    losses = found * (total - xp.take_along_axis(centred, index, axis=1))
    if label_smoothing:
        costs = total - centred
        if weight is not None:
            costs = costs * per_class(xp, weight, len(x.shape))
        even = xp.sum(costs, axis=1, keepdims=True) / x.shape[1]
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    return xp.where(ignored, 0.0, losses), found, greatest, total


@kernel_point
def softmax_cross_entropy_grad_input(
    backend: Backend,
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
    """The gradient of x from dy (N, 1, *S), that of the losses of `softmax_cross_entropy`.

    ``found``, ``greatest`` and ``total`` are what that returned besides the losses.
    """
    xp = backend.xp
    if x.dtype.itemsize == 2:
        kept = target, weight, found, greatest, total, ignore_index, label_smoothing
        return softmax_cross_entropy_grad_input(backend, dy, wide(xp, x), *kept)
    wanted, mass = found * is_label(xp, x, target), found
    if label_smoothing:
        even = label_smoothing / x.shape[1]
        share = xp.ones((x.shape[1],), dtype=x.dtype) if weight is None else weight
        wanted = (1 - label_smoothing) * wanted + even * per_class(xp, share, len(x.shape))
        mass = (1 - label_smoothing) * mass + even * xp.sum(share)
    p = xp.exp(x - greatest - total)
    ignored = xp.expand_dims(target, 1) == ignore_index
    return xp.where(ignored, 0.0, dy * (mass * p - wanted))


def mean_of_labels(backend: Backend, losses: Array, weights: Array) -> tuple[Array, Array]:
    """The sum of the losses over that of the weights, in the accumulator dtype, and what one loss
    counts in it; NaN of no weights.
    """
    xp, accumulator = backend.xp, backend.accumulator(losses.dtype)
    count = xp.sum(weights, dtype=accumulator)
    share = 1 / xp.where(count == 0, math.nan, count)
    return xp.sum(losses, dtype=accumulator) * share, xp.astype(share, losses.dtype)


@kernel_point
def mean_cross_entropy(
    backend: Backend,
    x: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array, Array, Array]:
    """The mean of the losses of `softmax_cross_entropy` by their weights, what one of them counts
    in it, and what that returns besides.
    """
    options = target, weight, ignore_index, label_smoothing
    if x.dtype.itemsize == 2:
        return mean_cross_entropy(backend, wide(backend.xp, x), *options)
    losses, *rest = softmax_cross_entropy(backend, x, *options)
    return *mean_of_labels(backend, losses, rest[0]), *rest


@kernel_point
def mean_cross_entropy_grad_input(
    backend: Backend,
    dy: Array,
    share: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    found: Array,
    greatest: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """The gradient of x from that of the mean, a number: see `softmax_cross_entropy_grad_input`."""
    kept = target, weight, found, greatest, total, ignore_index, label_smoothing
    if x.dtype.itemsize == 2:
        x = wide(backend.xp, x)
        return mean_cross_entropy_grad_input(backend, dy, share, x, *kept)
    each = backend.xp.broadcast_to(dy * share, found.shape)
    return softmax_cross_entropy_grad_input(backend, each, x, *kept)
