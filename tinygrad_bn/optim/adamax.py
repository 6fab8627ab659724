"""Adamax: Adam in the infinity norm."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def adamax_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_inf: Array,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array, Array]:
    """One step along the mean gradient, divided by the greatest one lately."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    grad = with_l2(to, param, grad, weight_decay)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_inf = xp.maximum(to(beta2) * exp_inf, xp.abs(grad) + to(eps))
    return param - to(lr / (1 - beta1**step)) * (exp_avg / exp_inf), exp_avg, exp_inf


class Adamax(FlatOptimizer):
    """Adamax: u ← max(β₂ u, |g| + ε), param ← param - lr m̂ / u, with m̂ as in Adam.

    Parameters
    ----------
    lr, betas, eps : the learning rate, (β₁, β₂) and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖².
    maximize : climb instead of descending.

    Notes
    -----
    ε, which keeps the quotient finite, is PyTorch's and not the paper's.

    References
    ----------
    Kingma & Ba (2015), arXiv:1412.6980, algorithm 2.
    """

    slots = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require_range(group, name)
        require_betas(group)

    @repeatable
    def update(self, run: Run) -> None:
        run.update(
            adamax_update,
            self.slots,
            run.count(),
            run.number("lr"),
            run.number("beta1"),
            run.number("beta2"),
            run.number("eps"),
            run.optional("weight_decay"),
        )
