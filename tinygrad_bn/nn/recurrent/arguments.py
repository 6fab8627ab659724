"""What recurrent layers and cells ask of their arguments, said before anything has changed."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import brings_together
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.tensors import Tensor

NONLINEARITIES = ("tanh", "relu")


def require_sizes(**sizes: int) -> None:
    """Refuse sizes below 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise DtypeError(f"expected a whole number as {name}, got {size!r}")
        if size < 1:
            raise ArgumentError(f"expected {name} ≥ 1, got {size}")


def require_nonlinearity(nonlinearity: str) -> None:
    """Refuse what is neither "tanh" nor "relu"."""
    if nonlinearity not in NONLINEARITIES:
        raise ArgumentError(f"expected nonlinearity 'tanh' or 'relu', got {nonlinearity!r}")


def require_like(weight: Tensor, x: Any, name: str) -> None:
    """Refuse what is no tensor of the weight's dtype where the weight is; inside of `autocast`,
    which casts both, any float will do.

    Raises
    ------
    DtypeError, BackendError
    """
    require_tensor(x, name)
    if x.dtype != weight.dtype and not brings_together(weight, x):
        raise DtypeError(f"expected {name} of the weights' {weight.dtype}, got {x.dtype}")
    if x.backend is not weight.backend:
        raise BackendError(f"expected {name} on {weight.device}, got one on {x.device}")


def require_state(weight: Tensor, state: Any, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a state of another shape, dtype or device."""
    require_like(weight, state, name)
    if state.shape != shape:
        raise ShapeError(f"expected {name} of shape {shape}, got {state.shape}")


def lengths_of(mask: Any, shape: tuple[int, ...], time: int) -> list[int]:
    """How many steps of each sequence a mask keeps, which must be its first ones; on a GPU this
    waits for it. A mask of one sequence gives one number.

    Raises
    ------
    DtypeError, ShapeError, ArgumentError
        For what is not booleans in that shape, and where steps are kept after one that is not.
    """
    require_tensor(mask, "mask")
    if mask.dtype != bool:
        raise DtypeError(f"expected a mask of booleans, got {mask.dtype}")
    if mask.shape != shape:
        raise ShapeError(f"expected a mask {shape}, the input's shape without it, got {mask.shape}")
    kept = mask.cpu().numpy()
    if len(shape) == 1:
        kept, time = kept[:, None], 0
    kept = kept if time == 0 else kept.T
    if (kept[1:] & ~kept[:-1]).any():
        raise ArgumentError("expected a mask true for the first steps of each sequence, got others")
    return kept.sum(0).tolist()  # type: ignore[no-any-return]
