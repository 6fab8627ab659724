"""sigmoid and tanh that LLVM turns into vector instructions, for the gates of recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from . import compilation
from .vector_math import EXP

OPTIONS: Any = {**compilation.OPTIONS, "forceinline": True}  # a call is in the way of vectors


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of a float32 or float64 in compiled code, to a few ulp."""
    raise NotImplementedError("expected to be called from compiled code")


def tanh(x: Any) -> Any:
    """tanh(x) of a float32 or float64 in compiled code, to a few ulp, also near 0."""
    raise NotImplementedError("expected to be called from compiled code")


def sigmoid_in(real: Any, exp: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """sigmoid in the dtype ``real``, from its exp."""
    exp_here, one = compilation.inlined(exp), real(1)

    def compute(x: Any) -> Any:
        return one / (one + exp_here(-x))

    return compute


def tanh_in(real: Any, exp: Callable[[Any], Any], degree: int) -> Callable[[Any], Any]:
    """tanh in the dtype ``real``, from its exp; ``degree`` is that of the series.

    With e = exp(2x) - 1 it is e / (e + 2). Where |x| is below a quarter, the difference from 1
    would lose digits, and e is a series. Where the quotient rounds to 1, e may be infinite.
    """
    exp_here, one, two, near = compilation.inlined(exp), real(1), real(2), real(0.25)
    most = real(0.7 * (np.finfo(real).nmant + 4))
    first, *others = [real(1 / math.factorial(n)) for n in range(degree, 1, -1)]
    rest = tuple(others)

    def compute(x: Any) -> Any:
        u = two * x
        square = u * u
        far = exp_here(u) - one
        q = first
        for term in rest:
            q = q * u + term
        series = q * square + u
        e = series if square < near else far
        y = e / (e + two)
        return one if u > most else y  # where e is infinite, y is NaN; and if x is, it stays

    return compute


SIGMOID = {
    types.float32: sigmoid_in(np.float32, EXP[types.float32]),
    types.float64: sigmoid_in(np.float64, EXP[types.float64]),
}
TANH = {
    types.float32: tanh_in(np.float32, EXP[types.float32], 9),
    types.float64: tanh_in(np.float64, EXP[types.float64], 15),
}


@overload(sigmoid, jit_options=OPTIONS)
def typed_sigmoid(x: Any) -> Any:
    return SIGMOID.get(x)


@overload(tanh, jit_options=OPTIONS)
def typed_tanh(x: Any) -> Any:
    return TANH.get(x)
