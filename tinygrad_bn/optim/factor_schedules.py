"""Schedules that are a formula of the epoch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.optimizer import Optimizer
from tinygrad_bn.optim.scheduler import FactorLR, LRScheduler


def require_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ArgumentError(f"expected {name} as a whole number ≥ 1, got {value!r}")


class StepLR(FactorLR):
    """Times ``gamma`` every ``step_size`` epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        require_positive("step_size", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return float(self.gamma ** (epoch // self.step_size))


class MultiStepLR(FactorLR):
    """Times ``gamma`` at each of the epochs ``milestones``."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return float(self.gamma ** bisect_right(self.milestones, epoch))


class ConstantLR(FactorLR):
    """Times ``factor`` until ``total_iters`` epochs are over."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ArgumentError(f"expected factor in [0, 1], got {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return 1.0 if epoch >= self.total_iters else self.factor


class LinearLR(FactorLR):
    """From ``start_factor`` to ``end_factor`` in ``total_iters`` equal steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ArgumentError(f"expected start_factor in (0, 1], got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ArgumentError(f"expected end_factor in [0, 1], got {end_factor}")
        require_positive("total_iters", total_iters)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        share = min(self.total_iters, epoch) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * share


class ExponentialLR(FactorLR):
    """Times ``gamma`` every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return float(self.gamma**epoch)


class PolynomialLR(FactorLR):
    """To zero as (1 - epoch / ``total_iters``) to the ``power``."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        require_positive("total_iters", total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return float((1 - min(self.total_iters, epoch) / self.total_iters) ** self.power)


class CosineAnnealingLR(FactorLR):
    """To ``eta_min`` along half a cosine wave of ``T_max`` epochs; up again after, if it goes on.

    References
    ----------
    Loshchilov & Hutter (2017), arXiv:1608.03983, eq. 5, without restarts.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        require_positive("T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def factor_at(self, epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """To ``eta_min`` along half a cosine wave, again and again, ever ``T_mult`` times as slowly.

    Parameters
    ----------
    T_0 : the length of the first wave, in epochs.
    T_mult, eta_min : as above.

    References
    ----------
    Loshchilov & Hutter (2017), arXiv:1608.03983, eq. 5.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        require_positive("T_0", T_0)
        require_positive("T_mult", T_mult)
        self.T_0, self.T_i, self.T_mult = T_0, T_0, T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        wave = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (rate - self.eta_min) * wave for rate in self.base_lrs]

    def _begin(self) -> None:
        self.step(max(self.last_epoch + 1, 0))

    def restart(self) -> None:
        self.step(0)

    def step(self, epoch: float | None = None) -> None:
        """Begin the next epoch, or ``epoch``, which may be a fraction: epoch + batch / batches.

        Raises
        ------
        ArgumentError
            For a negative epoch.
        """
        if epoch is None:
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
            self.last_epoch += 1
        elif epoch < 0:
            raise ArgumentError(f"expected an epoch ≥ 0, got {epoch}")
        else:
            self.T_i, self.T_cur = self.T_0, epoch
            while self.T_mult > 1 and self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
            self.T_cur %= self.T_i
            self.last_epoch = math.floor(epoch)
        self._step_count += 1
        self._set(self.get_lr())
