"""What tensors are made of: arrays, from whatever holds numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, backend_for
from tinygrad_bn.dtypes import as_dtype


def as_array(data: object, dtype: Any, device: object) -> tuple[Array, Backend]:
    """A fresh array with the values of ``data``, and its backend; Python floats in the default
    dtype.
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
    array = backend.asarray(source, None if dtype is None else as_dtype(dtype))
    if dtype is None and not hasattr(source, "dtype") and array.dtype == np.float64:
        array = backend.asarray(array, config.get_default_dtype())
    return backend.copy(array) if hasattr(source, "dtype") else array, backend


def with_numbers_for_scalars(data: Any) -> Any:
    """Nested sequences with the scalar tensors in them as numbers."""
    if isinstance(data, (list, tuple)):
        return [with_numbers_for_scalars(x) for x in data]
    return data.item() if isinstance(data, Variable) and not data.array.ndim else data  # type: ignore[attr-defined]
