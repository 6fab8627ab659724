"""What loops over norms do with single numbers.

Statistics and sums are of float64, which beyond the second-level cache costs no time. Elements are
computed in the dtype of x: x̂ = (x - hi) rstd - lo rstd, where hi is the mean rounded to that dtype
and lo what rounding lost. The first difference is exact where it counts, and the second is part of
a constant.

γ, β, a mask and the ReLU may be None: what they need is then not compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compilation import inlined


@inlined
def heeded(kept: Any, grad: Any, value: Any) -> Any:
    """The value where it counts, or where something is to be multiplied by it; else 0."""
    return value if kept or grad != 0 else 0.0


@inlined
def through(relu: Any, value: Any, zero: Any) -> Any:
    """max(value, 0) where there is a ReLU; NaN stays."""
    if relu is None:
        return value
    return zero if value <= zero else value


@inlined
def back_through(relu: Any, grad: Any, value: Any, zero: Any) -> Any:
    """The gradient of ``value`` from that of what came `through`: a product with 0 or 1."""
    if relu is None:
        return grad
    return grad if value > zero else grad * zero


@inlined
def line(mean: Any, rstd: Any, weight: Any, bias: Any, rounded: Any) -> tuple[Any, Any, Any]:
    """hi, a and b of a channel: γ (x - mean) rstd + β = (x - hi) a + b; γ and β are numbers."""
    hi, scale = rounded(mean), rstd * weight
    return hi, rounded(scale), rounded(bias - (mean - hi) * scale)


@inlined
def lines(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any) -> tuple[Any, Any, Any]:
    """hi, a and b of all channels with y = (x - hi) a + b."""
    constants = np.empty((3, len(mean)), x.dtype)
    hi, a, b = constants[0], constants[1], constants[2]
    for c in range(len(mean)):
        gamma = 1.0 if weight is None else weight[c]
        beta = 0.0 if bias is None else bias[c]
        hi[c], a[c], b[c] = line(mean[c], rstd[c], gamma, beta, x.dtype.type)
    return hi, a, b


@inlined
def slopes(
    mean: Any, hi: Any, rstd: Any, mean_g: Any, mean_g_x_hat: Any, rounded: Any
) -> tuple[Any, Any, Any, Any]:
    """What `differentiated` takes besides hi: mean(g) is split as the mean is."""
    level, slope = rounded(mean_g), rounded(mean_g_x_hat)
    # what the rounded means lack
    rest = rounded((mean - hi) * rstd * mean_g_x_hat - (mean_g - level))
    return rounded(rstd), level, slope, rest


@inlined
def all_slopes(
    x: Any, mean: Any, hi: Any, rstd: Any, mean_g: Any, mean_g_x_hat: Any
) -> tuple[Any, Any, Any, Any]:
    """`slopes` of all channels."""
    constants = np.empty((4, len(mean)), x.dtype)
    r, level, slope, rest = constants[0], constants[1], constants[2], constants[3]
    for c in range(len(mean)):
        known = slopes(mean[c], hi[c], rstd[c], mean_g[c], mean_g_x_hat[c], x.dtype.type)
        r[c], level[c], slope[c], rest[c] = known
    return r, level, slope, rest


@inlined
def differentiated(g: Any, d: Any, r: Any, level: Any, slope: Any, rest: Any) -> Any:
    """g - mean(g) - x̂ mean(g·x̂), with d = x - hi."""
    return (g - level) + (rest - d * r * slope)


@inlined
def from_sums(mean: Any, var: Any, around: Any, count: Any) -> bool:
    """Sums of differences from ``around``, and of their squares, become mean and biased variance;
    whether a mean is so far from there that its square, subtracted, takes two digits along.
    """
    far, share = False, 1.0 / max(count, 1)
    for c in range(len(mean)):
        shift = mean[c] * share
        mean[c] = around[c] + shift
        var[c] = max(var[c] * share - shift * shift, 0.0)
        far = far | (shift * shift > 100 * var[c])
    return far
