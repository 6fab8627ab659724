"""L-BFGS: a quasi-Newton method with limited memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tinygrad_bn.backend import Array, current
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.optim.line_search import Point, strong_wolfe
from tinygrad_bn.optim.optimizer import (
    Group,
    Optimizer,
    Params,
    evaluated,
    require_range,
    stamp,
)
from tinygrad_bn.tensors import Tensor


class LBFGS(Optimizer):
    """L-BFGS: steps along -H g; the last steps and gradients approximate the inverse Hessian H.

    Each ``step(closure)`` makes up to ``max_iter`` iterations; the closure clears the gradients,
    computes the loss and its gradients, and returns it. There is one group of parameters, of one
    dtype and on one device.

    Parameters
    ----------
    lr : the length of a step; with a line search, where it begins.
    max_iter, max_eval : the most iterations, and evaluations of the closure (1.25 ``max_iter`` by
        default), a step.
    tolerance_grad : stop when no element of the gradient exceeds it.
    tolerance_change : stop when neither the loss nor a parameter changes by more.
    history_size : how many steps are remembered.
    line_search_fn : None, or ``"strong_wolfe"``.

    References
    ----------
    Nocedal & Wright (2006), Numerical Optimization, algorithms 7.4, 7.5 (L-BFGS), 3.5 and 3.6
    (line search).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        require_range(group, "lr")
        if self.param_groups:
            raise ArgumentError("expected one group of parameters, got another one")
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ArgumentError(
                f"expected line_search_fn None or 'strong_wolfe', got {group['line_search_fn']!r}"
            )
        if len({(p.device, p.dtype) for p in group["params"]}) != 1:
            raise ArgumentError("expected all parameters of one dtype and on one device")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Iterate until a limit or a tolerance is reached; the loss before the first iteration.

        Raises
        ------
        ArgumentError
            If there is no closure.
        """
        if closure is None:
            raise ArgumentError("expected a closure that computes the loss and its gradients")
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = evaluated(closure)
        state["func_evals"] += 1
        with current(group["params"][0].backend):
            loss, grad = float(first), self._grad()
            if self._greatest(grad) > group["tolerance_grad"]:
                self._iterate(closure, state, loss, grad)
        return first

    def _iterate(
        self, closure: Callable[[], Any], state: dict[str, Any], loss: float, grad: Array
    ) -> None:
        group = self.param_groups[0]
        smallest, evaluations = group["tolerance_change"], 1
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, grad)
            state["d"], state["prev_flat_grad"] = self._keep(d), self._keep(grad)
            previous = state["prev_loss"] = loss
            t = float(group["lr"])
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / float(self.xp.sum(self.xp.abs(grad))))
            state["t"] = t
            here = Point(0.0, loss, grad, self._dot(grad, d))
            if here.slope > -smallest:
                break
            last, budget = iteration == group["max_iter"], group["max_eval"] - evaluations
            there, calls = self._advance(closure, here, d, t, budget, last)
            loss, grad, t = there.f, there.g, there.t
            state["t"] = t
            evaluations += calls
            state["func_evals"] += calls
            if (
                last
                or evaluations >= group["max_eval"]
                or self._greatest(grad) <= group["tolerance_grad"]
                or self._greatest(t * d) <= smallest
                or abs(loss - previous) < smallest
            ):
                break

    def _advance(
        self, closure: Callable[[], Any], here: Point, d: Array, t: float, budget: int, last: bool
    ) -> tuple[Point, int]:
        """Go a step t along d, or one that the search finds; how often the loss was computed."""
        x = self._values()
        if self.param_groups[0]["line_search_fn"] is None:
            self._move(x + t * d)
            if last:  # what would be computed here, nobody would use
                return replace(here, t=t), 0
            loss, grad = float(evaluated(closure)), self._grad()
            return Point(t, loss, grad, self._dot(grad, d)), 1
        evaluate = partial(self._evaluate, closure, x, d)
        there, calls = strong_wolfe(evaluate, here, t, self._greatest(d), max_evaluations=budget)
        self._move(x + there.t * d)
        return there, calls

    def _direction(self, state: dict[str, Any], grad: Array) -> Array:
        """-H g by the two-loop recursion, after remembering the last step."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -grad
        y = grad - state["prev_flat_grad"].array
        s = float(state["t"]) * state["d"].array
        curvature = self._dot(y, s)
        if curvature > 1e-10:
            for memory, new in (
                ("old_dirs", self._keep(y)),
                ("old_stps", self._keep(s)),
                ("ro", 1.0 / curvature),
            ):
                size = self.param_groups[0]["history_size"]
                state[memory] = [*state[memory], new][-size:] if size else []
            state["H_diag"] = curvature / self._dot(y, y)
        pairs = [
            (y.array, s.array, float(rho))
            for y, s, rho in zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True)
        ]
        q, alphas = -grad, []
        for y, s, rho in reversed(pairs):
            alphas.append(rho * self._dot(s, q))
            q = q - alphas[-1] * y
        r = q * float(state["H_diag"])
        for y, s, rho in pairs:
            r = r + (alphas.pop() - rho * self._dot(y, r)) * s
        return r

    @property
    def xp(self) -> Any:
        return self.param_groups[0]["params"][0].backend.xp

    def _dot(self, a: Array, b: Array) -> float:
        return float(self.xp.sum(a * b))

    def _greatest(self, x: Array) -> float:
        return float(self.xp.max(self.xp.abs(x))) if x.size else 0.0

    def _keep(self, array: Array) -> Tensor:
        return self.param_groups[0]["params"][0].wrap_like(array)  # type: ignore[no-any-return]

    def _values(self) -> Array:
        """All parameters as one vector."""
        params = self.param_groups[0]["params"]
        return self.xp.concatenate([self.xp.reshape(p.array, (-1,)) for p in params])

    def _grad(self) -> Array:
        """All gradients as one vector; zeros for parameters without one."""
        xp, params = self.xp, self.param_groups[0]["params"]
        grads = [xp.zeros_like(p.array) if p.grad is None else p.grad.array for p in params]
        return xp.concatenate([xp.reshape(grad, (-1,)) for grad in grads])

    def _move(self, x: Array) -> None:
        """Set the parameters to the vector x."""
        params, start = self.param_groups[0]["params"], 0
        for p in params:
            part = x[start : start + p.array.size]
            p.backend.store(p.array, self.xp.reshape(part, p.array.shape))
            start += p.array.size
        stamp(params)

    def _evaluate(self, closure: Callable[[], Any], x: Array, d: Array, t: float) -> Point:
        """The loss and its gradient at x + t d."""
        self._move(x + t * d)
        loss, grad = float(evaluated(closure)), self._grad()
        self._move(x)
        return Point(t, loss, grad, self._dot(grad, d))
