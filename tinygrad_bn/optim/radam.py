"""RAdam: Adam with its early variance rectified."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_decay
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def radam_update(
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
    """One step along the mean gradient, divided by its root mean square once that is known well."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = with_decay(to, to(param), to(grad), lr, weight_decay, decoupled)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    known = xp.maximum(length, 5.0)  # what is less is not used
    rectifier = xp.sqrt(
        (known - 4) * (known - 2) * longest / ((longest - 4) * (longest - 2) * known) * correction
    )
    adaptive = to(rectifier) / (xp.sqrt(exp_avg_sq) + to(eps))
    step_size = to(lr / (1 - beta1**step))
    return (
        param - step_size * exp_avg * xp.where(length > 5, adaptive, 1.0),
        exp_avg,
        exp_avg_sq,
    )


class RAdam(FlatOptimizer):
    """Adam that steps along m̂ until the length ρₜ of the average v exceeds 5; then r m̂ / (√v̂ + ε).

    ρₜ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ), ρ∞ = 2 / (1 - β₂) - 1, r² = (ρₜ - 4) (ρₜ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞
    - 2) ρₜ).

    Parameters
    ----------
    lr, betas, eps : as in Adam.
    weight_decay : λ of the penalty λ/2 ‖param‖², or of decoupled decay with
        ``decoupled_weight_decay``.
    maximize : climb instead of descending.

    References
    ----------
    Liu, Jiang, He, Chen, Liu, Gao & Han (2020), arXiv:1908.03265, algorithm 2; the threshold is 5,
    as in their code.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
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
            radam_update,
            self.slots,
            run.count(),
            run.number("lr"),
            run.number("beta1"),
            run.number("beta2"),
            run.number("eps"),
            run.optional("weight_decay"),
            decoupled=run.group["decoupled_weight_decay"],
        )
