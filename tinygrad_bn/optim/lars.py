"""LARS: gradient descent whose step is in proportion to each parameter."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import Bounds, norm, of_each, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def lars_update(
    backend: Backend,
    param: Array,
    grad: Array,
    momentum_buffer: Array,
    lr: Array,
    momentum: Array,
    weight_decay: Array | None,
    trust_coefficient: Array,
) -> tuple[Array, Array]:
    """One step along the running sum of the scaled gradients."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    length, reach = norm(backend, param), norm(backend, grad)
    if weight_decay is not None:
        reach = reach + weight_decay * length
    moving = (length > 0) & (reach > 0)
    trust = xp.where(moving, trust_coefficient * length / xp.where(moving, reach, 1.0), 1.0)
    scaled = to(lr * trust) * with_l2(to, param, grad, weight_decay)
    momentum_buffer = to(momentum) * momentum_buffer + scaled
    return param - momentum_buffer, momentum_buffer


@kernel_point
def lars_update_each(
    backend: Backend,
    param: Array,
    grad: Array,
    momentum_buffer: Array,
    lr: Array,
    momentum: Array,
    weight_decay: Array | None,
    trust_coefficient: Array,
    *,
    bounds: Bounds,
) -> tuple[Array, Array]:
    """`lars_update` of each of the parameters that lie side by side in flat buffers."""
    numbers = lr, momentum, weight_decay, trust_coefficient
    buffers = param, grad, momentum_buffer
    return of_each(backend, bounds, lars_update, buffers, *numbers)


class LARS(FlatOptimizer):
    """LARS: v ← μ v + lr κ (g + λ param), param ← param - v; κ = η ‖param‖ / (‖g‖ + λ ‖param‖).

    Parameters
    ----------
    lr : the global learning rate; as in the paper, and unlike in `SGD`, v contains it.
    momentum, weight_decay : μ and λ.
    trust_coefficient : η.
    maximize : climb instead of descending.

    Notes
    -----
    Where a norm is zero κ is 1, so that parameters can leave zero.

    References
    ----------
    You, Gitman & Ginsburg (2017), arXiv:1708.03888, algorithm 1.
    """

    counters = ()
    slots = ("momentum_buffer",)
    separately = True
    together = lars_update_each

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0,
        trust_coefficient: float = 1e-3,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "momentum", "weight_decay", "trust_coefficient"):
            require_range(group, name)

    def update(self, run: Run) -> None:
        update, flags = self.rule(run, lars_update)
        run.update(
            update,
            self.slots,
            run.number("lr"),
            run.number("momentum"),
            run.optional("weight_decay"),
            run.number("trust_coefficient"),
            **flags,
        )
