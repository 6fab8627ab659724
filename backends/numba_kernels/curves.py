"""Activations and their chain rules: one pass over memory, in the dtype of the elements.

Their formulas are those of `tinygrad_bn.curves`, but for Φ, of which the tail is computed, so
that it keeps its digits where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.extending import overload

from tinygrad_bn import curves
from tinygrad_bn.backend import Array

from . import gate_math
from .borrowing import written
from .calling import Call, in_one_call, place
from .compilation import OPTIONS, compiled, in_whole_registers, inlined
from .gate_math import PARTS, REAL, SIGMOID, TANH
from .hidden_layer import accepts, accepts_two, flat, like

INLINED: Any = {**OPTIONS, "forceinline": True}  # a call is in the way of vectors
Formula = Callable[[Any, Any], Any]
"""Of a curve and x."""


def value(curve: Any, x: Any) -> Any:
    """f(x)."""
    raise NotImplementedError("expected to be called from compiled code")


def slope(curve: Any, x: Any) -> Any:
    """f'(x)."""
    raise NotImplementedError("expected to be called from compiled code")


def exp_in(real: Any) -> Callable[[Any], Any]:
    """exp(x) in the dtype ``real``, where it is below its greatest number; 0 where subnormal."""
    parts, most = inlined(PARTS[KINDS[real]]), real((np.finfo(real).maxexp - 0.6) * math.log(2))

    def compute(x: Any) -> Any:
        s, p = parts(x, most)
        return s * p + s

    return compute


def expm1_in(real: Any) -> Callable[[Any], Any]:
    """exp(x) - 1 for x ≤ 0 in the dtype ``real``, with its digits near 0 too."""
    parts, one = inlined(PARTS[KINDS[real]]), real(1)
    most = real((np.finfo(real).nmant + 4) * math.log(2))  # from where on it is -1

    def compute(x: Any) -> Any:
        s, p = parts(x, most)
        return s * p + (s - one)

    return compute


def polynomial_in(real: Any, coefficients: Sequence[float]) -> Callable[[Any], Any]:
    """Σ cₙ xⁿ in the dtype ``real``, four terms at a time and without a loop: where there are
    several loops in one, LLVM makes no vectors.
    """
    a, b, c, d = (*map(real, coefficients[:4]), *(real(0),) * 3)[:4]

    def lowest(x: Any) -> Any:
        return (a + b * x) + (x * x) * (c + d * x)

    if len(coefficients) <= 4:
        return lowest
    first, rest = inlined(lowest), inlined(polynomial_in(real, coefficients[4:]))

    def compute(x: Any) -> Any:
        return first(x) + (x * x) * (x * x) * rest(x)

    return compute


def log1p_in(real: Any) -> Callable[[Any], Any]:
    """log(1 + x) for 0 ≤ x ≤ 1 in the dtype ``real``: 2 artanh(u) with u = x / (x + 2) ≤ 1/3, by
    its series, of which the rest is below a tenth of an ulp.
    """
    terms = math.ceil((np.finfo(real).nmant + 4) / math.log2(9))
    series = inlined(polynomial_in(real, [2 / (2 * n + 1) for n in range(1, 1 + terms)]))
    two = real(2)

    def compute(x: Any) -> Any:
        u = x / (x + two)
        square = u * u
        return u * (square * series(square)) + two * u

    return compute


def tail_in(real: Any, degree: int, middle: float) -> Callable[[Any], Any]:
    """exp(z²) erfc(z) / 2 for z ≥ 0 in the dtype ``real``.

    Times 1 + 2z it is a polynomial in (z - m) / (z + m), as Shepherd and Laframboise found (1981,
    "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞"); ours interpolates SciPy's
    function.
    """
    from scipy.fft import dct  # 100 ms that most programs never need
    from scipy.special import erfcx

    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    z = middle * (1 + nodes) / (1 - nodes)
    series = dct((0.5 + z) * erfcx(z)) / (degree + 1)
    series[0] /= 2
    polynomial = inlined(polynomial_in(real, np.polynomial.chebyshev.cheb2poly(series).tolist()))
    m, one, two = real(middle), real(1), real(2)

    def compute(z: Any) -> Any:
        return polynomial((z - m) / (z + m)) / (one + two * z)

    return compute


