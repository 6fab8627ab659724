"""Tensors from data of other kinds, and from a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.backend import backend_for
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.ops import conversion
from tinygrad_bn.ops.conversion import require_no_mask
from tinygrad_bn.ops.elementwise import where
from tinygrad_bn.ops.promotion import INT, category, number_dtype, require_tensor
from tinygrad_bn.ops.shape import sizes
from tinygrad_bn.tensors import Tensor

__all__ = [
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "tensor",
    "zeros",
    "zeros_like",
]

# From data


def tensor(
    data: object, *, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with a copy of ``data``: numbers, nested sequences, an array, another tensor.

    Python floats come in the default dtype, whole numbers in int64; arrays and tensors keep theirs.

    Raises
    ------
    DtypeError
        For ragged sequences and what is not numbers.
    """
    return Tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


def as_tensor(data: object, dtype: Any = None, device: object = None) -> Tensor:
    """``data`` as a tensor: itself, or sharing memory, where nothing has to change.

    Memory is shared with NumPy's arrays, and with other libraries' tensors on the CPU and on GPUs,
    by DLPack or ``__cuda_array_interface__``; those stay where they are without a ``device``.
    """
    if isinstance(data, np.ndarray):
        data = from_numpy(data)
    elif (held := conversion.shared(data)) is not None:
        data = Tensor.wrap(*held)
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    return Tensor(data, dtype=dtype, device=device)


