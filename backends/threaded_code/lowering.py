"""Which machine code a call in Python comes down to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from ..numba_kernels.conversions import converted
from .assembly import NativeCall
from .compiled_functions import compiled_call
from .products import product
from .ufunc_loops import loop_call


def machine_code(function: Callable[..., Any], args: tuple[Any, ...]) -> NativeCall | None:
    """The call of a function on arrays in their places, as one of machine code with the same bits;
    None where there is none.

    Known are compiled functions, ufuncs whose last operand is the result, `numpy.matmul` likewise,
    and `numpy.copyto`.
    """
    if isinstance(function, np.ufunc):
        if function is np.matmul:
            return product(*args)
        return loop_call(function, args[:-1], args[-1])
    if isinstance(function, partial):
        if isinstance(function.func, np.ufunc) and [*function.keywords] == ["out"]:
            return loop_call(function.func, args, function.keywords["out"])
        if function.func is np.copyto:
            return copy(*args)
        return None
    return compiled_call(function, args)


def copy(target: Array, values: Any) -> NativeCall | None:
    """The call that overwrites ``target``, cast and broadcast."""
    if not isinstance(values, np.ndarray):
        return None
    if values.dtype == target.dtype and target.dtype.kind in "iuf":
        return loop_call(np.positive, (values,), target)
    if target.dtype.kind != "f" or target.dtype.itemsize < 4 or values.shape != target.shape:
        return None
    if values.dtype.kind not in "biuf" or values.dtype.char == "e":
        return None
    if not (values.flags.c_contiguous and target.flags.c_contiguous):
        return None
    return compiled_call(converted, (values.reshape(-1), target.reshape(-1)))
