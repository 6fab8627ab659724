"""Losses of each element of a prediction against its target, reduced in the same node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.config import at_each_replay
from tinygrad_bn.errors import ArgumentError, RangeError, ShapeError
from tinygrad_bn.ops.activation import require_floats
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import broadcastable
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.promotion import promote, require_tensor
from tinygrad_bn.ops.reduce import mean, sum

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class ElementLoss(Function):
    """A loss of each element, and their sum or mean; subclasses write the loss and its chain rule.

    Sixteen-bit floats are computed in float32, sums are taken in the backend's accumulator, and the
    result is rounded once. The mean over no elements is NaN.
    """

    broadcasts = True

    def forward(self, *inputs: Any, reduction: str, **options: Any) -> Array:
        xp, x = self.xp, inputs[0]
        self.arrays, self.options, self.share = inputs, options, 1.0
        losses = self.value(*self.widened(), **options)
        if reduction == "none":
            return narrow(xp, losses, x)
        total = xp.sum(losses, dtype=self.backend.accumulator(losses.dtype))
        if reduction != "sum":
            axes = x.shape[:1] if reduction == "batchmean" else x.shape
            count = math.prod(axes)
            self.share = 1 / count if count else math.nan
        return narrow(xp, total * self.share, x)

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        return self.chain(wide(self.xp, dy) * self.share, *self.widened(), **self.options)

    def widened(self) -> list[Array]:
        return [wide(self.xp, x) for x in self.arrays]

    def value(self, *inputs: Any, **options: Any) -> Array:
        """The loss of each element."""
        raise NotImplementedError

    def chain(self, *inputs: Any, **options: Any) -> tuple[Array | None, ...]:
        """The gradients of the inputs, from that of the losses, or one for all, and the inputs."""
        raise NotImplementedError


class SquaredError(ElementLoss):
    """(x - t)²."""

    def value(self, x: Array, t: Array) -> Array:
        d = x - t
        return d * d

    def chain(self, dy: Array, x: Array, t: Array) -> tuple[Array, Array]:
        dx = 2 * dy * (x - t)
        return dx, -dx


class AbsoluteError(ElementLoss):
    """|x - t|; the gradient at 0 is 0."""

    def value(self, x: Array, t: Array) -> Array:
        return self.xp.abs(x - t)

    def chain(self, dy: Array, x: Array, t: Array) -> tuple[Array, Array]:
        dx = dy * self.xp.sign(x - t)
        return dx, -dx


class HuberError(ElementLoss):
    """(x - t)² / 2 within ±width, beyond it linear with the same slope; times scale."""

    def value(self, x: Array, t: Array, *, width: float, scale: float) -> Array:
        distance = self.xp.abs(x - t)
        near = self.xp.minimum(distance, width)
        return scale * near * (distance - 0.5 * near)

    def chain(
        self, dy: Array, x: Array, t: Array, *, width: float, scale: float
    ) -> tuple[Array, Array]:
        dx = scale * dy * self.xp.clip(x - t, -width, width)
        return dx, -dx


class Divergence(ElementLoss):
    """t (log t - x), 0 where t is: what the divergence sums, for log-probabilities x."""

    def value(self, x: Array, t: Array, *, log_target: bool) -> Array:
        if log_target:
            return self.xp.exp(t) * (t - x)
        return t * (self.logarithm(t) - x)

    def chain(
        self, dy: Array, x: Array, t: Array, *, log_target: bool
    ) -> tuple[Array, Array | None]:
        density = self.xp.exp(t) if log_target else t
        dt = None
        if self.needs[1]:
            dt = density * (t - x + 1) if log_target else self.logarithm(t) + 1 - x
        return -dy * density, None if dt is None else dy * dt

    def logarithm(self, t: Array) -> Array:
        return self.xp.log(self.xp.where(t == 0, 1.0, t))


class BinaryCrossEntropy(ElementLoss):
    """-(t log x + (1 - t) log(1 - x)), with logarithms held at -100 from below."""

    def logarithms(self, x: Array) -> tuple[Array, Array]:
        """Of x and of 1 - x, without a division by zero at their poles."""
        xp = self.xp
        log_x = xp.maximum(xp.log(xp.where(x == 0, 1.0, x)), -100.0)
        log_rest = xp.maximum(xp.log1p(-xp.where(x == 1, 0.0, x)), -100.0)
        return xp.where(x == 0, -100.0, log_x), xp.where(x == 1, -100.0, log_rest)

    def value(self, x: Array, t: Array) -> Array:
        log_x, log_rest = self.logarithms(x)
        return -(t * log_x + (1 - t) * log_rest)

    def chain(self, dy: Array, x: Array, t: Array) -> tuple[Array, Array | None]:
        dx = dy * (x - t) / self.xp.maximum(x * (1 - x), 1e-12)
        if not self.needs[1]:
            return dx, None
        log_x, log_rest = self.logarithms(x)
        return dx, dy * (log_rest - log_x)


class BinaryCrossEntropyWithLogits(ElementLoss):
    """-(p t log σ(x) + (1 - t) log(1 - σ(x))); p = 1 where it is not given."""

    def softplus(self, x: Array) -> tuple[Array, Array]:
        """log(1 + eˣ) and log(1 + e⁻ˣ), that is -log(1 - σ(x)) and -log σ(x)."""
        xp = self.xp
        tail = xp.log1p(xp.exp(-xp.abs(x)))
        return xp.maximum(x, 0) + tail, xp.maximum(-x, 0) + tail

    def value(self, x: Array, t: Array, p: Array | None = None) -> Array:
        negative, positive = self.softplus(x)
        return (1 - t) * negative + (t if p is None else p * t) * positive

    def chain(self, dy: Array, x: Array, t: Array, p: Array | None = None) -> tuple[Any, ...]:
        s, rest, weight = self.xp.sigmoid(x), self.xp.sigmoid(-x), t if p is None else p * t
        dx, dt, dp = dy * ((1 - t) * s - weight * rest), None, None
        if True in self.needs[1:]:
            negative, positive = self.softplus(x)
            dt = dy * ((positive if p is None else p * positive) - negative)
            dp = dy * t * positive
        return (dx, dt) if p is None else (dx, dt, dp)


REDUCTIONS = ("none", "mean", "sum")


def require_reduction(reduction: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """Refuse an unknown reduction."""
    if reduction not in known:
        raise ArgumentError(f"expected reduction {', '.join(map(repr, known))}, got {reduction!r}")


def require_pair(input: Tensor, target: Tensor, name: str) -> None:
    """Refuse what is not two tensors of floats of one shape."""
    require_floats(input, name)
    require_tensor(target, "the target")
    require_floats(target, f"the target of {name}")
    if input.shape != target.shape:
        raise ShapeError(
            f"expected a target of the input's shape {input.shape} for {name}, got {target.shape}"
        )


def compare(
    operation: type[ElementLoss], input: Tensor, target: Tensor, reduction: str, **options: Any
) -> Tensor:
    """Check the two tensors, and apply in their common dtype."""
    require_pair(input, target, operation.__name__)
    loss = operation.apply(*promote(input, target), reduction=reduction, **options)
    return without_nan_targets(loss, target, reduction)


def without_nan_targets(loss: Tensor, target: Tensor, reduction: str) -> Tensor:
    """The loss; refused if NaN in the target is what made its sum or mean NaN.

    Asked on the CPU only, and only of a loss that is NaN: a GPU would have to stop. The losses of
    each element stay, so that those of missing targets can be masked.

    Raises
    ------
    ArgumentError
    """
    if reduction != "none" and not loss.is_cuda:
        at_each_replay(refuse_nan, target.backend, loss.array, target.array)
    return loss


def refuse_nan(backend: Backend, loss: Array, target: Array) -> None:
    if bool(loss != loss):
        missing = int(backend.xp.sum(backend.xp.isnan(target)))
        if missing:
            raise ArgumentError(
                f"expected a target without NaN, got NaN as {missing} of its {target.size} elements"
            )


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """The losses themselves, their mean or their sum."""
    return losses if reduction == "none" else mean(losses) if reduction == "mean" else sum(losses)


def weighted(
    loss: Callable[[str], Tensor], input: Tensor, target: Tensor, weight: Any, reduction: str
) -> Tensor:
    """A loss by its reduction, after each element was multiplied by a weight, if there is one."""
    if weight is None:
        return without_nan_targets(loss(reduction), target, reduction)
    require_floats(weight, "the weight")
    require_broadcast(weight, input, "weight")
    return without_nan_targets(reduce(loss("none") * weight, reduction), target, reduction)


def require_broadcast(x: Tensor, input: Tensor, name: str) -> None:
    """Refuse what does not broadcast to the shape of the input."""
    broadcastable(x, input)
    if x.ndim > input.ndim or any(m > n for m, n in zip(x.shape[::-1], input.shape[::-1])):  # noqa: B905
        raise ShapeError(f"expected a {name} that broadcasts to {input.shape}, got {x.shape}")


@under_autocast
def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(input - target)²; shapes must be equal, where PyTorch broadcasts them with a warning."""
    require_reduction(reduction)
    return compare(SquaredError, input, target, reduction)


