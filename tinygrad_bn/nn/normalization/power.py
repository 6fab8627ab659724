"""Power normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_bn.backend import current
from tinygrad_bn.config import as_first_seen
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.normalization.channels import ChannelNormalization
from tinygrad_bn.ops.batch_normalization import Moments, move_towards
from tinygrad_bn.ops.power_normalization import (
    moved_nu,
    power_normalized,
    power_normalized_by_running,
)
from tinygrad_bn.tensors import Buffer, Tensor


class PowerNorm(ChannelNormalization):
    """Power normalization of (N, C, *S): each channel over its quadratic mean, which past the first
    batches is a running one in training too.

        y = γ x / ψ + β,    ψ² = running_mean_square + ε

    For the first ``warmup`` batches ψ² is the mean square of the batch and its positions, plus ε.
    The running mean square moves towards that of every batch, after its use.

    **Its gradient is by design not the derivative of what it computes.** A running ψ would be a
    constant to the derivative; what batch statistics would take from the gradient is missing then,
    and training may diverge. The paper takes an average of it instead:

        g = γ dy,    dx = (g - ν x̂) / ψ,    x̂ = x / ψ
        ν moves to ν (1 - b Γ) + b Λ,    Γ = mean(x̂²),    Λ = mean(g x̂)

    where b is ``backward_momentum``. In the warm-up Λ itself stands for ν, which is the derivative.
    The gradients of γ and β are exact, and gradients of gradients are those of these formulas.

    Parameters
    ----------
    num_features : the number of channels C.
    eps : ε, added to the mean square.
    momentum : the weight of the newest batch in the running mean square (1 - α in the paper); None
        averages all batches alike.
    affine : whether γ (``weight``) and β (``bias``) exist and are learned.
    backward_momentum : the weight of the newest gradient in ν (1 - α in the paper).
    warmup : for how many batches the batch's own statistics normalise. ``num_batches_tracked``
        counts them, so that a state dict takes the count along.
    bias, axis, on_single : as for `BatchNorm1d`.

    Shapes
    ------
    input (N, C, *S) of any rank from 2, or with C at another ``axis``: tokens (N, L, C) take
    ``axis=-1``; mask, where one is given in the call, (N, *S), true for tokens and false for
    padding, which is normalised too, but has no part in ψ, nor loses of its gradient what ψ takes;
    the result as input.

    Raises
    ------
    ShapeError
        For another number of channels, and for less than two values a channel in training.
    ArgumentError
        For an ε below 0, and for 0 in training; for a ``backward_momentum`` outside of [0, 1], or a
        ``warmup`` below 0.
    StateError
        In training without its running statistics, or their count.

    Notes
    -----
    Made for transformers, where batch statistics vary too much for batch norm: prefer it to layer
    norm where inference should have no statistics to compute. Frozen, or in evaluation, it is an
    affine map with the derivative of one.

    ν (``running_nu``) moves when the first gradient of a call's output arrives, once for each call,
    and in the units of the loss: a loss that is scaled scales it too. A gradient that is not finite
    leaves it alone. Inside of ``accumulate_statistics`` the mean square moves once, ν with every
    micro-batch.

    It departs from the authors' code and not from the paper in that dx is divided by the ψ of the
    forward, not by the batch's. The code scales each token by its root mean square first: that is
    ``Sequential(RMSNorm(C, elementwise_affine=False), PowerNorm(C, axis=-1))``.

    References
    ----------
    Shen et al. 2020, arXiv:2003.07845, sections 4.1 (the warm-up) and 4.2, algorithm 2.
    """

    statistics = {"running_mean_square": 1.0, "running_nu": 0.0}
    running_mean_square: Buffer
    running_nu: Buffer

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: object = None,
        dtype: Any = None,
        *,
        backward_momentum: float = 0.1,
        warmup: int = 10000,
        bias: bool = True,
        axis: int = 1,
        on_single: str = "error",
    ) -> None:
        if not 0 <= backward_momentum <= 1:
            raise ArgumentError(f"expected backward_momentum in [0, 1], got {backward_momentum}")
        if not warmup >= 0:
            raise ArgumentError(f"expected warmup ≥ 0, got {warmup}")
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
            running_var_correction="biased",
            on_single=on_single,
        )
        self.backward_momentum = backward_momentum
        self.warmup = warmup

    def normalized_by_batch(
        self, input: Tensor, mask: Tensor | None, axis: int, counts: Sequence[int]
    ) -> tuple[Tensor, Moments]:
        running, nu, warm = as_first_seen(self.snapshot)
        place: dict[str, int] = {"axis": axis, "count": sum(counts)}
        y, square, rstd = power_normalized(
            input, self.weight, self.bias, mask, running, nu, warm, eps=self.eps, **place
        )
        if y.requires_grad:
            y.register_hook(NuFollows(self, input, mask, square, rstd, **place))
        with current(input.backend):
            zero = input.wrap_like(input.backend.xp.zeros_like(square.array))
        return y, Moments(zero, square, sum(counts))

    def snapshot(self) -> tuple[Tensor, Tensor, Tensor]:
        """The running mean square and ν before this batch, and whether it is one of the warm-up."""
        seen = self.num_batches_tracked
        if seen is None or not self.tracked:
            raise StateError(
                f"expected {', '.join(self.statistics)} and num_batches_tracked, got None"
            )
        return (
            self.running_mean_square.detach().clone(),
            self.running_nu.detach().clone(),
            seen.detach() < self.warmup,
        )

    def follow(self, moments: Moments, rate: float | Tensor, count: Tensor | None = None) -> None:
        move_towards(None, self.running_mean_square, moments, rate, "biased", count)

    def normalized_by_running(self, input: Tensor, axis: int) -> Tensor:
        return power_normalized_by_running(
            input, self.running_mean_square, self.weight, self.bias, eps=self.eps, axis=axis
        )

    def extra_repr(self) -> str:
        parts = [
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}",
            f"backward_momentum={self.backward_momentum}, warmup={self.warmup}",
            f"axis={self.axis}" if self.axis != 1 else "",
            f"on_single={self.on_single!r}" if self.on_single != "error" else "",
            "stats_frozen=True" if self.stats_frozen else "",
        ]
        return ", ".join(part for part in parts if part)


class NuFollows:
    """A hook on the output of a forward: it moves ν by the first gradient that comes."""

    def __init__(
        self,
        layer: PowerNorm,
        input: Tensor,
        mask: Tensor | None,
        square: Tensor,
        rstd: Tensor,
        **place: int,
    ) -> None:
        self.layer, self.input, self.mask = layer, input.detach(), mask
        self.square, self.rstd, self.place = square, rstd, place
        self.done = False

    def __call__(self, dy: Tensor) -> None:
        if self.done:
            return
        self.done = True
        nu, rate, weight = self.layer.running_nu, self.layer.backward_momentum, self.layer.weight
        moved = moved_nu(
            nu, rate, dy, self.input, weight, self.mask, self.square, self.rstd, **self.place
        )
        nu.overwrite(moved)
