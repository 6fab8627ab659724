"""What a walk starts from, and what it is to find: arguments of the chain rule, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import on
from tinygrad_bn.errors import DtypeError, GradientError


def seeds(roots: Sequence[Variable], grads: Sequence[Any] | None, as_tensors: bool) -> list[Any]:
    """What the walk starts from: the given gradients, or ones for scalars."""
    if grads is not None and len(grads) != len(roots):
        raise GradientError(f"expected {len(roots)} gradients of outputs, got {len(grads)}")
    found: list[Any] = []
    for root, grad in zip(roots, grads or [None] * len(roots), strict=True):
        if not root.requires_grad:
            raise GradientError(
                "expected an output that requires a gradient, got one that no graph leads to"
            )
        if grad is None:
            if root.array.size != 1:
                raise GradientError(
                    f"expected a scalar, or its gradient given, got shape {root.array.shape}"
                )
            shape, dtype = root.array.shape, root.array.dtype
            if root.backend.guard is None and not shape:
                ones = root.backend.asarray(1, dtype)  # in a third of the time
            else:
                ones = on(root.backend, root.backend.xp.ones, shape, dtype=dtype)
            if not as_tensors:
                found.append(ones)
                continue
            grad = Variable.tensor_class.wrap(ones, root.backend)
        if not isinstance(grad, Variable):
            raise GradientError(
                f"expected the gradient of an output as a tensor, got {type(grad).__name__}"
            )
        if grad.backend is not root.backend or grad.array.shape != root.array.shape:
            raise GradientError(
                f"expected a gradient of shape {root.array.shape} on {root.backend.device}, "
                f"got {grad.array.shape} on {grad.backend.device}"
            )
        if grad.array.dtype != root.array.dtype:
            raise GradientError(
                f"expected a gradient of {root.array.dtype}, got {grad.array.dtype}"
            )
        found.append(grad if as_tensors else grad.array)
    return found


def as_sequence(tensors: Any) -> Sequence[Any]:
    """One tensor, or several, as a sequence."""
    return (tensors,) if isinstance(tensors, Variable) else tuple(tensors)


def variables(tensors: Any, what: str) -> Sequence[Any]:
    """As `as_sequence`; refused if it is empty, or something in it is no tensor."""
    found = as_sequence(tensors) if isinstance(tensors, (Variable, Iterable)) else (tensors,)
    for x in found:
        if not isinstance(x, Variable):
            raise DtypeError(f"expected tensors as {what}, got {type(x).__name__}")
    if not found:
        raise GradientError(f"expected at least one tensor as {what}, got none")
    return found
