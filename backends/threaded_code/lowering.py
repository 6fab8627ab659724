"""Which machine code a call in Python comes down to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from tinygrad_bn.backend import Array

from ..numba_kernels.conversions import chosen, converted
from .assembly import NativeCall
from .compiled_functions import compiled_call
from .products import product
from .ufunc_loops import loop_call


def machine_code(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> Sequence[NativeCall] | None:
    """The call of a function on arrays in their places as calls of machine code, with the same
    bits; None where there is none.

    Known are compiled functions; ufuncs whose last operand is the result, `numpy.matmul` too; their
    reductions; and `numpy.copyto`.
    """
    function = getattr(function, "ufunc", function)
    if isinstance(function, partial):
        found = with_options(function, args)
    elif isinstance(function, np.ufunc):
        *operands, out = args
        found = product(*args) if function is np.matmul else loop_call(function, operands, out)
    else:
        found = compiled_call(function, args)
    return [found] if isinstance(found, NativeCall) else found


def with_options(
    function: partial[Any], args: tuple[Any, ...]
) -> NativeCall | Sequence[NativeCall] | None:
    """The same for functions with options."""
    options = function.keywords
    if function.func is np.copyto:
        target, values = args
        condition = options.get("where")
        return copy(target, values) if condition is None else choice(target, values, condition)
    if isinstance(function.func, np.ufunc) and [*options] == ["out"]:
        return loop_call(function.func, args, options["out"])
    if getattr(function.func, "__self__", None) is np.add:
        return total(*args, **options)
    return None


def copy(target: Array, values: Any) -> NativeCall | None:
    """The call that overwrites ``target``, cast and broadcast."""
    if not isinstance(values, np.ndarray):
        values = np.asarray(values, target.dtype)
    if values.dtype == target.dtype and target.dtype.kind in "iuf":
        return loop_call(np.positive, (values,), target)
    if target.dtype.kind != "f" or target.dtype.itemsize < 4 or values.shape != target.shape:
        return None
    if values.dtype.kind not in "biuf" or values.dtype.char == "e":
        return None
    if values.flags.f_contiguous and target.flags.f_contiguous:
        values, target = values.T, target.T
    if not (values.flags.c_contiguous and target.flags.c_contiguous):
        return None
    return compiled_call(converted, (values.reshape(-1), target.reshape(-1)))


def choice(target: Array, values: Any, condition: Array) -> NativeCall | None:
    """The call that overwrites ``target`` where the condition, an array of its shape, is true."""
    if not isinstance(values, np.ndarray):
        values = np.asarray(values, target.dtype)
    if condition.shape != target.shape or values.shape not in ((), target.shape):
        return None
    if values.dtype != target.dtype or target.dtype.char not in "fd":
        return None
    if not all(x.flags.c_contiguous and x.flags.aligned for x in (condition, values, target)):
        return None
    return compiled_call(chosen, (condition.reshape(-1), values.reshape(-1), target.reshape(-1)))


def total(
    x: Array, axis: Any, dtype: Any, out: Array, keepdims: bool
) -> Sequence[NativeCall] | None:
    """The calls that add up as NumPy does, which begins with zero: neighbours it sums by pairs, and
    rows, or what is left of them, one after the other. Known are sums over the first axes, the
    last, and both.
    """
    if not x.size or x.dtype.char not in "fd" or dtype not in (None, out.dtype):
        return None
    axes = range(x.ndim) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    if len(axes) == x.ndim and x.flags.f_contiguous:
        x = x.T  # memory is walked through as it lies
    if x.dtype != out.dtype:
        return widened_total(x, out) if len(axes) == x.ndim else None
    if not (x.flags.c_contiguous and out.flags.c_contiguous):
        return None
    long = [i for i in range(x.ndim) if x.shape[i] > 1]
    kept = [i for i in long if i not in axes]
    first, last = (long.index(kept[0]), long.index(kept[-1]) + 1) if kept else (0, 0)
    if long[first:last] != kept:
        return None
    after = math.prod(x.shape[i] for i in long[last:])
    if after == 1:
        rows, sums = x.reshape(1, -1, out.size), out.reshape(1, -1)
    else:
        rows, sums = x.reshape(-1, out.size, after), out.reshape(-1, 1)
    place = np.broadcast_to(sums, rows.shape[1:])
    calls = [copy(out, np.zeros((), out.dtype))]
    calls += [loop_call(np.add, (place, part), place) for part in rows]
    return None if None in calls else cast("Sequence[NativeCall]", calls)


def widened_total(x: Array, out: Array) -> Sequence[NativeCall] | None:
    """The same of float32 in float64, over all of x: NumPy converts and adds a buffer at a time."""
    if x.dtype.char != "f" or out.dtype.char != "d" or not x.flags.c_contiguous:
        return None
    values, size = x.reshape(-1), np.getbufsize()
    buffer = np.empty(min(x.size, size), out.dtype)
    calls = [copy(out, np.zeros((), out.dtype))]
    for start in range(0, x.size, size):
        part = buffer[: x.size - start]
        place = np.broadcast_to(out.reshape(1), part.shape)
        calls.append(compiled_call(converted, (values[start : start + size], part)))
        calls.append(loop_call(np.add, (place, part), place))
    return None if None in calls else cast("Sequence[NativeCall]", calls)
