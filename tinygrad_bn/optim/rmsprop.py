"""RMSprop."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import average, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def rmsprop_update(
    backend: Backend,
    param: Array,
    grad: Array,
    square_avg: Array,
    momentum_buffer: Array | None,
    grad_avg: Array | None,
    lr: Array,
    alpha: Array,
    eps: Array,
    momentum: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array, Array | None, Array | None]:
    """One step along the gradient over its root mean square or standard deviation, or their sum."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    grad = with_l2(to, param, grad, weight_decay)
    square_avg = average(to, square_avg, xp.square(grad), alpha)
    power = square_avg
    if grad_avg is not None:
        grad_avg = average(to, grad_avg, grad, alpha)
        power = square_avg - xp.square(grad_avg)
    direction = grad / (xp.sqrt(power) + to(eps))
    if momentum_buffer is not None:
        direction = momentum_buffer = to(momentum) * momentum_buffer + direction
    return param - to(lr) * direction, square_avg, momentum_buffer, grad_avg


class RMSprop(FlatOptimizer):
    """RMSprop: v ← α v + (1 - α) g², param ← param - lr g / (√v + ε).

    Parameters
    ----------
    lr, alpha, eps : the learning rate, α and ε.
    weight_decay : λ of the penalty λ/2 ‖param‖².
    momentum : μ of a running sum b ← μ b + g / (√v + ε), which then is the step.
    centered : divide by the standard deviation, √(v - m²) with the mean m of the gradients.
    maximize : climb instead of descending.

    References
    ----------
    Tieleman & Hinton (2012), lecture 6.5. Graves (2013), arXiv:1308.0850, eq. 38-41, for the
    centered form.
    """

    slots = ("square_avg",)
    options = ("momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            require_range(group, name)

    @repeatable
    def update(self, run: Run) -> None:
        run.count()
        run.update(
            rmsprop_update,
            (
                "square_avg",
                "momentum_buffer" if run.group["momentum"] else None,
                "grad_avg" if run.group["centered"] else None,
            ),
            run.number("lr"),
            run.number("alpha"),
            run.number("eps"),
            run.number("momentum"),
            run.optional("weight_decay"),
        )
