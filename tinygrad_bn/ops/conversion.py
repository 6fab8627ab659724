"""What tensors are made of: arrays, from whatever holds numbers; and how others see a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, backend_for, backend_of_pointer, current
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    GradientError,
    TinygradError,
)
from tinygrad_bn.ops.promotion import category

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

KDLCPU, KDLCUDA = 1, 2  # device types of DLPack


def as_array(data: object, dtype: Any, device: object) -> tuple[Array, Backend]:
    """A fresh array with the values of ``data``, and its backend; Python floats in the default
    dtype, and all of it in the byte order of this machine.

    Raises
    ------
    DtypeError, ArgumentError
        For what is not numbers, or would lose a mask; for a number that ``dtype`` does not hold.
    """
    held = (data.array, data.backend) if isinstance(data, Variable) else shared(data)
    if held is None:
        backend, source = backend_for(device), with_numbers_for_scalars(data)
    else:
        source, origin = held
        backend = origin if device is None else backend_for(device)
        source = source if origin is backend else backend.receive(source, origin)
    require_no_mask(source)
    wanted = None if dtype is None else as_dtype(dtype)
    try:
        array = backend.asarray(source, wanted)
    except OverflowError as error:
        raise ArgumentError(f"expected numbers that {wanted} holds: {error}") from None
    except TinygradError:
        raise
    except RuntimeError as error:  # another library's tensor that has a history, or is elsewhere
        raise DtypeError(
            f"expected numbers, got {type(data).__name__} that gives none: {error}"
        ) from error
    category(array.dtype)
    if dtype is None and not hasattr(source, "dtype") and array.dtype == np.float64:
        array = backend.asarray(array, config.get_default_dtype())
    if not array.dtype.isnative:
        return backend.asarray(array, np.dtype(array.dtype.type)), backend
    return backend.copy(array) if hasattr(source, "dtype") else array, backend


def require_no_mask(source: object) -> None:
    """Refuse NumPy's masked arrays: a tensor has no place for the mask."""
    if isinstance(source, np.ma.MaskedArray):
        raise DtypeError("expected an array without a mask; use filled() or compressed()")


def with_numbers_for_scalars(data: Any) -> Any:
    """Nested sequences with the scalar tensors in them as numbers."""
    if isinstance(data, (list, tuple)):
        return [with_numbers_for_scalars(x) for x in data]
    return data.item() if isinstance(data, Variable) and not data.array.ndim else data  # type: ignore[attr-defined]


# Other libraries' memory


def shared(data: Any) -> tuple[Array, Backend] | None:
    """An array over the memory of another library's tensor, where that is; None if it is none."""
    if isinstance(data, (np.ndarray, np.generic, Variable)):
        return None
    if hasattr(data, "__dlpack__") and hasattr(data, "__dlpack_device__"):
        return from_dlpack(data)
    if hasattr(data, "__cuda_array_interface__"):
        return from_cuda_array(data)
    return None


def from_dlpack(value: Any) -> tuple[Array, Backend]:
    """An array over memory that DLPack describes, and its backend.

    Raises
    ------
    DtypeError, BackendError
        See `tinygrad_bn.from_dlpack`.
    """
    if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
        raise DtypeError(f"expected an object with __dlpack__, got {type(value).__name__}")
    kind, index = value.__dlpack_device__()
    if kind not in (KDLCPU, KDLCUDA):
        raise BackendError(f"expected memory of the CPU or a CUDA device, got DLPack type {kind}")
    backend = backend_for("cpu" if kind == KDLCPU else f"cuda:{index}")
    try:
        array = backend.from_dlpack(value)
    except TinygradError:
        raise
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DtypeError(f"expected a tensor that DLPack can share: {error}") from error
    category(array.dtype)
    return array, backend


def from_cuda_array(value: Any) -> tuple[Array, Backend]:
    """An array over memory that ``__cuda_array_interface__`` describes, and its backend.

    Raises
    ------
    DtypeError
        For a mask, or a dtype that the library has no operations for.
    BackendError
        If there is no CuPy to read it.
    """
    interface = value.__cuda_array_interface__
    backend = backend_of_pointer(interface["data"][0])
    try:
        array = backend.from_cuda_array(value)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"expected numbers in a CUDA device's memory: {error}") from error
    category(array.dtype)
    return array, backend


# A tensor for other libraries: methods of Tensor


def dlpack(input: Tensor, **options: Any) -> object:
    """A capsule of the memory, for ``from_dlpack`` of another library."""
    require_no_history(input)
    with current(input.backend):
        return input.backend.to_dlpack(input.array, **options)


def dlpack_device(input: Tensor) -> tuple[int, int]:
    """Where the memory is, in DLPack's numbers."""
    index = input.device.index
    return (KDLCPU, 0) if index is None else (KDLCUDA, index)


def cuda_array_interface(input: Tensor) -> dict[str, Any]:
    """The memory as Numba and others see it, in the order of the stream that is current."""
    if not input.is_cuda:
        raise AttributeError("expected a tensor on a GPU to have __cuda_array_interface__")
    require_no_history(input)
    if input.dtype.name == "bfloat16":
        raise DtypeError(
            "expected a dtype of NumPy's own for __cuda_array_interface__, got bfloat16"
        )
    with current(input.backend):
        return input.array.__cuda_array_interface__  # type: ignore[no-any-return]


def require_no_history(input: Tensor) -> None:
    """Refuse a tensor whose gradient another library would not compute."""
    if input.requires_grad:
        raise GradientError("expected a tensor without history; use tensor.detach()")