@under_autocast
def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|input - target|."""
    require_reduction(reduction)
    return compare(AbsoluteError, input, target, reduction)


@under_autocast
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Half of the squared difference up to delta, linear with the same slope beyond."""
    require_reduction(reduction)
    if not delta > 0:
        raise ArgumentError(f"expected delta > 0, got {delta}")
    return compare(HuberError, input, target, reduction, width=delta, scale=1.0)


@under_autocast
def smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """The Huber loss of delta = beta, divided by beta; for beta = 0 the absolute difference."""
    require_reduction(reduction)
    if not beta >= 0:
        raise ArgumentError(f"expected beta ≥ 0, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return compare(HuberError, input, target, reduction, width=beta, scale=1 / beta)


@under_autocast
def kl_div(
    input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """The divergence of the target's distribution from the input's.

    Parameters
    ----------
    input : logarithms of probabilities.
    target : probabilities, or with ``log_target`` their logarithms.
    reduction : ``"batchmean"``, the sum over everything by the size of axis 0, is the divergence;
        ``"mean"``, which divides by the number of elements, is not. A scalar is one sample.

    Notes
    -----
    NaN in the target goes through, unlike in the other losses: it may be a logarithm.
    """
    require_reduction(reduction, (*REDUCTIONS, "batchmean"))
    require_pair(input, target, "kl_div")
    return Divergence.apply(  # type: ignore[no-any-return]
        *promote(input, target), reduction=reduction, log_target=log_target
    )


def refuse_outside_unit(backend: Backend, x: Array, name: str) -> None:
    if bool(backend.xp.any(backend.xp.logical_or(x < 0, x > 1))):
        raise RangeError(f"expected probabilities within [0, 1] as the {name}, got others")


@under_autocast
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """-(target log input + (1 - target) log(1 - input)), of probabilities.

    Parameters
    ----------
    weight : of each element; broadcasts to the input.

    Raises
    ------
    RangeError
        If a probability, of either, is outside of [0, 1]; on the CPU only, since to ask a GPU
        would stop it: what comes then is NaN, or means nothing.

    Notes
    -----
    Logarithms are held at -100, as in PyTorch, so that a wrong certainty costs 100 and not
    infinity. NaN goes through, where PyTorch raises.
    """
    require_reduction(reduction)
    require_pair(input, target, "binary_cross_entropy")
    for name, x in (("input", input), ("target", target)):
        if not x.is_cuda:
            at_each_replay(refuse_outside_unit, x.backend, x.array, name)
    return weighted(
        lambda how: compare(BinaryCrossEntropy, input, target, how),
        input,
        target,
        weight,
        reduction,
    )


@under_autocast
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), exact to rounding for every input.

    Parameters
    ----------
    weight : of each element; broadcasts to the input.
    pos_weight : of the positive part, target * log(sigmoid(input)); broadcasts to the input.
    """
    require_reduction(reduction)
    require_pair(input, target, "binary_cross_entropy_with_logits")
    operands = [input, target]
    if pos_weight is not None:
        require_floats(pos_weight, "pos_weight")
        require_broadcast(pos_weight, input, "pos_weight")
        operands.append(pos_weight)
    operands = list(promote(*operands))

    def loss(how: str) -> Tensor:
        return BinaryCrossEntropyWithLogits.apply(*operands, reduction=how)  # type: ignore[no-any-return]

    return weighted(loss, input, target, weight, reduction)
