"""Normalization by a size instead of a variance: a vector by its norm, and a channel by the
responses of its neighbours.

Both are computed in the backend's accumulator dtype and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, current
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.moments import wide
from tinygrad_bn.ops.norm_arguments import require_eps, require_floats
from tinygrad_bn.ops.shape import axes
from tinygrad_bn.ops.statistics import power_of

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "local_response_norm",
    "normalize",
]


class Normalize(Function):
    """x over the p-norm of what lies along ``dims``, or over ε where that is more.

    The norm is taken of x over a ``scale``, where there is one, so that no power overflows. It does
    not depend on the scale, which hence has no gradient.
    """

    def forward(
        self, x: Array, scale: Array | None, *, p: float, dims: tuple[int, ...], eps: float
    ) -> Array:
        xp = self.xp
        self.x, self.p, self.dims = x, p, dims
        x = wide(self.backend, x)
        if scale is None:
            norm = p_norm(xp, x, p, dims)
        else:
            norm = p_norm(xp, x / scale, p, dims) * scale
        small = norm < eps
        self.divisor = xp.where(small, eps, norm)
        self.norm = xp.where(small, math.inf, norm)
        return xp.astype(x / self.divisor, self.x.dtype)

    def backward(self, dy: Array, /) -> tuple[Array, None]:
        xp, dy = self.xp, wide(self.backend, dy)
        unit = wide(self.backend, self.x) / self.norm  # 0 where it is ε that divides
        along = xp.sum(dy * unit, axis=self.dims, keepdims=True)
        through_norm = along * slope_of_norm(xp, unit, self.p, self.dims)
        return xp.astype((dy - through_norm) / self.divisor, self.x.dtype), None


def p_norm(xp: Any, x: Array, p: float, dims: tuple[int, ...]) -> Array:
    """(Σ |x|ᵖ)^(1/p), and its limits for p = ±∞; for p = 0, how many elements are not 0. At zeros
    it has the derivative 0.
    """
    along: dict[str, Any] = {"axis": dims, "keepdims": True}
    if math.isinf(p):
        return (xp.max if p > 0 else xp.min)(xp.abs(x), **along)
    if p == 0:
        return xp.sum(xp.abs(xp.sign(x)), **along)
    if p == 1:
        return xp.sum(xp.abs(x), **along)
    if p == 2:
        return power_of(xp, xp.sum(x * x, **along), 0.5)
    powers = power_of(xp, xp.abs(x), p)
    if p < 0:
        powers = xp.where(x == 0, math.inf, powers)
    return power_of(xp, xp.sum(powers, **along), 1 / p)


def slope_of_norm(xp: Any, y: Array, p: float, dims: tuple[int, ...]) -> Array:
    """The gradient of the p-norm at y, whose norm is 1 or 0; the extremes share that of p = ±∞."""
    if p == 2:
        return y
    if p == 0:
        return xp.zeros_like(y)
    if math.isinf(p):
        size = xp.abs(y)
        extreme = (xp.max if p > 0 else xp.min)(size, axis=dims, keepdims=True)
        share = xp.astype(xp.logical_or(size == extreme, xp.isnan(size)), y.dtype)
        return xp.sign(y) * (share / xp.sum(share, axis=dims, keepdims=True))
    return xp.sign(y) * power_of(xp, xp.abs(y), p - 1)


class LocalResponse(Function):
    """x (k + a Σ x²)^-β, whose sum is over the channels from ``before`` until ``after`` each."""

    def forward(
        self, x: Array, *, before: int, after: int, a: float, beta: float, k: float
    ) -> Array:
        self.x, self.before, self.after, self.a, self.beta = x, before, after, a, beta
        x = wide(self.backend, x)
        self.base = k + a * channel_windows(self.xp, x * x, before, after)
        return self.xp.astype(x * self.base**-beta, self.x.dtype)

    def backward(self, dy: Array, /) -> Array:
        xp, x, dy = self.xp, wide(self.backend, self.x), wide(self.backend, dy)
        direct = dy * self.base**-self.beta
        # a channel is in the windows of those that it has in its own, mirrored
        through_windows = channel_windows(xp, direct * x / self.base, self.after, self.before)
        dx = direct - (2 * self.a * self.beta) * x * through_windows
        return xp.astype(dx, self.x.dtype)


def channel_windows(xp: Any, x: Array, before: int, after: int) -> Array:
    """The sums over the channels c - before, …, c + after of x (N, C, *S), for each c; those that
    are outside count as 0.
    """
    widths = ((0, 0), (before, after), *(((0, 0),) * (len(x.shape) - 2)))
    return neighbours(xp, xp.pad(x, widths, mode="constant"), before + after + 1)


def neighbours(xp: Any, x: Array, size: int) -> Array:
    """The sums of ``size`` successive channels: of two halves, and one more where it is odd. That
    takes log(size) steps, and adds nothing that is outside of a window only to take it away again.
    """
    if size == 1:
        return x
    half = size // 2
    sums = neighbours(xp, x, half)
    sums = sums[:, :-half] + sums[:, half:]
    return sums[:, :-1] + x[:, size - 1 :] if size % 2 else sums


@under_autocast
def normalize(
    input: Tensor, p: float = 2.0, dim: int | Sequence[int] | None = 1, eps: float = 1e-12
) -> Tensor:
    """x / max(‖x‖ₚ, ε), with the p-norm over ``dim``: vectors of length 1.

    Right at any scale: powers are taken of numbers whose greatest is 1, or of float32's in float64.
    A vector shorter than ε is divided by it, so that zero stays zero, with the gradient dy / ε.

    Parameters
    ----------
    p : any number, and ±infinity for the greatest or smallest |x|; at 0 the norm is how many
        elements are not 0.
    dim : an axis, or several that make one vector; None for all.

    Shapes
    ------
    input of any shape; the result the same.

    Raises
    ------
    ShapeError
        If there is no such axis.
    ArgumentError
        If p is not a number, or ε is below 0.
    DtypeError
        If the input is not of floats.
    """
    require_floats(input)
    require_eps(eps)
    if not isinstance(p, (int, float)) or math.isnan(p):
        raise ArgumentError(f"expected a number as the order p of a norm, got {p!r}")
    dims = axes(dim, input.ndim)
    if not input.numel():
        return input.clone()  # extremes of nothing do not exist
    scale = scale_of(input, p, dims) if may_overflow(input, p) else None
    return Normalize.apply(input, scale, p=p, dims=dims, eps=eps)  # type: ignore[no-any-return]


def may_overflow(x: Tensor, p: float) -> bool:
    """Whether powers of p of the greatest or smallest numbers could leave the accumulator's range;
    squares of float32 do not leave float64's.
    """
    squares = p == 2 and x.element_size() < x.backend.accumulator(x.dtype).itemsize
    return not squares and p not in (0, 1) and not math.isinf(p)


def scale_of(x: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """The |x| that decides its p-norm, or 1 where that is 0 or not finite; it has no gradient."""
    backend, xp = x.backend, x.backend.xp
    with current(backend):
        size = xp.abs(wide(backend, x.array))
        scale = (xp.max if p > 0 else xp.min)(size, axis=dims, keepdims=True)
        scale = xp.where(xp.logical_and(scale > 0, xp.isfinite(scale)), scale, 1.0)
    return x.wrap_like(scale)  # type: ignore[no-any-return]


@under_autocast
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + α/n Σ x²)^β, with the sum over n = ``size`` neighbouring channels at each position.

    The window has n // 2 channels before and (n - 1) // 2 after the one that it is of; channels
    that do not exist count as 0.

    Shapes
    ------
    input (N, C, *S) with at least one axis of positions; the result as input.

    Raises
    ------
    ShapeError
        For a rank below 3.
    ArgumentError
        If the size is below 1.
    DtypeError
        If the input is not of floats.

    References
    ----------
    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.3. Its α is not divided by n, and its windows reach n / 2 to both sides.
    """
    require_floats(input)
    if input.ndim < 3:
        raise ShapeError(f"expected (N, C, *S) of rank 3 or more, got {input.shape}")
    if size < 1:
        raise ArgumentError(f"expected a size ≥ 1 of the window, got {size}")
    furthest = max(input.shape[1] - 1, 0)
    before, after = min(size // 2, furthest), min((size - 1) // 2, furthest)
    return LocalResponse.apply(  # type: ignore[no-any-return]
        input, before=before, after=after, a=alpha / size, beta=beta, k=k
    )
