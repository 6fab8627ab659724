"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.optim.optimizer import Optimizer
from tinygrad_bn.optim.plateau import ReduceLROnPlateau
from tinygrad_bn.optim.scheduler import LRScheduler


class Composed(LRScheduler):
    """What both have: schedules of one optimizer."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        if not schedulers:
            raise ArgumentError("expected at least one schedule, got none")
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentError("expected schedules that need no metric, got ReduceLROnPlateau")
            if scheduler.optimizer is not optimizer:
                raise ArgumentError("expected schedules of one optimizer, got one of another")
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def _undo(self) -> None:
        for scheduler in self._schedulers:
            scheduler._undo()

    def state_dict(self) -> dict[str, Any]:
        """What the schedules remember."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        states = state_dict.get("_schedulers", ())
        if len(states) != len(self._schedulers):
            raise StateError(
                f"expected the states of {len(self._schedulers)} schedules, got {len(states)}"
            )
        schedulers = self._schedulers
        super().load_state_dict(state_dict)
        self._schedulers = schedulers
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)


class ChainedScheduler(Composed):
    """All schedules at once: each changes what the one before it set."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        if not schedulers:
            raise ArgumentError("expected at least one schedule, got none")
        super().__init__(optimizer or schedulers[0].optimizer, schedulers)

    def step(self) -> None:
        self._all(lambda scheduler: scheduler.step())

    def restart(self) -> None:
        self._all(lambda scheduler: scheduler.restart())

    def _begin(self) -> None:
        self._all(lambda scheduler: scheduler._begin())

    def _all(self, action: Callable[[LRScheduler], None]) -> None:
        for scheduler in self._schedulers:
            action(scheduler)
        self._last_lr = self._schedulers[-1].get_last_lr()


class SequentialLR(Composed):
    """One schedule after the other: the next begins at each of the epochs ``milestones``."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                f"expected {len(schedulers) - 1} milestones between {len(schedulers)} schedules, "
                f"got {len(milestones)}"
            )
        self._milestones = list(milestones)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self._undo()
        self._begin()
        self.last_epoch = last_epoch + 1

    def _begin(self) -> None:
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._begin()
        self._last_lr = first.get_last_lr()

    def restart(self) -> None:
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first.restart()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:
        self.last_epoch += 1
        position = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[position]
        if position > 0 and self._milestones[position - 1] == self.last_epoch:
            scheduler.restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()
