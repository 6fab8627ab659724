"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.call import repeatable
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_range


@kernel_point
def sgd_update(
    backend: Backend, param: Array, grad: Array, lr: Array, weight_decay: Array | None
) -> tuple[Array]:
    """One step against the gradient."""
    to = rounding(backend, param)
    param, grad = to(param), to(grad)
    return (param - to(lr) * with_l2(to, param, grad, weight_decay),)


@kernel_point
def momentum_update(
    backend: Backend,
    param: Array,
    grad: Array,
    momentum_buffer: Array,
    updates: Array,
    lr: Array,
    momentum: Array,
    dampening: Array,
    weight_decay: Array | None,
    *,
    nesterov: bool,
) -> tuple[Array, Array]:
    """One step along the running sum of the gradients; ``updates`` counts this one too."""
    to = rounding(backend, param)
    param, grad = to(param), to(grad)
    grad = with_l2(to, param, grad, weight_decay)
    share = backend.xp.where(updates > 1, 1 - dampening, 1.0)  # the first gradient counts in full
    momentum_buffer = to(momentum) * momentum_buffer + to(share) * grad
    direction = grad + to(momentum) * momentum_buffer if nesterov else momentum_buffer
    return param - to(lr) * direction, momentum_buffer


class SGD(FlatOptimizer):
    """Stochastic gradient descent: v ← μ v + (1 - τ) g, param ← param - lr v.

    Parameters
    ----------
    lr : the learning rate; it multiplies the velocity when it is applied, not when it is stored.
    momentum, dampening : μ and τ; the first gradient enters v undamped.
    weight_decay : λ of the penalty λ/2 ‖param‖².
    nesterov : step along g + μ v instead.
    maximize : climb instead of descending.

    References
    ----------
    Sutskever, Martens, Dahl & Hinton (2013), On the importance of initialization and momentum in
    deep learning.
    """

    counters = ("_updates",)
    options = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            require_range(group, name)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ArgumentError("expected a momentum and no dampening with nesterov")

    @repeatable
    def update(self, run: Run) -> None:
        lr, weight_decay = run.number("lr"), run.optional("weight_decay")
        if not run.group["momentum"]:
            run.update(sgd_update, (), lr, weight_decay)
            return
        run.update(
            momentum_update,
            ("momentum_buffer",),
            run.count("_updates"),
            lr,
            run.number("momentum"),
            run.number("dampening"),
            weight_decay,
            nesterov=run.group["nesterov"],
        )
