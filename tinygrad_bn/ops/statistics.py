"""Variances, norms, and sums of exponentials: what needs care with rounding, overflow or zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import Binary, broadcastable
from tinygrad_bn.ops.order import amax, amin
from tinygrad_bn.ops.promotion import cast, floating, is_floating, promote, require_tensor
from tinygrad_bn.ops.reduce import count_of, kept, mean, reduced, sum
from tinygrad_bn.ops.shape import axes
from tinygrad_bn.ops.unary import abs, sign

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "logaddexp",
    "logsumexp",
    "norm",
    "std",
    "std_mean",
    "var",
    "var_mean",
]


class Variance(Function):
    """The sum of squared deviations over the count less a correction; with ``root``, its root.

    Two passes, and a third that takes away what rounding left in the mean: nothing large cancels.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque (1983), Algorithms for computing the sample variance: the
    corrected two-pass algorithm.
    """

    def forward(
        self, x: Array, *, dims: tuple[int, ...], correction: float, keepdim: bool, root: bool
    ) -> Array:
        xp = self.xp
        self.x, self.dims, self.root = x, dims, root
        self.freedom = max(count_of(x.shape, dims) - correction, 0)
        d = self.deviations()
        y = xp.sum(d * d, axis=dims, keepdims=True)
        y = y / self.freedom if self.freedom else xp.where(y > 0, math.inf, math.nan)
        self.y = power_of(xp, y, 0.5) if root else y
        return xp.astype(xp.reshape(self.y, reduced(x.shape, dims, keepdim)), x.dtype)

    def deviations(self) -> Array:
        """x less its mean, in the dtype that the backend accumulates in."""
        xp = self.xp
        d = xp.astype(self.x, self.backend.accumulator(self.x.dtype))
        count = max(count_of(d.shape, self.dims), 1)
        for _ in range(2):
            d = d - xp.sum(d, axis=self.dims, keepdims=True) / count
        return d

    def backward(self, dy: Array, /) -> Array:
        xp, d = self.xp, self.deviations()
        dy = xp.astype(xp.reshape(dy, kept(self.x.shape, self.dims)), d.dtype)
        if self.root:  # a constant has the gradient 0, as in PyTorch
            flat = self.y == 0
            dy = xp.where(flat, 0.0, dy / xp.where(flat, 1.0, 2 * self.y))
        if not self.freedom:
            return dy * xp.where(d == 0, math.nan, math.inf)
        return dy * (2 / self.freedom) * d


def power_of(xp: Any, x: Array, exponent: float) -> Array:
    """x ** exponent for x ≥ 0, with 0 for the derivative at 0 instead of infinity."""
    zero = x == 0
    y = xp.where(zero, 1.0, x)
    return xp.where(zero, 0.0, xp.sqrt(y) if exponent == 0.5 else y**exponent)


class Norm(Function):
    """(Σ |x|ᵖ)^(1/p) for a finite p other than 0; the gradient is 0 where the norm is."""

    def forward(self, x: Array, *, p: float, dims: tuple[int, ...], keepdim: bool) -> Array:
        xp = self.xp
        self.x, self.p, self.dims = x, p, dims
        wide = xp.astype(x, self.backend.accumulator(x.dtype))
        if p < 0:
            powers = xp.abs(wide) ** p  # infinite at 0, which the norm then is
        else:
            powers = wide * wide if p == 2 else power_of(xp, xp.abs(wide), p)
        self.y = power_of(xp, xp.sum(powers, axis=dims, keepdims=True), 1 / p)
        return xp.astype(xp.reshape(self.y, reduced(x.shape, dims, keepdim)), x.dtype)

    def backward(self, dy: Array, /) -> Array:
        xp, p = self.xp, self.p
        x = xp.astype(self.x, self.y.dtype)
        dy = xp.astype(xp.reshape(dy, kept(x.shape, self.dims)), x.dtype)
        share = x / xp.where(self.y == 0, 1.0, self.y)
        if p == 2:
            return dy * share
        dx = dy * xp.sign(x) * power_of(xp, xp.abs(share), p - 1)
        return xp.where(self.y == 0, 0.0, dx) if p < 0 else dx


class LogSumExp(Function):
    """log Σ exp(x), shifted by the maximum so that nothing overflows."""

    def forward(self, x: Array, *, dims: tuple[int, ...], keepdim: bool) -> Array:
        xp, shape = self.xp, reduced(x.shape, dims, keepdim)
        self.dims, self.e = dims, x
        if not count_of(x.shape, dims):
            return xp.full(shape, -math.inf, dtype=x.dtype)
        wide = xp.astype(x, self.backend.accumulator(x.dtype))
        peak = xp.max(wide, axis=dims, keepdims=True)
        peak = xp.where(xp.isinf(peak), 0.0, peak)
        self.e = xp.exp(wide - peak)
        total = xp.sum(self.e, axis=dims, keepdims=True)
        nothing = total == 0
        self.total = xp.where(nothing, 1.0, total)
        y = xp.where(nothing, -math.inf, xp.log(self.total) + peak)
        return xp.astype(xp.reshape(y, shape), x.dtype)

    def backward(self, dy: Array, /) -> Array:
        xp, e = self.xp, self.e
        if not count_of(e.shape, self.dims):
            return xp.zeros_like(e)
        return xp.reshape(dy, kept(e.shape, self.dims)) * (e / self.total)


class LogAddExp(Binary):
    """log(exp(a) + exp(b))."""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.logaddexp(a, b)

    def backward(self, dy: Array, /) -> tuple[Array, Array]:
        xp = self.xp
        same = xp.logical_and(self.a == self.b, xp.isinf(self.a))  # whose difference is NaN
        difference = xp.where(same, 0.0, self.a) - xp.where(same, 0.0, self.b)
        return dy * xp.sigmoid(difference), dy * xp.sigmoid(-difference)


def spread(
    input: Tensor,
    dim: int | Sequence[int] | bool | None,
    unbiased: bool | None,
    keepdim: bool,
    correction: float | None,
    root: bool,
) -> Tensor:
    """The variance, or its root, from the arguments in either of PyTorch's two conventions."""
    require_tensor(input)
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise ArgumentError(f"expected unbiased or correction, got both: {unbiased}, {correction}")
    if correction is None:
        correction = 1 if unbiased in (None, True) else 0
    if not is_floating(input.array.dtype):
        raise DtypeError(f"expected floats to take the variance of, got {input.array.dtype}")
    dims = axes(dim, input.array.ndim)
    return Variance.apply(input, dims=dims, correction=correction, keepdim=keepdim, root=root)  # type: ignore[no-any-return]


