"""What norms ask of their arguments, said before anything has changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Backend
from tinygrad_bn.config import grad_mode
from tinygrad_bn.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    GradientError,
    ShapeError,
)
from tinygrad_bn.ops.promotion import is_floating, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

CORRECTIONS = ("unbiased", "biased")


def require_floats(x: Any, name: str = "input") -> None:
    require_tensor(x, name)
    if not is_floating(x.array.dtype):
        raise DtypeError(f"expected floats as {name}, got {x.array.dtype}")


def fits(x: Variable, backend: Backend, shape: tuple[int, ...]) -> bool:
    """Whether a vector is as it mostly is: found out in a quarter of the time of the checks."""
    return x.backend is backend and x.array.shape == shape and x.array.dtype.kind == "f"


def require_channels(input: Tensor, channels: int, **tensors: Any) -> None:
    """Refuse vectors that do not have one float for each channel, where the input is.

    Raises
    ------
    ShapeError, DtypeError, BackendError
        Naming the vector.
    """
    for name, x in tensors.items():
        if x is None:
            continue
        require_floats(x, name)
        if x.shape != (channels,):
            raise ShapeError(f"expected {name} of shape ({channels},), got {x.shape}")
        if x.backend is not input.backend:
            raise BackendError(f"expected {name} on {input.device}, got one on {x.device}")


def require_movable(**running: Tensor | None) -> None:
    """Refuse running statistics of which one is part of a graph, where the other would move first.

    Raises
    ------
    GradientError
        Naming it.
    """
    for name, x in running.items():
        if x is not None and x.requires_grad and grad_mode.get():
            raise GradientError(f"expected {name} outside of the graph, got one with a gradient")


def require_eps(eps: float, training: bool = False) -> None:
    """Refuse an ε below 0; also 0 itself in ``training``."""
    if not (eps > 0 if training else eps >= 0):
        raise ArgumentError(f"expected eps {'> 0 in training' if training else '≥ 0'}, got {eps}")


def axis_of_channels(input: Tensor, axis: int) -> int:
    """The axis as a number from 0.

    Raises
    ------
    ShapeError, DtypeError
        If the input has no such axis, or fewer than two; or the axis is no whole number.
    """
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
        raise DtypeError(f"expected a whole number as the channel axis, got {axis!r}")
    if input.ndim < 2:
        raise ShapeError(f"expected (N, C, *S) of rank 2 or more, got {input.shape}")
    if not -input.ndim <= axis < input.ndim:
        raise ShapeError(f"expected a channel axis {axis} in the input, got {input.shape}")
    return axis % input.ndim


def require_mask(input: Tensor, axis: int, mask: Tensor | None) -> None:
    """Refuse what is not a mask of booleans, in the input's shape without its channels.

    Raises
    ------
    ShapeError, DtypeError, BackendError
    """
    if mask is None:
        return
    require_tensor(mask, "mask")
    shape = (*input.shape[:axis], *input.shape[axis + 1 :])
    if mask.dtype != bool:
        raise DtypeError(f"expected a mask of booleans, got {mask.dtype}")
    if mask.shape != shape:
        raise ShapeError(f"expected a mask {shape}, the input's shape without C, got {mask.shape}")
    if mask.backend is not input.backend:
        raise BackendError(f"expected a mask on {input.device}, got one on {mask.device}")


def values_per_channel(input: Tensor, axis: int, mask: Tensor | None = None) -> int:
    """How many values of each channel count for the statistics; to count a mask's waits for it."""
    if mask is not None:
        return int(mask.sum().item())
    shape: tuple[int, ...] = input.array.shape
    if shape[axis]:
        return input.array.size // shape[axis]  # type: ignore[no-any-return]
    return math.prod(shape[:axis]) * math.prod(shape[axis + 1 :])


def require_several(count: int, input: Tensor) -> None:
    """Refuse batch statistics of fewer than two values a channel; a batch of nothing has none.

    Raises
    ------
    ShapeError
        If there is but one, or a mask leaves none.
    """
    if count < 2 and (count or input.numel()):
        raise ShapeError(
            f"expected more than one value for each channel in training, got {count} of "
            f"{input.shape}: batch statistics of a single value are its own; use eval(), a larger "
            'batch, drop_last, or on_single="running"'
        )


def require_correction(correction: str) -> None:
    """Refuse what is neither "unbiased" nor "biased"."""
    if correction not in CORRECTIONS:
        raise ArgumentError(
            f"expected running_var_correction 'unbiased' or 'biased', got {correction!r}"
        )
