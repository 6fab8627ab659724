"""Adadelta."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def adadelta_update(
    backend: Backend,
    param: Array,
    grad: Array,
    square_avg: Array,
    acc_delta: Array,
    lr: Array,
    rho: Array,
    eps: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array, Array]:
    """One step along the gradient, scaled by the root mean square of steps over gradients."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    grad = with_l2(to, param, grad, weight_decay)
    square_avg = average(to, square_avg, xp.square(grad), rho)
    delta = xp.sqrt(acc_delta + to(eps)) / xp.sqrt(square_avg + to(eps)) * grad
    acc_delta = average(to, acc_delta, xp.square(delta), rho)
    return param - to(lr) * delta, square_avg, acc_delta


class Adadelta(FlatOptimizer):
    """Adadelta: param ← param - lr Δ, Δ = g √(u + ε) / √(v + ε); v averages g², and u averages Δ².

    Parameters
    ----------
    lr : a factor on the paper's step, which has none.
    rho, eps : the decay ρ of both averages, and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖².
    maximize : climb instead of descending.

    References
    ----------
    Zeiler (2012), arXiv:1212.5701, algorithm 1.
    """

    slots = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay", "rho"):
            require_range(group, name)
        if group["rho"] > 1:
            raise ArgumentError(f"expected rho in [0, 1], got {group['rho']}")

    @repeatable
    def update(self, run: Run) -> None:
        run.count()
        run.update(
            adadelta_update,
            self.slots,
            run.number("lr"),
            run.number("rho"),
            run.number("eps"),
            run.optional("weight_decay"),
        )
