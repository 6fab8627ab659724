"""What tensors are made of: arrays, from whatever holds numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, backend_for
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import ArgumentError, DtypeError, TinygradError
from tinygrad_bn.ops.promotion import category


def as_array(data: object, dtype: Any, device: object) -> tuple[Array, Backend]:
    """A fresh array with the values of ``data``, and its backend; Python floats in the default
    dtype, and all of it in the byte order of this machine.

    Raises
    ------
    DtypeError, ArgumentError
        For what is not numbers, or would lose a mask; for a number that ``dtype`` does not hold.
    """
    backend = (
        backend_for(device)
        if device is not None or not isinstance(data, Variable)
        else data.backend
    )
    if isinstance(data, Variable):
        source = data.array if data.backend is backend else data.backend.to_numpy(data.array)
    else:
        source = with_numbers_for_scalars(data)
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
        return backend.asarray(array, array.dtype.newbyteorder("=")), backend
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