def var(
    input: Tensor,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over ``dim``, over all axes by default.

    Parameters
    ----------
    correction : what the count is lessened by: 1 by default, Bessel's; 0 for the biased variance.
        Where nothing of the count is left, the result is NaN, or infinite if the elements differ.
    unbiased : the same as correction 1 (True) or 0 (False); it may come in the place of ``dim``.
    """
    return spread(input, dim, unbiased, keepdim, correction, root=False)


def std(
    input: Tensor,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The standard deviation; parameters as of `var`. The gradient of a constant is 0."""
    return spread(input, dim, unbiased, keepdim, correction, root=True)


def var_mean(
    input: Tensor,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance and the mean over ``dim``; parameters as of `var`."""
    over = None if isinstance(dim, bool) else dim
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, over, keepdim)


def std_mean(
    input: Tensor,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean over ``dim``; parameters as of `var`."""
    over = None if isinstance(dim, bool) else dim
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, over, keepdim)


@under_autocast
def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) over ``dim``, over all axes by default, as if they were one vector.

    Parameters
    ----------
    ord : p. At ±infinity the greatest or smallest |x|; at 0 how many elements are not 0.

    Raises
    ------
    DtypeError
        For integers and booleans; give a ``dtype``.
    """
    require_tensor(x)
    if dtype is not None:
        x = cast(x, as_dtype(dtype))
    if not is_floating(x.array.dtype):
        raise DtypeError(f"expected floats to take the norm of, got {x.array.dtype}; give dtype=")
    if not isinstance(ord, (int, float)) or math.isnan(ord):
        raise ArgumentError(f"expected a number as the order of a vector's norm, got {ord!r}")
    if ord == math.inf:
        return amax(abs(x), dim, keepdim)
    if ord == -math.inf:
        return amin(abs(x), dim, keepdim)
    if ord == 0:
        return sum(abs(sign(x)), dim, keepdim)
    if ord == 1:
        return sum(abs(x), dim, keepdim)
    return Norm.apply(x, p=ord, dims=axes(dim, x.array.ndim), keepdim=keepdim)  # type: ignore[no-any-return]


@under_autocast
def norm(
    input: Tensor,
    p: float | str = "fro",
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Tensor:
    """The p-norm of the elements over ``dim``, over all axes by default; "fro" is p = 2.

    Raises
    ------
    ArgumentError
        For "nuc", which needs singular values.
    """
    if p != "fro" and not isinstance(p, (int, float)):
        raise ArgumentError(f"expected p as a number or 'fro', got {p!r}")
    return vector_norm(input, 2 if p == "fro" else p, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]


@under_autocast
def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """log Σ exp(input) over ``dim``, without overflow; -inf over nothing, or nothing but -inf."""
    x = floating(input)
    return LogSumExp.apply(x, dims=axes(dim, x.array.ndim), keepdim=keepdim)  # type: ignore[no-any-return]


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow."""
    require_tensor(input)
    require_tensor(other, "other")
    a, b = promote(input, other, floating=True)
    broadcastable(a, b)
    return LogAddExp.apply(a, b)  # type: ignore[no-any-return]
