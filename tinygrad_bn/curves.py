"""Activations as curves: what becomes of a number, and the slope there.

A curve is a tuple of its numbers. A backend may have kernels for some of them; the others, and
derivatives of higher order, are computed by what stands here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from tinygrad_bn.backend import Array, Backend, kernel_point


class Curve(Protocol):
    """A function of one number, and its chain rule; both see float32 or wider."""

    def value(self, xp: Any, x: Array) -> Array:
        """f(x)."""

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        """dy f'(x)."""


@kernel_point
def curve_value(backend: Backend, x: Array, curve: Curve) -> Array:
    """f(x) of each element."""
    return curve.value(backend.xp, x)


@kernel_point
def curve_grad(backend: Backend, dy: Array, x: Array, curve: Curve) -> Array:
    """dy f'(x) of each element."""
    return curve.chain(backend.xp, dy, x)


@kernel_point
def sigmoid_value(backend: Backend, x: Array) -> Array:
    """1 / (1 + exp(-x)) of each element."""
    return backend.xp.sigmoid(x)


@kernel_point
def sigmoid_grad(backend: Backend, dy: Array, y: Array) -> Array:
    """dy σ'(x), from y = σ(x)."""
    return dy * y * (1 - y)


@kernel_point
def tanh_grad(backend: Backend, dy: Array, y: Array) -> Array:
    """dy tanh'(x), from y = tanh(x)."""
    return dy * (1 - y * y)


class Elu(NamedTuple):
    """scale · x where it is positive, scale · alpha (exp(rate · x) - 1) elsewhere."""

    alpha: float
    scale: float
    rate: float

    def value(self, xp: Any, x: Array) -> Array:
        below = self.alpha * xp.expm1(self.rate * xp.minimum(x, 0))
        return self.scale * xp.where(x > 0, x, below)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        below = self.alpha * self.rate * xp.exp(self.rate * xp.minimum(x, 0))
        return dy * (self.scale * xp.where(x > 0, 1.0, below))


class Gelu(NamedTuple):
    """x Φ(x), where Φ is the distribution function of the standard normal law."""

    def value(self, xp: Any, x: Array) -> Array:
        return x * normal(xp, x)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        x = xp.clip(x, -40, 40)  # where the derivative is 0 or 1, and x * x has no overflow
        density = xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return dy * (normal(xp, x) + x * density)


def normal(xp: Any, x: Array) -> Array:
    """Φ(x)."""
    return 0.5 * (1 + xp.erf(x * math.sqrt(0.5)))


class GeluTanh(NamedTuple):
    """x Φ(x), with Φ approximated by (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2."""

    def value(self, xp: Any, x: Array) -> Array:
        return 0.5 * x * (1 + near_normal(xp, xp.clip(x, -10, 10)))  # beyond, the tanh is ±1

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        x = xp.clip(x, -10, 10)
        t = near_normal(xp, x)
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return dy * 0.5 * ((1 + t) + x * (1 - t * t) * inner)


def near_normal(xp: Any, x: Array) -> Array:
    """Nearly 2 Φ(x) - 1."""
    return xp.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))


class Silu(NamedTuple):
    """x σ(x)."""

    def value(self, xp: Any, x: Array) -> Array:
        return x * xp.sigmoid(x)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        s = xp.sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))


class Mish(NamedTuple):
    """x tanh(log(1 + eˣ)), which is x n / (n + 2) for n = eˣ (eˣ + 2)."""

    def value(self, xp: Any, x: Array) -> Array:
        w = xp.exp(xp.minimum(x, 20))  # from where on n / (n + 2) is 1 to 1e-17
        n = w * (w + 2)
        return x * (n / (n + 2))

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        x = xp.minimum(x, 20)  # and the slope, too
        w = xp.exp(x)
        n = w * (w + 2)
        return dy * (n / (n + 2) + x * (4 * w * (w + 1) / ((n + 2) * (n + 2))))


class Softplus(NamedTuple):
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x is above the threshold."""

    beta: float
    threshold: float

    def value(self, xp: Any, x: Array) -> Array:
        return xp.where(self.beta * x > self.threshold, x, log1p_exp(xp, self.beta * x) / self.beta)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * xp.where(self.beta * x > self.threshold, 1.0, xp.sigmoid(self.beta * x))


class LogSigmoid(NamedTuple):
    """log σ(x)."""

    def value(self, xp: Any, x: Array) -> Array:
        return -log1p_exp(xp, -x)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * xp.sigmoid(-x)


def log1p_exp(xp: Any, x: Array) -> Array:
    """log(1 + eˣ) without overflow."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


class Softsign(NamedTuple):
    """x / (1 + |x|)."""

    def value(self, xp: Any, x: Array) -> Array:
        return x / (1 + xp.abs(x))

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        width = 1 + xp.abs(x)
        return dy / width / width  # in two steps, so that nothing overflows


class LeakyRelu(NamedTuple):
    """x where it is positive, slope · x elsewhere."""

    slope: float

    def value(self, xp: Any, x: Array) -> Array:
        return xp.where(x > 0, x, self.slope * x)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return xp.where(x > 0, dy, self.slope * dy)


class Hardtanh(NamedTuple):
    """x held within [low, high]; at the bounds the derivative is 0."""

    low: float
    high: float

    def value(self, xp: Any, x: Array) -> Array:
        return xp.clip(x, self.low, self.high)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * xp.logical_and(x > self.low, x < self.high)


class Hardsigmoid(NamedTuple):
    """(x + 3) / 6 held within [0, 1]; at the bounds the derivative is 0."""

    def value(self, xp: Any, x: Array) -> Array:
        return xp.clip(x + 3, 0, 6) / 6

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy / 6 * xp.logical_and(x > -3, x < 3)


class Hardswish(NamedTuple):
    """x times its hard sigmoid."""

    def value(self, xp: Any, x: Array) -> Array:
        return x * (xp.clip(x + 3, 0, 6) / 6)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        inside = xp.where(x > -3, x / 3 + 0.5, 0.0)
        return dy * xp.where(x < 3, inside, 1.0)


class Hardshrink(NamedTuple):
    """0 within [-width, width], x outside."""

    width: float

    def value(self, xp: Any, x: Array) -> Array:
        return x * (xp.abs(x) > self.width)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * (xp.abs(x) > self.width)


class Softshrink(NamedTuple):
    """0 within [-width, width], x closer to 0 by the width outside."""

    width: float

    def value(self, xp: Any, x: Array) -> Array:
        return x - xp.clip(x, -self.width, self.width)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * (xp.abs(x) > self.width)


class Threshold(NamedTuple):
    """x where it is above the threshold, a number elsewhere."""

    threshold: float
    number: float

    def value(self, xp: Any, x: Array) -> Array:
        return xp.where(x > self.threshold, x, self.number)

    def chain(self, xp: Any, dy: Array, x: Array) -> Array:
        return dy * (x > self.threshold)
