"""Gradients clipped, and parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import stamp
from tinygrad_bn.backend import current
from tinygrad_bn.creation import zeros
from tinygrad_bn.dtypes import float32
from tinygrad_bn.errors import ArgumentError, BackendError, GradientError, ShapeError
from tinygrad_bn.ops.clipping import add_squares, clipped
from tinygrad_bn.ops.join import cat, stack
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.statistics import vector_norm
from tinygrad_bn.tensors import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The gradients of those parameters that have one, where they are: `grad` would copy them."""
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [cast("Tensor", p._grad) for p in given if p._grad is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of all tensors together, as a tensor, in float32 or wider.

    Raises
    ------
    ArgumentError
        For a ``norm_type`` that is not positive; infinity gives the greatest absolute value.
    GradientError
        If the norm is infinite or NaN, and ``error_if_nonfinite`` asks to look, which waits for it.
    """
    if not norm_type > 0:
        raise ArgumentError(f"expected norm_type > 0, got {norm_type}")
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not given:
        return zeros(())
    with config.no_grad():
        norms = [
            vector_norm(x.float() if x.dtype.itemsize < 4 else x, norm_type).to(given[0].device)
            for x in given
            if x.numel()
        ]
        total = vector_norm(stack(norms), norm_type) if norms else zeros(())
    if error_if_nonfinite and not total.isfinite().item():
        raise GradientError(f"expected a finite norm of the gradients, got {total.item()}")
    return total


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients, in place, so that their norm together is at most ``max_norm``.

    Returns
    -------
    The norm before, as a tensor; see `get_total_norm`. Nothing waits for the device.

    References
    ----------
    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, algorithm 1.
    """
    if not max_norm >= 0:
        raise ArgumentError(f"expected max_norm >= 0, got {max_norm}")
    grads = gradients(parameters)
    if norm_type == 2 and not error_if_nonfinite and measured_by_kernels(grads):
        return clipped_on_device(grads, max_norm)
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    with config.no_grad():
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0)  # PyTorch's 1e-6: no division by zero
        for grad in grads:
            grad.overwrite((grad * scale.to(grad.device)).array)
    return total


def measured_by_kernels(grads: list[Tensor]) -> bool:
    """Whether all are of up to 32 bits, on one device that has kernels for their squares."""
    if not grads or grads[0].backend.kernels.get(add_squares.name) is None:
        return False
    backend = grads[0].backend
    return all(x.backend is backend and x.array.dtype.itemsize <= 4 for x in grads)


def clipped_on_device(grads: list[Tensor], max_norm: float) -> Tensor:
    """`clip_grad_norm_` by two launches for each gradient, and squares summed in float64."""
    backend = grads[0].backend
    xp = backend.xp
    with config.no_grad(), current(backend):
        for grad in grads:
            grad.require_outside()
        total = xp.zeros((), dtype=np.dtype(np.float64))
        for grad in grads:
            (total,) = add_squares(backend, total, grad.array)
        stamp(grads)
        for grad in grads:
            backend.store(grad.array, *clipped(backend, grad.array, total, float(max_norm)))
        norm: Tensor = grads[0].wrap_like(xp.astype(xp.sqrt(total), float32))
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Hold every element of the gradients, in place, within ±``clip_value``."""
    if not clip_value >= 0:
        raise ArgumentError(f"expected clip_value >= 0, got {clip_value}")
    with config.no_grad():
        for grad in gradients(parameters):
            grad.overwrite(grad.clamp(-clip_value, clip_value).array)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other; the gradient flows through."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Overwrite the parameters, in place, with the consecutive elements of a vector.

    PyTorch's become views of the vector; these keep their memory.

    Raises
    ------
    ShapeError, BackendError
        If the elements are not as many, or on another device; then nothing has changed.
    """
    require_tensor(vec, "vec")
    given = list(parameters)
    count = sum(p.numel() for p in given)
    if vec.shape != (count,):
        raise ShapeError(f"expected a vector ({count},), got {vec.shape}")
    for p in given:
        if p.backend is not vec.backend:
            raise BackendError(f"expected a vector on {p.device}, got {vec.device}")
    start = 0
    with config.no_grad():
        for p in given:
            p.overwrite(vec[start : start + p.numel()].reshape(p.shape).array)
            start += p.numel()