def of_elu(real: Any) -> tuple[Formula, Formula]:
    expm1, exp, zero, one = inlined(expm1_in(real)), inlined(exp_in(real)), real(0), real(1)

    def elu(curve: Any, x: Any) -> Any:
        below = zero if x > zero else x
        part = real(curve.alpha) * expm1(real(curve.rate) * below)
        return real(curve.scale) * (x if x > zero else part)

    def slope(curve: Any, x: Any) -> Any:
        below = zero if x > zero else x
        part = real(curve.alpha * curve.rate) * exp(real(curve.rate) * below)
        return real(curve.scale) * (one if x > zero else part)

    return elu, slope


def of_gelu(real: Any) -> tuple[Formula, Formula]:
    exp, one, zero = inlined(exp_in(real)), real(1), real(0)
    tail = inlined(tail_in(real, 10, 2.75) if real is np.float32 else tail_in(real, 22, 3.75))
    half, most = real(-0.5), real(40)
    root, density = real(math.sqrt(0.5)), real(1 / math.sqrt(2 * math.pi))

    def gelu(curve: Any, x: Any) -> Any:
        within = -most if x < -most else (most if x > most else x)
        below = tail(abs(within) * root) * exp(half * within * within)
        return x * (below if x < zero else one - below)

    def slope(curve: Any, x: Any) -> Any:
        within = -most if x < -most else (most if x > most else x)
        e = exp(half * within * within)
        below = tail(abs(within) * root) * e
        return (below if x < zero else one - below) + within * (density * e)

    return gelu, slope


def of_gelu_tanh(real: Any) -> tuple[Formula, Formula]:
    tanh, one, half, most = inlined(TANH[KINDS[real]]), real(1), real(0.5), real(10)
    first, third = real(math.sqrt(2 / math.pi)), real(0.044715)
    three = real(3 * 0.044715)

    def gelu(curve: Any, x: Any) -> Any:
        within = -most if x < -most else (most if x > most else x)
        t = tanh(first * within * (one + third * within * within))
        return half * x * (one + t)

    def slope(curve: Any, x: Any) -> Any:
        within = -most if x < -most else (most if x > most else x)
        t = tanh(first * within * (one + third * within * within))
        inner = first * (one + three * within * within)
        return half * ((one + t) + within * (one - t * t) * inner)

    return gelu, slope


def of_silu(real: Any) -> tuple[Formula, Formula]:
    sigmoid, one = inlined(SIGMOID[KINDS[real]]), real(1)

    def silu(curve: Any, x: Any) -> Any:
        return x * sigmoid(x)

    def slope(curve: Any, x: Any) -> Any:
        s = sigmoid(x)
        return s * (one + x * (one - s))

    return silu, slope


def of_mish(real: Any) -> tuple[Formula, Formula]:
    exp, one, two, four = inlined(exp_in(real)), real(1), real(2), real(4)
    most = real(20)

    def mish(curve: Any, x: Any) -> Any:
        w = exp(most if x > most else x)
        n = w * (w + two)
        return x * (n / (n + two))

    def slope(curve: Any, x: Any) -> Any:
        below = most if x > most else x
        w = exp(below)
        n = w * (w + two)
        return n / (n + two) + below * (four * w * (w + one) / ((n + two) * (n + two)))

    return mish, slope


def of_softplus(real: Any) -> tuple[Formula, Formula]:
    exp, log1p = inlined(exp_in(real)), inlined(log1p_in(real))
    sigmoid, zero, one = inlined(SIGMOID[KINDS[real]]), real(0), real(1)

    def softplus(curve: Any, x: Any) -> Any:
        z = real(curve.beta) * x
        y = ((zero if z < zero else z) + log1p(exp(-abs(z)))) / real(curve.beta)
        return x if z > real(curve.threshold) else y

    def slope(curve: Any, x: Any) -> Any:
        z = real(curve.beta) * x
        return one if z > real(curve.threshold) else sigmoid(z)

    return softplus, slope


def of_log_sigmoid(real: Any) -> tuple[Formula, Formula]:
    exp, log1p = inlined(exp_in(real)), inlined(log1p_in(real))
    sigmoid, zero = inlined(SIGMOID[KINDS[real]]), real(0)

    def log_sigmoid(curve: Any, x: Any) -> Any:
        return (zero if x > zero else x) - log1p(exp(-abs(x)))

    def slope(curve: Any, x: Any) -> Any:
        return sigmoid(-x)

    return log_sigmoid, slope


