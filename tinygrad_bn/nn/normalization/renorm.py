"""Batch renormalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.config import as_first_seen, no_grad
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.normalization.batch import BatchNorm
from tinygrad_bn.ops.batch_normalization import Moments, moments_of, normalized_by_batch
from tinygrad_bn.tensors import Tensor


@dataclass(frozen=True, slots=True)
class RenormRamp:
    """A bound that stays at ``first`` for ``start`` batches, then goes to ``last`` in a straight
    line, and is there when ``stop`` batches have been seen.

    Raises
    ------
    ArgumentError
        Unless 0 ≤ start < stop.
    """

    first: float
    last: float
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ArgumentError(f"expected 0 ≤ start < stop, got {self.start} and {self.stop}")

    def __call__(self, batches: Tensor) -> Tensor:
        """The bound after so many batches, a whole number of rank 0."""
        passed = ((batches.double() - self.start) / (self.stop - self.start)).clamp(0, 1)
        return passed * (self.last - self.first) + self.first


Bound = float | Callable[[Tensor], Tensor | float]


class BatchRenorm(BatchNorm):
    """Batch renormalization of (N, C, *S): batch norm, whose output is corrected towards what the
    running statistics would give.

        x̂ = (x - mean) / √(var + ε) · r + d,    y = γ x̂ + β
        r = √(var + ε) / √(running_var + ε), held within [1 / r_max, r_max]
        d = (mean - running_mean) / √(running_var + ε), held within [-d_max, d_max]

    r and d are constants to the gradient, which goes through the batch's mean and variance as in
    batch norm. Where neither is at its bound, training gives what evaluation gives. The running
    statistics are those before this batch.

    Parameters
    ----------
    num_features : the number of channels C.
    r_max, d_max : the bounds of the correction: numbers, which may be set anew at any time, or
        functions of the number of batches seen, such as a `RenormRamp`. By default those of the
        paper: no correction for 5000 batches, then r_max grows to 3 until batch 40000, and d_max to
        5 until batch 25000. ``num_batches_tracked`` drives them, so that a state dict takes them
        along.
    momentum : the weight of the newest batch in the running statistics; None averages all batches
        alike. It is smaller than batch norm's by default, since training depends on what it
        averages.
    eps, affine, bias, axis, running_var_correction, on_single : as for `BatchNorm1d`.

    Shapes
    ------
    input (N, C, *S) of any rank from 2, or with C at another ``axis``; mask, where one is given in
    the call, (N, *S), true where the input counts for the batch's statistics; the result as input.

    Raises
    ------
    ShapeError
        For another number of channels, and for less than two values a channel in training.
    ArgumentError
        For an ``r_max`` below 1, a ``d_max`` below 0, an ε below 0, and 0 in training.

    Notes
    -----
    Prefer it to batch norm for small batches, and for batches whose samples are not independent,
    such as several of each class. With r_max = 1 and d_max = 0 it is batch norm. A run of fewer
    batches than the paper's wants shorter ramps: ``r_max=RenormRamp(1, 3, 500, 4000)``.

    It departs from the paper in what is averaged: the variance, as in batch norm, so that state
    dicts are those of batch norm, where the paper averages the standard deviation; the paper's
    variance is the "biased" one. Evaluation, and freezing and folding, are those of batch norm.

    References
    ----------
    Ioffe 2017, arXiv:1702.03275, algorithm 1 and section 4.
    """

    _dispensable = frozenset()  # the bounds depend on the count

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        r_max: Bound = RenormRamp(1, 3, 5000, 40000),
        d_max: Bound = RenormRamp(0, 5, 5000, 25000),
        bias: bool = True,
        axis: int = 1,
        running_var_correction: str = "unbiased",
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            True,
            device,
            dtype,
            bias=bias,
            axis=axis,
            running_var_correction=running_var_correction,
            on_single=on_single,
        )
        self.r_max = r_max
        self.d_max = d_max

    @property
    def r_max(self) -> Bound:
        """The bound of r and of 1 / r."""
        return self._r_max

    @r_max.setter
    def r_max(self, bound: Bound) -> None:
        self._r_max = checked(bound, "r_max", 1)

    @property
    def d_max(self) -> Bound:
        """The bound of d and of -d."""
        return self._d_max

    @d_max.setter
    def d_max(self, bound: Bound) -> None:
        self._d_max = checked(bound, "d_max", 0)

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        if not self.tracked:
            return super().normalized_by_batch(input, mask, axis, counts)
        moments = moments_of(input, mask, axis, sum(counts))
        r, d = as_first_seen(lambda: self.correction(moments))
        weight, bias = r, d  # γ (x̂ r + d) + β = (γ r) x̂ + (γ d + β)
        if self.weight is not None:
            weight, bias = self.weight.double() * r, self.weight.double() * d
        if self.bias is not None:
            bias = bias + self.bias
        return normalized_by_batch(
            input, weight, bias, mask, eps=self.eps, axis=axis, counts=counts, known=moments
        )

    @no_grad()
    def correction(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """r and d of each channel, for a batch with these moments."""
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        r_max, d_max = self.bound("r_max"), self.bound("d_max")
        std = (var.double() + self.eps).sqrt()
        r = (moments.var + self.eps).sqrt() / std
        d = (moments.mean - mean) / std
        return r.clamp(1 / r_max, r_max), d.clamp(-d_max, d_max)

    def bound(self, name: str) -> Tensor | float:
        """``r_max`` or ``d_max`` after the batches seen so far.

        Raises
        ------
        StateError
            If it depends on them and nobody has counted.
        """
        bound, seen = getattr(self, name), self.num_batches_tracked
        if not callable(bound):
            return bound  # type: ignore[no-any-return]
        if seen is None:
            raise StateError(f"expected num_batches_tracked for {name}={bound}, got None")
        return bound(seen.detach())  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


def checked(bound: Bound, name: str, low: float) -> Bound:
    """The bound; refused if it is a number below ``low``."""
    if not callable(bound) and not bound >= low:
        raise ArgumentError(f"expected {name} ≥ {low}, or a function of the batches, got {bound}")
    return bound
