"""Tensors made beside another: of its dtype and device, outside of any graph."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.ops.shape import sizes

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def beside(x: Tensor, word: str, *args: Any, dtype: Any) -> Tensor:
    with x.backend.guard or nullcontext():
        wanted = x.array.dtype if dtype is None else as_dtype(dtype)
        made: Tensor = x.wrap_like(getattr(x.backend.xp, word)(*args, dtype=wanted))
    return made


def new_zeros(input: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """Zeros of another size."""
    return beside(input, "zeros", sizes(size), dtype=dtype)


def new_ones(input: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """Ones of another size."""
    return beside(input, "ones", sizes(size), dtype=dtype)


def new_full(input: Tensor, size: Any, fill_value: float, *, dtype: Any = None) -> Tensor:
    """One number everywhere, in another size."""
    return beside(input, "full", sizes((size,)), fill_value, dtype=dtype)


def new_tensor(input: Tensor, data: Any, *, dtype: Any = None) -> Tensor:
    """A copy of ``data``."""
    wanted = input.array.dtype if dtype is None else as_dtype(dtype)
    made: Tensor = input.wrap_like(input.backend.copy(input.backend.asarray(data, wanted)))
    return made
