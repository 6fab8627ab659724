"""Adagrad."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def adagrad_update(
    backend: Backend,
    param: Array,
    grad: Array,
    sum: Array,
    step: Array,
    lr: Array,
    lr_decay: Array,
    eps: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array]:
    """One step along the gradient, divided by the root of the sum of all squares so far."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    grad = with_l2(to, param, grad, weight_decay)
    sum = sum + xp.square(grad)
    rate = to(lr / (1 + (step - 1) * lr_decay))
    return param - rate * (grad / (xp.sqrt(sum) + to(eps))), sum


class Adagrad(FlatOptimizer):
    """Adagrad: s ← s + g², param ← param - lrₜ g / (√s + ε) with lrₜ = lr / (1 + (t - 1) η).

    Parameters
    ----------
    lr, lr_decay, eps : lr, η and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖².
    initial_accumulator_value : s at the start.
    maximize : climb instead of descending.

    References
    ----------
    Duchi, Hazan & Singer (2011), JMLR 12, fig. 1 with a diagonal matrix.
    """

    slots = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"):
            require_range(group, name)

    @repeatable
    def update(self, run: Run) -> None:
        run.slot("sum", fill=run.group["initial_accumulator_value"])
        run.update(
            adagrad_update,
            self.slots,
            run.count(),
            run.number("lr"),
            run.number("lr_decay"),
            run.number("eps"),
            run.optional("weight_decay"),
        )
