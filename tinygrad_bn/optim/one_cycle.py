"""The one-cycle policy."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.optimizer import Group, Optimizer
from tinygrad_bn.optim.scheduler import LRScheduler, for_each_group, require_optimizer


class OneCycleLR(LRScheduler):
    """Once up to ``max_lr`` and down to almost nothing, and with the momentum down and up.

    ``step()`` is called after every batch.

    Parameters
    ----------
    max_lr : the peak; one value, or one for each group.
    total_steps, epochs, steps_per_epoch : the length of the cycle in batches, or the two factors
        of it.
    pct_start : the share of the cycle in which the learning rate rises.
    anneal_strategy : along which curve, ``"cos"`` or ``"linear"``.
    cycle_momentum, base_momentum, max_momentum : whether the momentum, or β₁, moves the other way,
        and between
        which values.
    div_factor, final_div_factor : max_lr / div_factor is where the cycle begins; that over
        final_div_factor, where
        it ends.
    three_phase : come down to the beginning as fast as up, and only then to the end.

    References
    ----------
    Smith & Topin (2018), arXiv:1708.07120.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        require_optimizer(optimizer)
        self.total_steps = length(total_steps, epochs, steps_per_epoch)
        if not 0 <= pct_start <= 1:
            raise ArgumentError(f"expected pct_start in [0, 1], got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"expected 'cos' or 'linear', got {anneal_strategy!r}")
        known = optimizer.defaults.keys() & {"momentum", "betas"}
        if cycle_momentum and not known:
            raise ArgumentError("expected an optimizer with momentum or betas to cycle")
        self.pct_start = pct_start
        self.anneal_strategy, self.three_phase = anneal_strategy, three_phase
        self.cycle_momentum, self.use_beta1 = cycle_momentum, "betas" in known
        ends = {"max_lr": max_lr, "max_momentum": max_momentum, "base_momentum": base_momentum}
        if not cycle_momentum:
            ends = {"max_lr": max_lr}
        values = {name: for_each_group(optimizer, name, value) for name, value in ends.items()}
        for i, group in enumerate(optimizer.param_groups if last_epoch == -1 else ()):
            group.update({name: value[i] for name, value in values.items()})
            group["initial_lr"] = group["max_lr"] / div_factor
            group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def phases(self) -> list[tuple[float, str, str, str, str]]:
        """When each phase ends, and between which of a group's values it moves."""
        peak, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        up = (peak, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        if not self.three_phase:
            return [up, (end, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        down = (2 * peak, "max_lr", "initial_lr", "base_momentum", "max_momentum")
        return [up, down, (end, "initial_lr", "min_lr", "max_momentum", "max_momentum")]

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ArgumentError(
                f"expected at most {self.total_steps} steps, the length of the cycle, got one more"
            )
        return [self.moved(group) for group in self.optimizer.param_groups]

    def moved(self, group: Group) -> float:
        """The learning rate of a group now; its momentum is set."""
        start = 0.0
        phases = self.phases()
        for phase in phases:
            if self.last_epoch <= phase[0] or phase is phases[-1]:
                break
            start = phase[0]
        end, *names = phase
        share = (self.last_epoch - start) / (end - start) if end != start else 1.0
        values: list[Any] = [group.get(name) for name in names]
        if self.cycle_momentum:
            momentum = self.between(values[2], values[3], share)
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return self.between(values[0], values[1], share)

    def between(self, start: float, end: float, share: float) -> float:
        """The value ``share`` of the way from start to end."""
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def length(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """How many steps a cycle has.

    Raises
    ------
    ArgumentError
        If that is not said, or is not a whole number ≥ 1.
    """
    if total_steps is None and epochs is not None and steps_per_epoch is not None:
        total_steps = epochs * steps_per_epoch
    if not isinstance(total_steps, int) or total_steps < 1:
        raise ArgumentError(
            "expected total_steps ≥ 1, or epochs and steps_per_epoch, got "
            f"{total_steps}, {epochs} and {steps_per_epoch}"
        )
    return total_steps
