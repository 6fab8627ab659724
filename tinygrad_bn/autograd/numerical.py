"""Gradients against finite differences.

A whole Jacobian needs a function value for every input element; a derivative along one random
direction needs two, and an error in any element shows in it (the idea is HIPS autograd's).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.endpoints import as_sequence
from tinygrad_bn.autograd.engine import grad
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.errors import ArgumentError, GradientError


def floating_inputs(inputs: Sequence[Any]) -> list[int]:
    """Positions of the inputs to differentiate; all of them float64, in which differences mean
    something.
    """
    chosen = [i for i, x in enumerate(inputs) if isinstance(x, Variable) and x.requires_grad]
    if not chosen:
        raise ArgumentError("expected at least one input that requires a gradient")
    for i in chosen:
        if inputs[i].array.dtype != np.float64:
            raise ArgumentError(f"expected input {i} in float64, got {inputs[i].array.dtype}")
    return chosen


def floating_outputs(result: Any) -> list[Variable]:
    """The outputs that vary with the inputs, whether they say so or not."""
    return [y for y in as_sequence(result) if isinstance(y, Variable) and y.array.dtype.kind == "f"]


def random_like(x: Variable, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.asarray(rng.standard_normal(x.array.shape))


def along(
    func: Callable[..., Any],
    inputs: Sequence[Any],
    chosen: list[int],
    directions: list[np.ndarray[Any, Any]],
    weights: list[np.ndarray[Any, Any]],
    distance: float,
) -> float:
    """The weighted sum of the outputs, ``distance`` away from the inputs along the directions."""
    moved = list(inputs)
    for i, direction in zip(chosen, directions, strict=True):
        x = inputs[i]
        values = x.backend.to_numpy(x.array) + distance * direction
        moved[i] = x.wrap_like(x.backend.asarray(values))
        moved[i].requires_grad = True  # as func may ask for gradients itself
    outputs = floating_outputs(func(*moved))
    return sum(
        float(np.sum(w * y.backend.to_numpy(y.array)))
        for w, y in zip(weights, outputs, strict=True)
    )


def gradcheck(
    func: Callable[..., Any],
    inputs: Variable | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    directions: int = 2,
    seed: int = 0,
) -> bool:
    """Whether the gradients of ``func`` agree with central differences along random directions.

    Parameters
    ----------
    func : takes the inputs; returns a tensor or several.
    inputs : those that require a gradient are checked; they must be float64.
    eps : how far to step, in units of the inputs.
    atol, rtol : what the derivative along a direction of unit normal components may differ by.
    directions : how many to try.

    Raises
    ------
    GradientError
        Where they differ, unless ``raise_exception`` is False.
    ArgumentError
        If no input requires a gradient, or one that does is not float64.
    """
    inputs = as_sequence(inputs)
    floating_inputs(inputs)
    with config.enable_grad():
        if not any(y.requires_grad for y in floating_outputs(func(*inputs))):
            raise GradientError(
                "expected an output with a graph that leads to the inputs, got none"
            )
    for i in range(directions):
        analytic, numeric = derivatives(func, inputs, eps, np.random.default_rng([seed, i]))
        if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
            if not raise_exception:
                return False
            raise GradientError(
                f"expected the derivative {numeric:.9g} of finite differences along a random "
                f"direction, got {analytic:.9g} from backward"
            )
    return True


def derivatives(
    func: Callable[..., Any], inputs: Sequence[Any], eps: float, rng: np.random.Generator
) -> tuple[float, float]:
    """A derivative of a weighted sum of the outputs along a direction: by backward, by differences.

    An output without a graph counts as constant to backward, but not to differences.
    """
    chosen = floating_inputs(inputs)
    with config.enable_grad():
        outputs = floating_outputs(func(*inputs))
    weights = [random_like(y, rng) for y in outputs]
    steps = [random_like(inputs[i], rng) for i in chosen]
    pairs = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
    analytic = 0.0
    if pairs:
        starts = [y.wrap_like(y.backend.asarray(w.astype(y.array.dtype))) for y, w in pairs]
        grads = grad(
            [y for y, _ in pairs], [inputs[i] for i in chosen], starts, materialize_grads=True
        )
        analytic = sum(
            float(np.sum(g.backend.to_numpy(g.array) * v))
            for g, v in zip(grads, steps, strict=True)
        )
    ahead = along(func, inputs, chosen, steps, weights, eps)
    behind = along(func, inputs, chosen, steps, weights, -eps)
    return analytic, (ahead - behind) / (2 * eps)


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Variable | Sequence[Any],
    grad_outputs: Variable | Sequence[Variable] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    order: int = 2,
    seed: int = 0,
) -> bool:
    """Whether the gradients of the gradients agree with central differences; up to ``order``.

    ``grad_outputs`` are the outputs' gradients to start from, random ones by default; they are
    differentiated too. Other parameters and errors are those of `gradcheck`.
    """
    inputs = as_sequence(inputs)
    chosen = floating_inputs(inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(seed + 1)
        grad_outputs = []
        for y in floating_outputs(func(*inputs)):
            if y.requires_grad:
                start = y.wrap_like(y.backend.asarray(random_like(y, rng).astype(y.array.dtype)))
                start.requires_grad = True
                grad_outputs.append(start)
    starts = as_sequence(grad_outputs)
    count = len(inputs)

    def gradients(*everything: Any) -> tuple[Any, ...]:
        ins, outs = everything[:count], everything[count:]
        with config.enable_grad():
            results = [y for y in floating_outputs(func(*ins)) if y.requires_grad]
            wanted = [ins[i] for i in chosen]
            return grad(results, wanted, outs, create_graph=True, materialize_grads=True)

    whole = (*inputs, *starts)
    if order > 2:
        return gradgradcheck(
            gradients, whole, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
            order=order - 1, seed=seed,
        )  # fmt: skip
    for i in range(2):
        analytic, numeric = derivatives(gradients, whole, eps, np.random.default_rng([seed, i]))
        if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
            if not raise_exception:
                return False
            raise GradientError(
                f"expected the derivative {numeric:.9g} of a gradient by finite differences along "
                f"a random direction, got {analytic:.9g} from backward"
            )
    return True