def of_leaky_relu(real: Any) -> tuple[Formula, Formula]:
    zero, one = real(0), real(1)

    def leaky_relu(curve: Any, x: Any) -> Any:
        return x if x > zero else real(curve.slope) * x

    def slope(curve: Any, x: Any) -> Any:
        return one if x > zero else real(curve.slope)

    return leaky_relu, slope


KINDS = {real: kind for kind, real in REAL.items()}
MAKERS: dict[Any, Callable[[Any], tuple[Formula, Formula]]] = {
    curves.Elu: of_elu,
    curves.Gelu: of_gelu,
    curves.GeluTanh: of_gelu_tanh,
    curves.LeakyRelu: of_leaky_relu,
    curves.LogSigmoid: of_log_sigmoid,
    curves.Mish: of_mish,
    curves.Silu: of_silu,
    curves.Softplus: of_softplus,
}


def formula(place: int, curve: Any, x: Any) -> Formula | None:
    maker = MAKERS.get(getattr(curve, "instance_class", None))
    return maker(REAL[x])[place] if maker and x in REAL else None


@overload(value, jit_options=INLINED)
def typed_value(curve: Any, x: Any) -> Formula | None:
    return formula(0, curve, x)


@overload(slope, jit_options=INLINED)
def typed_slope(curve: Any, x: Any) -> Formula | None:
    return formula(1, curve, x)


@compiled
def values(x: Any, curve: Any, out: Any) -> None:
    """f(x)."""
    in_whole_registers()
    y = written(out, x)
    for i in range(x.size):
        y[i] = value(curve, x[i])


@compiled
def chained(dy: Any, x: Any, curve: Any, out: Any) -> None:
    """dy f'(x)."""
    in_whole_registers()
    dx = written(out, dy)
    for i in range(x.size):
        dx[i] = dy[i] * slope(curve, x[i])


@compiled
def sigmoids(x: Any, out: Any) -> None:
    """σ(x)."""
    in_whole_registers()
    y = written(out, x)
    for i in range(x.size):
        y[i] = gate_math.sigmoid(x[i])


@compiled
def sigmoid_chained(dy: Any, y: Any, out: Any) -> None:
    """dy y (1 - y)."""
    in_whole_registers()
    dx, one = written(out, dy), dy.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * y[i] * (one - y[i])


@compiled
def tanh_chained(dy: Any, y: Any, out: Any) -> None:
    """dy (1 - y²)."""
    dx, one = written(out, dy), dy.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


def curve_value(outs: tuple[Array, ...], x: Array, curve: Any) -> Call:
    return values, (flat(x), numbers(curve), flat(place(outs[0], x)))


def curve_grad(outs: tuple[Array, ...], dy: Array, x: Array, curve: Any) -> Call:
    return chained, (flat(dy), flat(x), numbers(curve), flat(place(outs[0], dy)))


def sigmoid_value(outs: tuple[Array, ...], x: Array) -> Call:
    return sigmoids, (flat(x), flat(place(outs[0], x)))


def sigmoid_grad(outs: tuple[Array, ...], dy: Array, y: Array) -> Call:
    return sigmoid_chained, (flat(dy), flat(y), flat(place(outs[0], dy)))


def tanh_grad(outs: tuple[Array, ...], dy: Array, y: Array) -> Call:
    return tanh_chained, (flat(dy), flat(y), flat(place(outs[0], dy)))


def numbers(curve: Any) -> Any:
    """The curve with floats only, so that one kernel serves."""
    return curve._make(map(float, curve))


def accepts_value(x: Array, curve: Any) -> bool:
    return type(curve) in MAKERS and accepts(x)


def accepts_grad(dy: Array, x: Array, curve: Any) -> bool:
    return type(curve) in MAKERS and accepts_two(dy, x)


KERNELS = {
    "curve_value": in_one_call(like, curve_value, accepts_value),
    "curve_grad": in_one_call(like, curve_grad, accepts_grad),
    "sigmoid_value": in_one_call(like, sigmoid_value, accepts),
    "sigmoid_grad": in_one_call(like, sigmoid_grad, accepts_two),
    "tanh_grad": in_one_call(like, tanh_grad, accepts_two),
}
