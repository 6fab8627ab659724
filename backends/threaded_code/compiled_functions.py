"""Calls of functions that Numba compiled, by its own calling convention: a place for the result,
one for an exception, and the arguments in flat form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .assembly import NativeCall

SCRATCH = np.zeros(16, np.int64)
"""Where functions leave the None that they return, and descriptions of exceptions: nobody reads it,
so all threads may write there."""


def compiled_call(function: Any, args: tuple[Any, ...]) -> NativeCall | None:
    """The call of a compiled function, without Python; None if it takes anything but arrays,
    numbers, None and tuples of these, or returns something.
    """
    if not hasattr(function, "overloads"):
        return None
    flat: list[Any] = []
    for x in args:
        parts = flattened(x)
        if parts is None:
            return None
        flat += parts
    signature = tuple(function.typeof_pyval(x) for x in args)
    if signature not in function.overloads:
        function.compile(signature)
    compiled = function.overloads[signature]
    if compiled.signature.return_type != types.none:
        return None
    described, convention = compiled.fndesc, compiled.target_context.call_conv
    kind = convention.get_function_type(described.restype, described.argtypes)
    if len(kind.args) != len(flat) + 2:
        return None
    target = compiled.library.get_pointer_to_function(described.llvm_func_name)
    operands = (SCRATCH[:8], SCRATCH[8:], *flat)
    return NativeCall(target, kind, operands, (function, args))


def flattened(x: Any) -> list[Any] | None:
    """An argument as Numba passes it: an array is its owner and parent, which stay Python's, its
    size, itemsize, data, shape and strides; a tuple is its parts.
    """
    if isinstance(x, np.ndarray):
        return [0, 0, x.size, x.itemsize, x, *x.shape, *x.strides]
    if x is None:
        return [0]
    if isinstance(x, (bool, int, float)):
        return [x]
    if isinstance(x, tuple):
        parts = [flattened(part) for part in x]
        return None if None in parts else [word for part in parts for word in part or ()]
    return None
