"""How instructions write into memory that is there already, with the bits of those that make new.

What has no entry here runs as it did when it was traced, and its result is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.capture.values import Action, Instruction

Call: TypeAlias = tuple[Callable[..., Any], Any]
"""A function and the operands that it is called with."""
Calls: TypeAlias = list[Call]

OPERATORS: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "neg": np.negative,
    "pos": np.positive,
    "abs": np.absolute,
    "invert": np.invert,
    "and_": np.bitwise_and,
    "or_": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def is_half(x: Any) -> bool:
    """Whether an array is of 16-bit floats, which the backend computes in 32."""
    return x.dtype.itemsize == 2 and x.dtype.kind in "fV"


def reduction(ufunc: np.ufunc) -> Callable[..., Calls | None]:
    def into(
        out: Array, x: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False
    ) -> Calls | None:
        if is_half(x) and ufunc not in (np.maximum, np.minimum):
            return None
        options = {"axis": axis, "dtype": dtype, "out": out, "keepdims": keepdims}
        return [(partial(ufunc.reduce, **options), (x,))]

    return into


total = reduction(np.add)


def mean(
    out: Array, x: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False
) -> Calls | None:
    if is_half(x) or np.dtype(dtype or x.dtype) != out.dtype or out.dtype.kind != "f":
        return None
    count = x.size // out.size if out.size else 1
    sums = total(out, x, axis, dtype, keepdims)
    return sums and [*sums, (np.true_divide, (out, count, out))]


def power(out: Array, x: Any, exponent: Any) -> Calls | None:
    """NumPy's operator takes these two powers by other functions than the rest."""
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and type(exponent) in (int, float):
        shortcut = {2: np.square, 0.5: np.sqrt}.get(exponent)
        if shortcut is not None:
            return [(shortcut, (x, out))]
    return None


def concatenated(out: Array, arrays: Sequence[Array], axis: int = 0) -> Calls:
    """Each array to its part of the result."""
    whole = (slice(None),) * (axis % out.ndim)
    ends = [0, *accumulate(x.shape[axis] for x in arrays)]
    return [
        (overwrite, (out[(*whole, slice(start, stop))], x))
        for x, (start, stop) in zip(arrays, pairwise(ends), strict=True)
    ]


def stacked(out: Array, arrays: Sequence[Array], axis: int = 0) -> Calls:
    """Each array to its place in the result."""
    whole = (slice(None),) * (axis % out.ndim)
    return [(overwrite, (out[(*whole, i, ...)], x)) for i, x in enumerate(arrays)]


def where(out: Array, condition: Any, a: Any, b: Any) -> Calls | None:
    if getattr(condition, "dtype", None) != np.bool_:
        return None
    chosen = partial(np.copyto, casting="unsafe", where=condition)
    return [(overwrite, (out, b)), (chosen, (out, a))]


overwrite = partial(np.copyto, casting="unsafe")


def converted(out: Array, x: Array, dtype: Any = None) -> Calls:
    return [(overwrite, (out, x))]


def reshaped(out: Array, x: Array, shape: Any) -> Calls | None:
    """Where no view has the shape: the values in C order."""
    return [(overwrite, (out.reshape(x.shape), x))] if out.flags.c_contiguous else None


def added_at(out: Array, shape: Any, index: Any, values: Array) -> Calls | None:
    """Zeros, and the values in a part that is a view."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(i is None or i is Ellipsis or isinstance(i, (int, slice)) for i in parts):
        return None
    place = out[parts if Ellipsis in parts else (*parts, ...)]  # an array, also of one element
    return [(overwrite, (out, 0)), (overwrite, (place, values))]


def sigmoid(out: Array, x: Array) -> Calls | None:
    if is_half(x):
        return None
    one = np.ones((), x.dtype)
    return [
        (np.negative, (x, out)),
        (quiet_exp, (out, out)),
        (np.add, (one, out, out)),
        (np.true_divide, (one, out, out)),
    ]


def quiet_exp(x: Array, out: Array) -> None:
    """exp, which does not warn of what overflows."""
    with np.errstate(over="ignore"):
        np.exp(x, out)


quiet_exp.ufunc = np.exp  # type: ignore[attr-defined]  # which machine code is: it warns of nothing


def clip(out: Array, x: Array, low: Any = None, high: Any = None) -> Calls | None:
    if is_half(x):
        return None
    if high is None:
        return [(partial(np.maximum, out=out), (x, low))]
    if low is None:
        return [(partial(np.minimum, out=out), (x, high))]
    return [(partial(np.clip, out=out), (x, low, high))]


DESTINATIONS: dict[str, Callable[..., Calls | None]] = {
    "sum": total,
    "max": reduction(np.maximum),
    "min": reduction(np.minimum),
    "mean": mean,
    "pow": power,
    "concatenate": concatenated,
    "stack": stacked,
    "where": where,
    "astype": converted,
    "asarray": converted,
    "copy": converted,
    "contiguous": converted,
    "reshape": reshaped,
    "add_at": added_at,
    "sigmoid": sigmoid,
    "clip": clip,
}


def prepared(
    backend: Backend, instruction: Instruction, outs: Sequence[Array], args: Any, kwargs: Any
) -> Calls:
    """The calls that fill ``outs``, from operands that are in their places."""
    name, function = instruction.name, instruction.function
    if name == "store":
        return [(overwrite, args)]
    kernel = backend.kernels.get(name)
    if kernel is not None and kernel.into is not None:
        is_check = instruction.action is Action.CALL and kernel.accepts(*args)
        if is_check or kernel.run is function:
            return [kernel.into(tuple(outs), *args, **kwargs)]
    if len(outs) == 1:
        out = outs[0]
        ufunc = OPERATORS.get(name, function)
        if ufunc in (np.maximum, np.minimum):  # their third operand may one day be no output
            return [(partial(ufunc, out=out), args)]
        if isinstance(ufunc, np.ufunc) and not kwargs:
            return [(ufunc, (*args, out))]
        into = DESTINATIONS.get(name)
        if into is not None:
            found = into(out, *args, **kwargs)
            if found is not None:
                return found
    if not any(out is not None for out in outs):
        return [(partial(function, **kwargs) if kwargs else function, args)]
    wanted = [(i, out) for i, out in zip(instruction.places, outs, strict=True) if out is not None]
    return [(partial(copied, function, wanted, kwargs), args)]


def copied(
    function: Callable[..., Any], outs: Sequence[tuple[int, Array]], kwargs: Any, *args: Any
) -> None:
    """Call the function, and copy what is new of its results to where it belongs."""
    result = function(*args, **kwargs)
    results = result if isinstance(result, tuple) else (result,)
    for place, out in outs:
        np.copyto(out, results[place])
