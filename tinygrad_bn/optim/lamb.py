"""LAMB: Adam whose step is in proportion to each parameter."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import Bounds, average, norm, of_each, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def lamb_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array, Array]:
    """One step along Adam's direction, of lr times the norm of the parameter."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    mean = exp_avg / to(1 - beta1**step)
    power = exp_avg_sq / to(1 - beta2**step)
    direction = with_l2(to, param, mean / (xp.sqrt(power) + to(eps)), weight_decay)
    length, reach = norm(backend, param), norm(backend, direction)
    moving = (length > 0) & (reach > 0)
    trust = xp.where(moving, length / xp.where(moving, reach, 1.0), 1.0)
    return param - to(lr * trust) * direction, exp_avg, exp_avg_sq


@kernel_point
def lamb_update_each(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
    *,
    bounds: Bounds,
) -> tuple[Array, Array, Array]:
    """`lamb_update` of each of the parameters that lie side by side in flat buffers."""
    numbers = step, lr, beta1, beta2, eps, weight_decay
    buffers = param, grad, exp_avg, exp_avg_sq
    return of_each(backend, bounds, lamb_update, buffers, *numbers)


class LAMB(FlatOptimizer):
    """LAMB: param ← param - lr (‖param‖ / ‖u‖) u, u = m̂ / (√v̂ + ε) + λ param, one by one.

    Parameters
    ----------
    lr, betas, eps : as in Adam.
    weight_decay : λ.
    maximize : climb instead of descending.

    Notes
    -----
    φ of the paper is the identity. Where a norm is zero the ratio is 1, so that parameters can
    leave zero.

    References
    ----------
    You, Li, Reddi et al. (2020), arXiv:1904.00962, algorithm 2.
    """

    slots = ("exp_avg", "exp_avg_sq")
    separately = True
    together = lamb_update_each

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
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

    def update(self, run: Run) -> None:
        update, flags = self.rule(run, lamb_update)
        run.update(
            update,
            self.slots,
            run.count(),
            run.number("lr"),
            run.number("beta1"),
            run.number("beta2"),
            run.number("eps"),
            run.optional("weight_decay"),
            **flags,
        )
