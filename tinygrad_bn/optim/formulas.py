"""What several update rules have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_bn.backend import Array, Backend, KernelPoint
from tinygrad_bn.optim.flat import working_dtype

Rounding = Callable[[Array], Array]
Bounds = tuple[tuple[int, int], ...]
"""Where each of several parameters begins and ends in a flat buffer, in order."""


def rounding(backend: Backend, param: Array) -> Rounding:
    """What brings numbers and arrays into the dtype in which ``param`` is updated.

    Options and counters come in as 0-d arrays of float64: a rule computes with them as they are,
    for 1 - β₂ = 0.001 would lose four digits in float32, and rounds the result once, so that it
    does not widen the large arrays.
    """
    dtype = working_dtype(param.dtype)
    xp = backend.xp

    def to(x: Array) -> Array:
        return x if x.dtype == dtype else xp.astype(x, dtype)

    return to


def with_l2(to: Rounding, param: Array, grad: Array, weight_decay: Array | None) -> Array:
    """The gradient of the loss + λ/2 ‖param‖²."""
    return grad if weight_decay is None else grad + to(weight_decay) * param


def decayed(to: Rounding, param: Array, lr: Array, weight_decay: Array | None) -> Array:
    """The parameter after decoupled weight decay, (1 - lr λ) param (arXiv:1711.05101)."""
    return param if weight_decay is None else to(1 - lr * weight_decay) * param


def with_decay(
    to: Rounding, param: Array, grad: Array, lr: Array, weight_decay: Array | None, decoupled: bool
) -> tuple[Array, Array]:
    """The parameter and the gradient with weight decay in the one or in the other."""
    if decoupled:
        return decayed(to, param, lr, weight_decay), grad
    return param, with_l2(to, param, grad, weight_decay)


def average(to: Rounding, mean: Array, x: Array, beta: Array) -> Array:
    """An exponential moving average one step on: β mean + (1 - β) x."""
    return to(beta) * mean + to(1 - beta) * x


def norm(backend: Backend, x: Array) -> Array:
    """The Euclidean norm, summed in the backend's accumulator."""
    xp = backend.xp
    return xp.sqrt(xp.sum(xp.square(x), dtype=backend.accumulator(x.dtype)))


def of_each(
    backend: Backend,
    bounds: Bounds,
    rule: KernelPoint[Any, Any],
    buffers: tuple[Array, ...],
    *numbers: Array | None,
) -> tuple[Any, ...]:
    """The parameters and the state that a rule makes of flat buffers (param, grad, *state), of each
    parameter by itself; what lies between them stays.
    """
    of_one = rule.reference  # a kernel would write to the buffers
    parts = [of_one(backend, *(x[a:b] for x in buffers), *numbers) for a, b in bounds]
    kept = buffers[0], *buffers[2:]
    return tuple(
        side_by_side(backend.xp, whole, bounds, [part[i] for part in parts])
        for i, whole in enumerate(kept)
    )


def side_by_side(xp: Any, whole: Array, bounds: Bounds, parts: list[Array]) -> Array:
    """A flat buffer with other parts."""
    pieces, last = [], 0
    for (start, end), part in zip(bounds, parts, strict=True):
        pieces += [whole[last:start], xp.astype(part, whole.dtype)]
        last = end
    return xp.concatenate([*pieces, whole[last:]], axis=0)
