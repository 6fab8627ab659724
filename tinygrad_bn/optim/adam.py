"""Adam, with AMSGrad, and AdamW."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, decayed, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def adam_update(
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
    decoupled: bool,
) -> tuple[Array, Array, Array]:
    """One step along the mean gradient, each element divided by its root mean square."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    if decoupled:
        param = decayed(to, param, lr, weight_decay)
    else:
        grad = with_l2(to, param, grad, weight_decay)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    scale = to(xp.sqrt(1 - beta2**step))
    step_size = to(lr / (1 - beta1**step))
    return (
        param - step_size * (exp_avg / (xp.sqrt(exp_avg_sq) / scale + to(eps))),
        exp_avg,
        exp_avg_sq,
    )


@kernel_point
def amsgrad_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
    *,
    decoupled: bool,
) -> tuple[Array, Array, Array, Array]:
    """As `adam_update`, divided by the greatest root mean square so far."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    if decoupled:
        param = decayed(to, param, lr, weight_decay)
    else:
        grad = with_l2(to, param, grad, weight_decay)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    max_exp_avg_sq = xp.maximum(max_exp_avg_sq, exp_avg_sq)
    scale = to(xp.sqrt(1 - beta2**step))
    step_size = to(lr / (1 - beta1**step))
    return (
        param - step_size * (exp_avg / (xp.sqrt(max_exp_avg_sq) / scale + to(eps))),
        exp_avg,
        exp_avg_sq,
        max_exp_avg_sq,
    )


class Adam(FlatOptimizer):
    """Adam: m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², param ← param - lr m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v without the bias towards their zero start: m / (1 - β₁ᵗ), v / (1 - β₂ᵗ).

    Parameters
    ----------
    lr, betas, eps : the learning rate, (β₁, β₂) and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖², or of decoupled decay with ``decoupled_weight_decay``.
    amsgrad : divide by the greatest v so far.
    maximize : climb instead of descending.

    References
    ----------
    Kingma & Ba (2015), arXiv:1412.6980, algorithm 1. Reddi, Kale & Kumar (2018), arXiv:1904.09237, for AMSGrad.
    """

    slots = ("exp_avg", "exp_avg_sq")
    options = ("max_exp_avg_sq",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require_range(group, name)
        require_range(group, "betas", high=1.0)

    def update(self, run: Run) -> None:
        beta1, beta2 = run.group["betas"]
        amsgrad = run.group["amsgrad"]
        run.update(
            amsgrad_update if amsgrad else adam_update,
            self.slots + self.options if amsgrad else self.slots,
            run.count(),
            run.number("lr"),
            run.number("beta1", beta1),
            run.number("beta2", beta2),
            run.number("eps"),
            run.optional("weight_decay"),
            decoupled=run.group["decoupled_weight_decay"],
        )


class AdamW(Adam):
    """Adam with weight decay that the division by √v̂ does not touch: param ← (1 - lr λ) param before each step.

    References
    ----------
    Loshchilov & Hutter (2019), arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
