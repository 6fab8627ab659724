"""Losses of scores for classes, against labels or against probabilities of the classes.

In the maths scores are x (N, C, *S) and labels (N, *S); what there is one of for each label has
an axis of size 1 in place of the classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.config import at_each_replay
from tinygrad_bn.dtypes import float32, int64
from tinygrad_bn.errors import ArgumentError, DtypeError, GradientError, RangeError, ShapeError
from tinygrad_bn.ops.activation import require_floats
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.label_costs import (
    is_label,
    mean_cross_entropy,
    mean_cross_entropy_grad_input,
    mean_of_labels,
    per_class,
    read_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_grad_input,
)
from tinygrad_bn.ops.loss import REDUCTIONS, require_reduction, without_nan_targets
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.probability import log_sum
from tinygrad_bn.ops.promotion import cast, is_floating, promote, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class LabelLoss(Function):
    """How losses of labels are reduced, and how the gradient comes back to each of them."""

    shape: tuple[int, ...]
    share: Any

    def reduced(self, losses: Array, weights: Array, target: Array, reduction: str) -> Array:
        """The losses (N, 1, *S) in the target's shape, their sum, or that by the weights' sum."""
        xp, self.shape, self.share = self.xp, losses.shape, 1.0
        if reduction == "none":
            return xp.reshape(losses, target.shape)
        if reduction == "mean":
            y, self.share = mean_of_labels(self.backend, losses, weights)
            return y
        return xp.sum(losses, dtype=self.backend.accumulator(losses.dtype))

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
        weight: Array | None = None,
        *,
        ignore_index: int,
        label_smoothing: float,
        reduction: str,
    ) -> Array:
        xp, self.x, self.target, self.weight = self.xp, x, target, weight
        self.options = ignore_index, label_smoothing
        self.of_mean = reduction == "mean"
        given = x, target, weight, ignore_index, label_smoothing
        if self.of_mean:
            y, self.share, *self.kept = mean_cross_entropy(self.backend, *given)
            return narrow(xp, y, x)
        losses, *self.kept = softmax_cross_entropy(self.backend, *given)
        return narrow(xp, self.reduced(losses, self.kept[0], target, reduction), x)

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        kept = self.x, self.target, self.weight, *self.kept, *self.options
        if self.of_mean:
            dy = wide(self.xp, dy)
            dx = mean_cross_entropy_grad_input(self.backend, dy, self.share, *kept)
        else:
            dx = softmax_cross_entropy_grad_input(self.backend, self.of_each(dy), *kept)
        return dx, *(None,) * (len(self.needs) - 1)


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
    shape, labels = input.array.shape, target.array
    wanted = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"expected integers as the labels of {name}, got {labels.dtype}")
    if labels.shape != wanted:
        raise ShapeError(
            f"expected labels {wanted} for scores {shape} (N, C, *S), got {labels.shape}"
        )
    if target.backend.guard is None and labels.size:
        classes = shape[1 if len(shape) > 1 else 0]
        at_each_replay(refuse_others, target.backend, labels, classes, ignore_index)


def refuse_others(backend: Backend, labels: Array, classes: int, ignore_index: int) -> None:
    """Refuse labels that are no class and not to be ignored."""
    if are_classes(backend, labels, classes, ignore_index):
        return
    xp = backend.xp
    outside = xp.logical_or(labels < 0, labels >= classes)
    wrong = labels[xp.logical_and(outside, labels != ignore_index)]
    if wrong.size:
        raise RangeError(
            f"expected labels of {classes} classes, or {ignore_index} to ignore, "
            f"got {int(wrong[0])}"
        )


def are_classes(backend: Backend, labels: Array, classes: int, ignore_index: int) -> bool:
    """Whether no label is wrong, for all that can be told quickly."""
    check = backend.kernels.get("refuse_others") if labels.dtype == int64 else None
    if check is None:
        return int(backend.xp.min(labels)) >= 0 and int(backend.xp.max(labels)) < classes
    try:
        check.run(backend, labels, classes, ignore_index)
    except ValueError:
        return False
    return True


def require_scores(input: Tensor, target: Tensor, name: str) -> None:
    if not (isinstance(input, Variable) and input.array.dtype.kind == "f"):
        require_floats(input, name)
    if not isinstance(target, Variable):
        require_tensor(target, "the target")
    shape = input.array.shape
    if not shape or shape[1 if len(shape) > 1 else 0] == 0:
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
    if input.array.ndim > 1:
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
    if reduction not in REDUCTIONS:
        require_reduction(reduction)
    require_scores(input, target, "cross_entropy")
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"expected label_smoothing within [0, 1], got {label_smoothing}")
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    kind = target.array.dtype
    if not is_floating(kind):
        require_labels(input, target, ignore_index, "cross_entropy")
        target = target if kind is int64 else cast(target, int64)
        options["ignore_index"] = ignore_index
        if weight is None and input.array.ndim > 1:  # as most often, and quicker
            return CrossEntropy.apply(input, target, **options)  # type: ignore[no-any-return]
        return batched(CrossEntropy, input, target, class_weight(input, weight), **options)
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
