"""A schedule that waits for the loss to stop falling."""

from __future__ import annotations

import math
from typing import SupportsFloat

from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.optimizer import Optimizer
from tinygrad_bn.optim.scheduler import LRScheduler, for_each_group, require_optimizer


class ReduceLROnPlateau(LRScheduler):
    """Times ``factor`` when a metric has not become better for more than ``patience`` epochs.

    Parameters
    ----------
    mode : whether less (``"min"``) or more (``"max"``) is better.
    factor : by which the learning rate is multiplied; below 1.
    patience : how many epochs without improvement are borne.
    threshold, threshold_mode : by how much the metric must change to be better: by that share of
        the best one
        (``"rel"``), or by that (``"abs"``).
    cooldown : for how many epochs after a reduction nothing is counted.
    min_lr : the least learning rate; one, or one for each group.
    eps : the least reduction worth making.

    Notes
    -----
    A metric that is NaN is not better than any.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        require_optimizer(optimizer)
        if not factor < 1:
            raise ArgumentError(f"expected factor below 1, got {factor}")
        if mode not in ("min", "max"):
            raise ArgumentError(f"expected mode 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ArgumentError(f"expected threshold_mode 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lrs = for_each_group(optimizer, "min_lr", min_lr)
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def is_better(self, metric: float) -> bool:
        """Whether the metric is better than the best one, by more than the threshold."""
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            bound = self.best * (1 + sign * self.threshold)
        else:
            bound = self.best + sign * self.threshold
        return metric < bound if self.mode == "min" else metric > bound

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """End an epoch with this metric."""
        metric = float(metrics)
        self.last_epoch += 1
        if self.is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            lower = [max(r * self.factor, m) for r, m in zip(rates, self.min_lrs, strict=True)]
            rates = [b if a - b > self.eps else a for a, b in zip(rates, lower, strict=True)]
        self._set(rates)
