"""Losses of scores for classes, against labels or against probabilities of the classes.

In the maths scores are x (N, C, *S) and labels (N, *S); what there is one of for each label has
an axis of size 1 in place of the classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.config import at_each_replay
from tinygrad_bn.dtypes import float32, int64
from tinygrad_bn.errors import ArgumentError, DtypeError, GradientError, RangeError, ShapeError
from tinygrad_bn.ops.activation import require_floats
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.loss import require_reduction, without_nan_targets
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.probability import log_sum
from tinygrad_bn.ops.promotion import cast, is_floating, promote, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


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
    wanted, mass = found * is_label(xp, x, target), found
    if label_smoothing:
        even = label_smoothing / x.shape[1]
        share = xp.ones((x.shape[1],), dtype=x.dtype) if weight is None else weight
        wanted = (1 - label_smoothing) * wanted + even * per_class(xp, share, len(x.shape))
        mass = (1 - label_smoothing) * mass + even * xp.sum(share)
    p = xp.exp(x - greatest - total)
    ignored = xp.expand_dims(target, 1) == ignore_index
    return xp.where(ignored, 0.0, dy * (mass * p - wanted))


class LabelLoss(Function):
    """How losses of labels are reduced, and how the gradient comes back to each of them."""

    shape: tuple[int, ...]
    share: Any

    def reduced(self, losses: Array, weights: Array, target: Array, reduction: str) -> Array:
        """The losses (N, 1, *S) in the target's shape, their sum, or that by the weights' sum."""
        xp, self.shape, self.share = self.xp, losses.shape, 1.0
        if reduction == "none":
            return xp.reshape(losses, target.shape)
        accumulator = self.backend.accumulator(losses.dtype)
        y = xp.sum(losses, dtype=accumulator)
        if reduction == "mean":
            count = xp.sum(weights, dtype=accumulator)
            share = 1 / xp.where(count == 0, math.nan, count)
            self.share, y = xp.astype(share, losses.dtype), y * share
        return y

    def of_each(self, dy: Array) -> Array:
        """The gradient of the losses (N, 1, *S)."""
        dy = wide(self.xp, dy) * self.share
        return self.xp.reshape(dy, self.shape) if dy.shape else self.xp.broadcast_to(dy, self.shape)


class CrossEntropy(LabelLoss):
    """Minus the log-probability of labels under the softmax of scores."""

    def forward(
        self,
        x: Array,
        target: Array,
        weight: Array | None,
        *,
        ignore_index: int,
        label_smoothing: float,
        reduction: str,
    ) -> Array:
        self.x, self.target, self.weight = x, target, weight
        self.options = ignore_index, label_smoothing
        losses, self.found, self.greatest, self.total = softmax_cross_entropy(
            self.backend, wide(self.xp, x), target, weight, ignore_index, label_smoothing
        )
        return narrow(self.xp, self.reduced(losses, self.found, target, reduction), x)

    def backward(self, dy: Array, /) -> tuple[Array, None, None]:
        x, dy = wide(self.xp, self.x), self.of_each(dy)
        kept = self.target, self.weight, self.found, self.greatest, self.total
        dx = softmax_cross_entropy_grad_input(self.backend, dy, x, *kept, *self.options)
        return dx, None, None


class SoftCrossEntropy(LabelLoss):
    """The cross-entropy of given probabilities t and the softmax of scores x."""

    def forward(
        self, x: Array, t: Array, weight: Array | None, *, label_smoothing: float, reduction: str
    ) -> Array:
        xp = self.xp
        self.x, self.t, self.weight, self.smoothing = x, t, weight, label_smoothing
        log_p, q = self.parts()
        costs = q * xp.where(q == 0, 0.0, log_p)  # 0 log 0 is 0
        losses = -xp.sum(costs, axis=1, keepdims=True)
        shape = (x.shape[0], *x.shape[2:])
        y = self.reduced(losses, xp.ones_like(losses), xp.zeros(shape), reduction)
        return narrow(xp, y, x)

    def parts(self) -> tuple[Array, Array]:
        """The logarithm of the softmax, and the smoothed and weighted probabilities."""
        x, q = wide(self.xp, self.x), wide(self.xp, self.t)
        centred, total = log_sum(self.xp, x, 1)
        if self.smoothing:
            q = (1 - self.smoothing) * q + self.smoothing / x.shape[1]
        if self.weight is not None:
            q = q * per_class(self.xp, self.weight, len(x.shape))
        return centred - total, q

    def backward(self, dy: Array, /) -> tuple[Array, Array | None, None]:
        xp, dy, (log_p, q) = self.xp, self.of_each(dy), self.parts()
        dx = dy * (xp.exp(log_p) * xp.sum(q, axis=1, keepdims=True) - q)
        if not self.needs[1]:
            return dx, None, None
        dt = -(1 - self.smoothing) * dy * log_p
        if self.weight is not None:
            dt = dt * per_class(xp, self.weight, len(log_p.shape))
        return dx, dt, None


class NegativeLogLikelihood(LabelLoss):
    """Minus the given log-probability of labels."""

    def forward(
        self, x: Array, target: Array, weight: Array | None, *, ignore_index: int, reduction: str
    ) -> Array:
        xp = self.xp
        x = wide(xp, like := x)
        index, ignored, self.found = read_labels(xp, x, target, weight, ignore_index)
        self.chosen = is_label(xp, x, target)
        losses = xp.where(ignored, 0.0, -self.found * xp.take_along_axis(x, index, axis=1))
        return narrow(xp, self.reduced(losses, self.found, target, reduction), like)

    def backward(self, dy: Array, /) -> tuple[Array, None, None]:
        return self.xp.where(self.chosen, -self.of_each(dy) * self.found, 0.0), None, None


def require_labels(input: Tensor, target: Tensor, ignore_index: int, name: str) -> None:
    """Refuse labels of another shape or dtype than the scores call for, or that are no class.

    A GPU would have to stop for the last of it; there such a label makes its loss NaN.
    """
    wanted = input.shape[:1] + input.shape[2:] if input.ndim > 1 else ()
    if target.dtype.kind not in "iu":
        raise DtypeError(f"expected integers as the labels of {name}, got {target.dtype}")
    if target.shape != wanted:
        raise ShapeError(
            f"expected labels {wanted} for scores {input.shape} (N, C, *S), got {target.shape}"
        )
    if target.is_cuda or not target.array.size:
        return
    classes = input.shape[min(1, input.ndim - 1)]
    at_each_replay(refuse_others, target.backend, target.array, classes, ignore_index)


def refuse_others(backend: Backend, labels: Array, classes: int, ignore_index: int) -> None:
    """Refuse labels that are no class and not to be ignored."""
    xp = backend.xp
    if int(xp.min(labels)) >= 0 and int(xp.max(labels)) < classes:
        return
    outside = xp.logical_or(labels < 0, labels >= classes)
    wrong = labels[xp.logical_and(outside, labels != ignore_index)]
    if wrong.size:
        raise RangeError(
            f"expected labels of {classes} classes, or {ignore_index} to ignore, "
            f"got {int(wrong[0])}"
        )


def require_scores(input: Tensor, target: Tensor, name: str) -> None:
    require_floats(input, name)
    require_tensor(target, "the target")
    if not input.ndim or input.shape[min(1, input.ndim - 1)] == 0:
        raise ShapeError(f"expected scores (N, C, *S) or (C,) of some classes, got {input.shape}")


def class_weight(input: Tensor, weight: Tensor | None) -> Tensor | None:
    """The weights of the classes, checked, in the dtype that the loss is computed in."""
    if weight is None:
        return None
    require_floats(weight, "the weight")
    classes = input.shape[min(1, input.ndim - 1)]
    if weight.shape != (classes,):
        raise ShapeError(f"expected a weight for each class, ({classes},), got {weight.shape}")
    if weight.requires_grad:
        raise GradientError("expected class weights without a gradient; use weight.detach()")
    half = input.dtype.itemsize == 2
    return cast(weight, float32 if half else input.dtype)  # type: ignore[no-any-return]


def batched(
    operation: type[Function],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    **options: Any,
) -> Tensor:
    """Apply; to a single sample as to a batch of one."""
    if input.ndim > 1:
        return operation.apply(input, target, weight, **options)  # type: ignore[no-any-return]
    single: Tensor = operation.apply(input.unsqueeze(0), target.unsqueeze(0), weight, **options)
    return single.reshape(())


@under_autocast
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Minus the log-probability of the target under the softmax of the input's scores.

    Parameters
    ----------
    input : scores ("logits") of the classes, not normalized.
    target : the labels, integers within [0, C); or probabilities of the classes, floats of the
        input's shape.
    weight : of each class. The mean is then by the sum of the labels' weights; with probabilities,
        by their number.
    ignore_index : a label that costs nothing and does not count.
    label_smoothing : within [0, 1]: how much of each target is spread evenly over all classes.

    Shapes
    ------
    input: (N, C, *S) or (C,); labels: (N, *S) or (); weight: (C,).
    Output: as the labels, or () when reduced.

    Raises
    ------
    RangeError
        For a label that is no class. On a GPU, which would have to stop for the check, its loss
        is NaN.

    Notes
    -----
    The mean over no label, of an empty batch or where all are ignored, is NaN, as in PyTorch; the
    sum is 0. Labels may have any integer dtype. A class of probability 0 costs nothing, also where
    its score is -inf, for which PyTorch has NaN.

    References
    ----------
    Label smoothing: Szegedy et al. (2016), "Rethinking the Inception Architecture for Computer
    Vision", arXiv:1512.00567, section 7.
    """
    require_reduction(reduction)
    require_scores(input, target, "cross_entropy")
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"expected label_smoothing within [0, 1], got {label_smoothing}")
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    if not is_floating(target.dtype):
        require_labels(input, target, ignore_index, "cross_entropy")
        weight, target = class_weight(input, weight), cast(target, int64)
        return batched(CrossEntropy, input, target, weight, ignore_index=ignore_index, **options)
    if target.shape != input.shape:
        raise ShapeError(
            f"expected probabilities of the input's shape {input.shape}, or integers as labels, "
            f"got {target.dtype} {target.shape}"
        )
    if ignore_index >= 0:
        raise ArgumentError(f"expected labels to ignore {ignore_index} of, got probabilities")
    input, target = promote(input, target)
    loss = batched(SoftCrossEntropy, input, target, class_weight(input, weight), **options)
    return without_nan_targets(loss, target, reduction)


@under_autocast
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the labels, where the input has the log-probabilities.

    Arguments, shapes, errors and the mean over no label are those of `cross_entropy`.
    """
    require_reduction(reduction)
    require_scores(input, target, "nll_loss")
    require_labels(input, target, ignore_index, "nll_loss")
    options = {"reduction": reduction, "ignore_index": ignore_index}
    weight, target = class_weight(input, weight), cast(target, int64)
    return batched(NegativeLogLikelihood, input, target, weight, **options)
