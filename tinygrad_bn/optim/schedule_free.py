"""Schedule-free SGD and AdamW: averaging instead of a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tinygrad_bn import config
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.formulas import Rounding, average, rounding, with_l2
from tinygrad_bn.optim.optimizer import Group, Params, require_betas, require_range, stamp


def averaged(
    to: Rounding, y: Array, z: Array, step: Array, beta: Array, weight: Array
) -> tuple[Array, Array]:
    """y and z after z ← z - step: x ← (1 - c) x + c z with c = ``weight``, and y = (1 - β) z + β x.

    x itself is not kept: it follows from y and z.
    """
    drift = to(1 - beta * (1 - weight)) * step
    return average(to, z, y, weight) - drift, z - step


@kernel_point
def schedule_free_sgd_update(
    backend: Backend,
    param: Array,
    grad: Array,
    z: Array,
    lr: Array,
    weight: Array,
    momentum: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array]:
    """One step of z against the gradient at y."""
    to = rounding(backend, param)
    param, grad = to(param), to(grad)
    step = to(lr) * with_l2(to, param, grad, weight_decay)
    return averaged(to, param, z, step, momentum, weight)


@kernel_point
def schedule_free_adamw_update(
    backend: Backend,
    param: Array,
    grad: Array,
    z: Array,
    exp_avg_sq: Array,
    lr: Array,
    weight: Array,
    beta1: Array,
    beta2: Array,
    eps: Array,
    weight_decay: Array | None,
) -> tuple[Array, Array, Array]:
    """One step of z against the gradient at y, divided by its root mean square."""
    xp, to = backend.xp, rounding(backend, param)
    param, grad = to(param), to(grad)
    exp_avg_sq = average(to, exp_avg_sq, xp.square(grad), beta2)
    direction = with_l2(to, param, grad / (xp.sqrt(exp_avg_sq) + to(eps)), weight_decay)
    return (*averaged(to, param, z, to(lr) * direction, beta1, weight), exp_avg_sq)


class ScheduleFree(FlatOptimizer):
    """What both have: three sequences; parameters hold y in training and x in evaluation.

    Gradients are taken at y = (1 - β) z + β x; z takes the steps; x is the average of the z,
    weighted by the squared learning rates, and the result. Call ``train()`` before training, which
    is the initial mode, and ``eval()`` before evaluating or saving the parameters; batch norm's
    statistics then need to be estimated anew at x.
    """

    counters = ("step", "weight_sum")

    def train(self) -> None:
        """Let the parameters hold y, where gradients are taken."""
        self._switch(True)

    def eval(self) -> None:
        """Let the parameters hold x, the average."""
        self._switch(False)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As `FlatOptimizer.step`.

        Raises
        ------
        ArgumentError
            In evaluation, where the gradients are not those at y.
        """
        if not all(group["train_mode"] for group in self.param_groups):
            raise ArgumentError("expected train() to be called before step()")
        return super().step(closure)

    def beta(self, group: Group) -> float:
        """How much of x is in y."""
        raise NotImplementedError

    def _switch(self, training: bool) -> None:
        for bucket in self._settled():
            with bucket.backend.guard or nullcontext():
                bucket.gather()
                if bucket.group["train_mode"] is training:
                    continue
                beta = self.beta(bucket.group)
                share = 1 - beta if training else 1 - 1 / beta
                for run in bucket.runs:
                    if (z := run.state.get("z")) is not None:
                        run.backend.store(run.param, run.param + share * (z - run.param))
                        stamp(run.params)
        for group in self.param_groups:
            group["train_mode"] = training

    def rates(self, run: Run, lr: Array) -> tuple[Array, Array]:
        """The learning rate with warm-up, and the weight c of this z in the average."""
        xp, step, total = run.backend.xp, run.counter("step"), run.counter("weight_sum")
        if run.group["warmup_steps"]:
            lr = lr * xp.minimum(1.0, step / run.number("warmup_steps"))
        run.backend.store(total, total + lr * lr)
        return lr, xp.where(total > 0, lr * lr / xp.where(total > 0, total, 1.0), 0.0)

    @config.outside_of_trace
    def begin(self, run: Run) -> None:
        """z, which begins where the parameters do."""
        if "z" not in run.state:
            run.backend.store(run.slot("z"), run.param)


class SGDScheduleFree(ScheduleFree):
    """z ← z - lr (g + λ y), with the gradient g at y = (1 - β) z + β x, and x the average of the z.

    Parameters
    ----------
    lr : the learning rate; good ones are 10 to 50 times those of SGD with momentum and a schedule.
    momentum : β.
    weight_decay : λ.
    warmup_steps : over how many steps the learning rate rises from zero.
    maximize : climb instead of descending.

    References
    ----------
    Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky (2024), arXiv:2405.15682, eq. 3-5.
    """

    slots = ("z",)

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "maximize": maximize,
            "train_mode": True,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "weight_decay", "warmup_steps"):
            require_range(group, name)
        if not 0 < group["momentum"] < 1:
            raise ArgumentError(f"expected momentum in (0, 1), got {group['momentum']}")

    def beta(self, group: Group) -> float:
        return float(group["momentum"])

    def update(self, run: Run) -> None:
        self.begin(run)
        run.count()
        run.update(
            schedule_free_sgd_update,
            self.slots,
            *self.rates(run, run.number("lr")),
            run.number("momentum"),
            run.optional("weight_decay"),
        )


class AdamWScheduleFree(ScheduleFree):
    """z ← z - lrₜ (g / (√v + ε) + λ y), with lrₜ = lr √(1 - β₂ᵗ), g at y, and x averaging the z.

    Parameters
    ----------
    lr : the learning rate; good ones are 1 to 10 times AdamW's.
    betas, eps : (β₁, β₂) and ε.
    weight_decay : λ.
    warmup_steps : over how many steps the learning rate rises from zero.
    maximize : climb instead of descending.

    References
    ----------
    Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky (2024), arXiv:2405.15682, algorithm 1.
    """

    slots = ("z", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "maximize": maximize,
            "train_mode": True,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay", "warmup_steps"):
            require_range(group, name)
        require_betas(group)
        if group["betas"][0] == 0:
            raise ArgumentError("expected the first of the betas in (0, 1), got 0")

    def beta(self, group: Group) -> float:
        return float(group["betas"][0])

    def update(self, run: Run) -> None:
        self.begin(run)
        step, decay = run.count(), run.number("beta2")
        lr = run.number("lr") * run.backend.xp.sqrt(1 - decay**step)
        run.update(
            schedule_free_adamw_update,
            self.slots,
            *self.rates(run, lr),
            run.number("beta1"),
            decay,
            run.number("eps"),
            run.optional("weight_decay"),
        )
