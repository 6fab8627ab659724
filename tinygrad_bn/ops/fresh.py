"""Tensors made beside another: of its dtype and device, outside of any graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, backend_for, current
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.ops.shape import sizes

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def beside(
    x: Tensor,
    word: str,
    *args: Any,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    backend = x.backend if device is None else backend_for(device)
    with current(backend):
        wanted = x.array.dtype if dtype is None else as_dtype(dtype)
        array = getattr(backend.xp, word)(*args, dtype=wanted)
    return leaf(array, backend, requires_grad)


def leaf(array: Array, backend: Backend, requires_grad: bool) -> Tensor:
    made: Tensor = Variable.tensor_class.wrap(array, backend)  # type: ignore[assignment]
    return made.requires_grad_(requires_grad)


def new_zeros(input: Tensor, size: Any, *more: Any, **options: Any) -> Tensor:
    """Zeros of another size; ``dtype``, ``device`` and ``requires_grad`` may be given."""
    return beside(input, "zeros", sizes((size, *more)), **options)


def new_ones(input: Tensor, size: Any, *more: Any, **options: Any) -> Tensor:
    """Ones of another size; ``dtype``, ``device`` and ``requires_grad`` may be given."""
    return beside(input, "ones", sizes((size, *more)), **options)


def new_full(input: Tensor, size: Any, fill_value: float, **options: Any) -> Tensor:
    """One number everywhere, in another size; options as of `new_zeros`."""
    return beside(input, "full", sizes((size,)), fill_value, **options)


def new_tensor(
    input: Tensor,
    data: Any,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """A copy of ``data``."""
    backend = input.backend if device is None else backend_for(device)
    wanted = input.array.dtype if dtype is None else as_dtype(dtype)
    return leaf(backend.copy(backend.asarray(data, wanted)), backend, requires_grad)
