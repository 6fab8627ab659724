"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, decayed, rounding
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def lion_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array]:
    """One step of length lr in every element."""
    to = rounding(backend, param)
    param, grad = to(param), to(grad)
    direction = backend.xp.sign(average(to, exp_avg, grad, beta1))
    param = decayed(to, param, lr, weight_decay) - to(lr) * direction
    return param, average(to, exp_avg, grad, beta2)


class Lion(FlatOptimizer):
    """Lion: param ← param - lr (sign(β₁ m + (1 - β₁) g) + λ param), then m ← β₂ m + (1 - β₂) g.

    Parameters
    ----------
    lr : the learning rate; good ones are 3 to 10 times smaller than AdamW's.
    betas : (β₁, β₂).
    weight_decay : the decoupled λ; good ones are 3 to 10 times greater than AdamW's.
    maximize : climb instead of descending.

    References
    ----------
    Chen, Liang, Huang et al. (2023), arXiv:2302.06675, algorithm 2.
    """

    counters = ()
    slots = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        require_range(group, "lr")
        require_range(group, "weight_decay")
        require_betas(group)

    @repeatable
    def update(self, run: Run) -> None:
        run.update(
            lion_update,
            self.slots,
            run.number("lr"),
            run.number("beta1"),
            run.number("beta2"),
            run.optional("weight_decay"),
        )
