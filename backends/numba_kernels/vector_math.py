"""exp and a maximum that LLVM turns into vector instructions.

NumPy's exp is, in compiled code, a call of the C library for each element, and its maximum, which
NaN comes through, a branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from . import compilation

OPTIONS: Any = compilation.OPTIONS
LN2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680")


def exp(x: Any) -> Any:
    """exp(x) of a float32 or float64 in compiled code, to 1.1 ulp; subnormal results, too."""
    raise NotImplementedError("expected to be called from compiled code")


def largest(words: Any, i: Any) -> Any:
    """The greatest in row i of floats, NaN if one is there, by their bits as int32 or int64."""
    raise NotImplementedError("expected to be called from compiled code")


def exp_in(real: Any, whole: Any, degree: int) -> Callable[[Any], Any]:
    """exp in the dtype ``real``, whose bits ``whole`` can hold; ``degree`` is that of the series.

    x = k ln 2 + r with |r| ≤ ln 2 / 2, and the series of exp(r) is cut off where the rest is below
    a tenth of an ulp. k ln 2 is subtracted in two parts, the first of them short enough for its
    product to be exact. 2ᵏ is multiplied in as two powers of two, for it may be subnormal or
    infinite where the result is not.
    """
    info = np.finfo(real)
    least, most = real(math.log(info.smallest_subnormal) - 1), real(math.log(info.max) + 1)
    digits, bias, half = whole(info.nmant), whole(info.maxexp - 1), whole(1)
    parts = 2 ** (info.nmant - info.nexp)
    high = real(math.floor(LN2 * parts) / parts)
    low, inverse = real(float(LN2 - Fraction(float(high)))), real(float(1 / LN2))
    rounder = real(1.5 * 2**info.nmant)  # a sum with it is rounded to a whole number
    zero, one = rounder.view(whole), real(1)
    first, *others = [real(1 / math.factorial(n)) for n in range(degree, 1, -1)]
    rest = tuple(others)

    def compute(x: Any) -> Any:
        x = least if x < least else (most if x > most else x)  # NaN stays
        sum = real(x * inverse + rounder)
        n, k = sum - rounder, sum.view(whole) - zero
        r = (x - n * high) - n * low
        q = first
        for term in rest:
            q = q * r + term
        y = (q * (r * r) + r) + one
        part = k >> half
        a = whole((part + bias) << digits).view(real)
        b = whole((k - part + bias) << digits).view(real)
        return (y * a) * b

    return compute


def largest_in(real: Any, whole: Any) -> Callable[[Any, Any], Any]:
    """The greatest in the dtype ``real``, by its bits as whole numbers.

    Those are in the order of the numbers from zero up, and with all but the sign turned over, below
    zero too. What is greater than infinity's without the sign is NaN.
    """
    info = np.iinfo(whole)
    sign, rest, lowest = whole(info.bits - 1), whole(info.max), whole(info.min)
    infinity, nan = real(math.inf).view(whole), real(math.nan)

    def compute(words: Any, i: Any) -> Any:
        most, size = lowest, whole(0)
        for k in range(words.shape[1]):
            word = words[i, k]
            size = max(size, whole(word & rest))
            most = max(most, whole(word ^ ((word >> sign) & rest)))
        if size > infinity:
            return nan
        return whole(most ^ ((most >> sign) & rest)).view(real)

    return compute


EXP = {
    types.float32: exp_in(np.float32, np.int32, 7),
    types.float64: exp_in(np.float64, np.int64, 13),
}
LARGEST = {
    types.int32: largest_in(np.float32, np.int32),
    types.int64: largest_in(np.float64, np.int64),
}


@overload(exp, jit_options=OPTIONS)
def typed_exp(x: Any) -> Any:
    return EXP.get(x)


@overload(largest, jit_options=OPTIONS)
def typed_largest(words: Any, i: Any) -> Any:
    return LARGEST.get(words.dtype)
