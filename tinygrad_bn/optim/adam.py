"""Adam, with AMSGrad, and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_decay
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def adam_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    step: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
    *,
    decoupled: bool,
) -> tuple[Array, Array, Array, Array | None]:
    """One step along the mean gradient over its root mean square, or over the greatest so far.

    The root's correction is multiplied into the numbers around it, ε too: an element is divided
    once (Kingma & Ba 2015, section 2, last paragraph).
    """
    xp, to = backend.xp, rounding(backend, param)
    param, grad = with_decay(to, to(param), to(grad), lr, weight_decay, decoupled)
    exp_avg = average(to, exp_avg, grad, beta1)
    power = exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    if max_exp_avg_sq is not None:
        power = max_exp_avg_sq = xp.maximum(max_exp_avg_sq, exp_avg_sq)
    correction = xp.sqrt(1 - beta2**step)
    denom = xp.sqrt(power) + to(eps * correction)
    step_size = to(lr * correction / (1 - beta1**step))
    return param - step_size * (exp_avg / denom), exp_avg, exp_avg_sq, max_exp_avg_sq


class Adam(FlatOptimizer):
    """Adam: m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², param ← param - lr m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v without the bias towards their zero start: m / (1 - β₁ᵗ), v / (1 - β₂ᵗ).

    Parameters
    ----------
    lr, betas, eps : the learning rate, (β₁, β₂) and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖², or of decoupled decay with
        ``decoupled_weight_decay``.
    amsgrad : divide by the greatest v so far.
    maximize : climb instead of descending.

    References
    ----------
    Kingma & Ba (2015), arXiv:1412.6980, algorithm 1. Reddi, Kale & Kumar (2018), arXiv:1904.09237,
    for AMSGrad.
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
        require_betas(group)

    @repeatable
    def update(self, run: Run) -> None:
        run.update(
            adam_update,
            (*self.slots, "max_exp_avg_sq" if run.group["amsgrad"] else None),
            run.count(),
            run.number("lr"),
            run.number("beta1"),
            run.number("beta2"),
            run.number("eps"),
            run.optional("weight_decay"),
            decoupled=run.group["decoupled_weight_decay"],
        )


class AdamW(Adam):
    """Adam after param ← (1 - lr λ) param: weight decay that no division by √v̂ touches.

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

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True  # also if the state was Adam's