def asarray(
    obj: object,
    *,
    dtype: Any = None,
    device: object = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """``obj`` as a tensor outside of any graph; copied if ``copy``, else only if it must be."""
    found = as_tensor(obj, dtype, device).detach()
    if copy:
        found = found.clone()
    return found.requires_grad_() if requires_grad else found


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """The array itself as a tensor: both share the memory, read-only if the array is.

    Raises
    ------
    DtypeError
        If it is no NumPy array, or of a dtype or byte order that the library has no operations for.
    """
    if not isinstance(ndarray, np.ndarray):
        raise DtypeError(f"expected a NumPy array, got {type(ndarray).__name__}")
    require_no_mask(ndarray)
    category(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise DtypeError(f"expected the byte order of this machine, got {ndarray.dtype.str}")
    return Tensor.wrap(ndarray.view(np.ndarray), backend_for("cpu"))


def from_dlpack(ext_tensor: Any, *, device: object = None, copy: bool | None = None) -> Tensor:
    """Any library's tensor that speaks DLPack, sharing its memory.

    What its library has yet to compute on a GPU is waited for by the device, not by the host.

    Parameters
    ----------
    device : where it is to be; where it is if None.
    copy : True for memory of its own, False for an error where it would have to be copied.

    Raises
    ------
    DtypeError
        If it does not speak it, has a history, or is of a dtype without operations here.
    BackendError
        If it lies neither in this machine's memory nor on an NVIDIA GPU.
    ArgumentError
        If it may not be copied and is not on the device.

    Notes
    -----
    bfloat16 is exchanged too. Memory that may not be written to stays so on the CPU; on a GPU,
    where no array is protected, it is copied.
    """
    found = Tensor.wrap(*conversion.from_dlpack(ext_tensor))
    there = found if device is None else found.to(device)
    if copy is False and there is not found:
        raise ArgumentError(f"expected a tensor on {there.device} to share, got {found.device}")
    return there.clone() if copy and there is found else there


# From a formula


def made(
    word: str, *args: Any, dtype: np.dtype[Any], device: object, requires_grad: bool = False
) -> Tensor:
    """A tensor that a word of the vocabulary makes from nothing."""
    backend = backend_for(device)
    with backend.guard or nullcontext():
        found = Tensor.wrap(getattr(backend.xp, word)(*args, dtype=dtype), backend)
    return found.requires_grad_() if requires_grad else found


def dtype_or_default(dtype: Any) -> np.dtype[Any]:
    return config.get_default_dtype() if dtype is None else as_dtype(dtype)


def zeros(
    *size: Any, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the given size."""
    wanted = dtype_or_default(dtype)
    return made("zeros", sizes(size), dtype=wanted, device=device, requires_grad=requires_grad)


def ones(
    *size: Any, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the given size."""
    wanted = dtype_or_default(dtype)
    return made("ones", sizes(size), dtype=wanted, device=device, requires_grad=requires_grad)


def empty(
    *size: Any, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """A tensor to be overwritten; here its values are zeros, in PyTorch whatever was there."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


def full(
    size: int | Sequence[int],
    fill_value: float,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """One number everywhere, by default in the number's own dtype (int64 for whole numbers)."""
    (number,), shape = numbers(fill_value), sizes((size,))
    wanted = number_dtype(number) if dtype is None else as_dtype(dtype)
    try:
        return made("full", shape, number, dtype=wanted, device=device, requires_grad=requires_grad)
    except (OverflowError, ValueError):
        raise ArgumentError(f"expected a number that {wanted} holds, got {number}") from None


def scalar_tensor(
    s: float, *, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """A number as a tensor of rank 0, in the default dtype."""
    wanted = dtype_or_default(dtype)
    return full((), s, dtype=wanted, device=device, requires_grad=requires_grad)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... as far as before end; ``arange(end)`` starts at 0.

    int64 if all three are whole numbers, else the default dtype; computed in int64 or float64 and
    rounded once, where PyTorch rounds fractions on the way to an integer dtype as it goes.

    Raises
    ------
    ArgumentError
        If the steps are 0, lead away from ``end``, or a bound is not finite.
    """
    if end is None:
        start, end = 0, start
    start, end, step = numbers(start, end, step)
    whole = all(isinstance(x, int) for x in (start, end, step))
    if not (math.isfinite(start) and math.isfinite(end)) or not step or (end - start) / step < 0:
        raise ArgumentError(f"expected steps from {start} towards {end}, got steps of {step}")
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    wide = np.dtype(np.int64 if whole else np.float64)
    wanted = as_dtype(dtype) if dtype is not None else wide if whole else config.get_default_dtype()
    counted = made("arange", count, dtype=wide, device=device)
    return finished(counted * step + start, wanted, requires_grad)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """``steps`` numbers at equal distances from start to end, both included exactly.

    In an integer dtype start and end lose their fractions first, as in PyTorch.
    """
    wanted = dtype_or_default(dtype)
    return finished(between(start, end, steps, wanted, device), wanted, requires_grad)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** x for the numbers x of `linspace` before they are rounded."""
    wanted = dtype_or_default(dtype)
    return finished(base ** between(start, end, steps, wanted, device), wanted, requires_grad)


def numbers(*values: Any) -> Any:
    """Python numbers from these, or from tensors of one element."""
    return tuple(x.item() if hasattr(x, "item") else x for x in values)


def between(start: Any, end: Any, steps: int, dtype: np.dtype[Any], device: object) -> Tensor:
    """Equidistant float64 numbers, counted from the nearer end: the last is ``end`` itself."""
    (start, end), (count,) = numbers(start, end), sizes((steps,))
    if category(dtype) == INT:
        start, end = int(start), int(end)
    i = made("arange", count, dtype=np.dtype(np.float64), device=device)
    step = (end - start) / max(count - 1, 1)
    first, last = start + i * step, end - (count - 1 - i) * step
    return where(i < max(count / 2, 1), first, last)


def finished(values: Tensor, dtype: np.dtype[Any], requires_grad: bool) -> Tensor:
    """Freshly computed values in their dtype, as a leaf."""
    return values.to(dtype=dtype).requires_grad_(requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """The (n, m) matrix with ones on its diagonal; square by default."""
    shape, wanted = sizes((n, n if m is None else m)), dtype_or_default(dtype)
    return made("eye", *shape, dtype=wanted, device=device, requires_grad=requires_grad)


# In the likeness of another tensor


def likeness(input: Tensor, dtype: Any, device: object) -> dict[str, Any]:
    """The dtype and device of ``input``, where they are not given."""
    require_tensor(input)
    return {
        "dtype": input.dtype if dtype is None else dtype,
        "device": input.device if device is None else device,
    }


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the shape of ``input``, and of its dtype and device."""
    return zeros(input.shape, requires_grad=requires_grad, **likeness(input, dtype, device))


def ones_like(
    input: Tensor, *, dtype: Any = None, device: object = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the shape of ``input``, and of its dtype and device."""
    return ones(input.shape, requires_grad=requires_grad, **likeness(input, dtype, device))


def full_like(
    input: Tensor,
    fill_value: float,
    *,
    dtype: Any = None,
    device: object = None,
    requires_grad: bool = False,
) -> Tensor:
    """One number everywhere, in the shape of ``input``, and of its dtype and device."""
    options = likeness(input, dtype, device)
    return full(input.shape, fill_value, requires_grad=requires_grad, **options)


empty_like = zeros_like
