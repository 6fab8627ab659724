"""Scores turned into probabilities along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.precision import narrow, wide
from tinygrad_bn.ops.promotion import cast, is_floating, require_tensor
from tinygrad_bn.ops.shape import one_axis

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["log_softmax", "softmax"]


def log_sum(xp: Any, x: Array, axis: int) -> tuple[Array, Array]:
    """x less its maximum along the axis, and the logarithm of the sum of exponentials of that."""
    centred = x - xp.max(x, axis=axis, keepdims=True)
    return centred, xp.log(xp.sum(xp.exp(centred), axis=axis, keepdims=True))


@kernel_point
def softmax_value(backend: Backend, x: Array, axis: int) -> Array:
    """eˣ / Σ eˣ along an axis; x is of float32 or wider."""
    xp = backend.xp
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


@kernel_point
def softmax_grad(backend: Backend, dy: Array, y: Array, axis: int) -> Array:
    """y (dy - Σ dy y) along an axis."""
    return y * (dy - backend.xp.sum(dy * y, axis=axis, keepdims=True))


@kernel_point
def log_softmax_value(backend: Backend, x: Array, axis: int) -> Array:
    """x - log Σ eˣ along an axis; x is of float32 or wider."""
    centred, total = log_sum(backend.xp, x, axis)
    return centred - total


@kernel_point
def log_softmax_grad(backend: Backend, dy: Array, y: Array, axis: int) -> Array:
    """dy - e^y Σ dy along an axis."""
    xp = backend.xp
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)


class Softmax(Function):
    """eˣ / Σ eˣ along an axis."""

    def forward(self, x: Array, *, dim: int) -> Array:
        self.dim = dim
        self.y = narrow(self.xp, softmax_value(self.backend, wide(self.xp, x), dim), x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return softmax_grad(self.backend, wide(self.xp, dy), wide(self.xp, self.y), self.dim)


class LogSoftmax(Function):
    """x - log Σ eˣ along an axis."""

    def forward(self, x: Array, *, dim: int) -> Array:
        self.dim = dim
        self.y = narrow(self.xp, log_softmax_value(self.backend, wide(self.xp, x), dim), x)
        return self.y

    def backward(self, dy: Array, /) -> Array:
        return log_softmax_grad(self.backend, wide(self.xp, dy), wide(self.xp, self.y), self.dim)


def along(
    operation: type[Function], input: Tensor, dim: int | None, dtype: Any, name: str
) -> Tensor:
    """Check the arguments, and apply along the axis ``dim``."""
    require_tensor(input)
    if dtype is not None:
        input = cast(input, as_dtype(dtype))
    if not is_floating(input.array.dtype):
        raise DtypeError(f"expected floats for {name}, got {input.array.dtype}; give dtype=")
    if dim is None:
        raise ShapeError(f"expected dim, the axis along which {name} sums to 1, got None")
    at = one_axis(dim, input.ndim)
    if not input.array.size:
        return input.clone()
    if not input.ndim:
        return operation.apply(input.reshape(1), dim=0).reshape(())  # type: ignore[no-any-return]
    return operation.apply(input, dim=at)  # type: ignore[no-any-return]


@under_autocast
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along ``dim``: positive, and of sum 1.

    Parameters
    ----------
    dim : the axis; PyTorch guesses one, with a warning, where it is None, and this refuses.
    dtype : what to compute, and return, in; the input's by default.

    Notes
    -----
    An element -inf has probability 0; where all are -inf, or one is +inf, all are NaN.
    """
    return along(Softmax, input, dim, dtype, "softmax")


@under_autocast
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """The logarithm of `softmax`, exact to rounding also where that rounds to 0."""
    return along(LogSoftmax, input, dim, dtype, "log_softmax")


@under_autocast
def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """softmax(-input)."""
    require_tensor(input)
    return softmax(-(input if dtype is None else cast(input, as_dtype(dtype))), dim)
