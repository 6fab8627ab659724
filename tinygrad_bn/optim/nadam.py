"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_decay
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range


@kernel_point
def nadam_update(
    backend: Backend,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: Array,
    mu: Array,
    mu_next: Array,
    mu_product: Array,
    lr: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
    *,
    decoupled: bool,
) -> tuple[Array, Array, Array]:
    """One step along the mean gradient to come, divided by its root mean square."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = with_decay(to, to(param), to(grad), lr, weight_decay, decoupled)
    exp_avg = average(to, exp_avg, grad, beta1)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    now = to(lr * (1 - mu) / (1 - mu_product))
    ahead = to(lr * mu_next / (1 - mu_product * mu_next))
    denom = xp.sqrt(exp_avg_sq / to(1 - beta2**step)) + to(eps)
    return param - (now * grad + ahead * exp_avg) / denom, exp_avg, exp_avg_sq


class NAdam(FlatOptimizer):
    """Adam whose mean gradient looks one step ahead.

    m̂ = μₜ₊₁ m / (1 - ∏μ up to t + 1) + (1 - μₜ) g / (1 - ∏μ up to t), with μₜ = β₁ (1 - 0.96^(t
    ψ) / 2).

    Parameters
    ----------
    lr, betas, eps : as in Adam.
    weight_decay : λ of the penalty λ/2 ‖param‖², or of decoupled decay with
        ``decoupled_weight_decay``.
    momentum_decay : ψ.
    maximize : climb instead of descending.

    References
    ----------
    Dozat (2016), Incorporating Nesterov momentum into Adam, algorithm 2.
    """

    counters = ("step", "mu_product")
    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum_decay"):
            require_range(group, name)
        require_betas(group)

    def update(self, run: Run) -> None:
        beta1 = run.number("beta1")
        decay = run.number("momentum_decay")
        step, product = run.count(), run.counter("mu_product", 1.0)
        power = run.backend.xp.power  # the operator has another last bit for NumPy's scalars
        mu = beta1 * (1 - 0.5 * power(0.96, step * decay))
        mu_next = beta1 * (1 - 0.5 * power(0.96, (step + 1) * decay))
        run.backend.store(product, product * mu)
        run.update(
            nadam_update,
            self.slots,
            step,
            mu,
            mu_next,
            product,
            run.number("lr"),
            beta1,
            run.number("beta2"),
            run.number("eps"),
            run.optional("weight_decay"),
            decoupled=run.group["decoupled_weight_decay"],
        )
