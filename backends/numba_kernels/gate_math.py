"""sigmoid and tanh that LLVM turns into vector instructions, for the gates of recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from . import compilation
from .vector_math import LN2

OPTIONS: Any = {**compilation.OPTIONS, "forceinline": True}  # a call is in the way of vectors


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of a float32 or float64 in compiled code, to a few ulp; 0 where that is
    subnormal.
    """
    raise NotImplementedError("expected to be called from compiled code")


def tanh(x: Any) -> Any:
    """tanh(x) of a float32 or float64 in compiled code, to a few ulp, also near 0."""
    raise NotImplementedError("expected to be called from compiled code")


def parts_in(real: Any, whole: Any, degree: int) -> Callable[[Any, Any], Any]:
    """exp in two parts in the dtype ``real``, whose bits ``whole`` can hold: s and p with
    s (1 + p), s a power of two; ``degree`` is that of the series of p.

    x = k ln 2 + r as in `vector_math.exp_in`, but x is first brought within ±``most``, where s is a
    normal number, or 0 for the least of them: one multiplication less, and p keeps the digits that
    1 + p would lose.
    """
    info = np.finfo(real)
    digits, bias = whole(info.nmant), whole(info.maxexp - 1)
    parts = 2 ** (info.nmant - info.nexp)
    high = real(math.floor(LN2 * parts) / parts)
    low, inverse = real(float(LN2 - Fraction(float(high)))), real(float(1 / LN2))
    rounder = real(1.5 * 2**info.nmant)  # a sum with it is rounded to a whole number
    zero = rounder.view(whole)
    first, *others = [real(1 / math.factorial(n)) for n in range(degree, 1, -1)]
    rest = tuple(others)

    def compute(x: Any, most: Any) -> Any:
        x = -most if x < -most else (most if x > most else x)  # NaN stays
        sum = real(x * inverse + rounder)
        n, k = sum - rounder, sum.view(whole) - zero
        r = (x - n * high) - n * low
        q = first
        for term in rest:
            q = q * r + term
        return whole((k + bias) << digits).view(real), q * (r * r) + r

    return compute


def sigmoid_in(real: Any, parts: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """sigmoid in the dtype ``real``, from the parts of exp."""
    parts_here, one, zero = compilation.inlined(parts), real(1), real(0)
    most = real((np.finfo(real).maxexp - 0.6) * float(LN2))

    def compute(x: Any) -> Any:
        s, p = parts_here(-x, most)
        y = one / (one + (s * p + s))
        return zero if x < -most else y

    return compute


def tanh_in(real: Any, parts: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """tanh in the dtype ``real``, from the parts of exp.

    With e = exp(2x) - 1 it is e / (e + 2), and e = s p + (s - 1) has its digits near 0 too, where s
    is 1. Beyond ``most`` the quotient rounds to ±1.
    """
    parts_here, one, two = compilation.inlined(parts), real(1), real(2)
    most = real(0.7 * (np.finfo(real).nmant + 4))

    def compute(x: Any) -> Any:
        s, p = parts_here(two * x, most)
        e = s * p + (s - one)
        return e / (e + two)

    return compute


PARTS = {
    types.float32: parts_in(np.float32, np.int32, 7),
    types.float64: parts_in(np.float64, np.int64, 13),
}
REAL = {types.float32: np.float32, types.float64: np.float64}
SIGMOID = {kind: sigmoid_in(REAL[kind], parts) for kind, parts in PARTS.items()}
TANH = {kind: tanh_in(REAL[kind], parts) for kind, parts in PARTS.items()}


@overload(sigmoid, jit_options=OPTIONS)
def typed_sigmoid(x: Any) -> Any:
    return SIGMOID.get(x)


@overload(tanh, jit_options=OPTIONS)
def typed_tanh(x: Any) -> Any:
    return TANH.get(x)
