"""Products of matrices and vectors, and the affine map of a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.destinations import computed_in, places_for
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import DtypeError, ShapeError
from tinygrad_bn.ops.affine import (
    affine,
    affine_grad_parameters,
    weight_grad,
    weight_grad_placed,
)
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.dense import column_sums
from tinygrad_bn.ops.promotion import is_floating, pair, require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "addmm",
    "baddbmm",
    "bmm",
    "dot",
    "matmul",
    "mm",
    "mv",
    "outer",
]


def transposed(xp: Any, x: Array) -> Array:
    """The last two axes exchanged."""
    order = tuple(range(len(x.shape)))
    return xp.transpose(x, (*order[:-2], order[-1], order[-2]))


def rows(xp: Any, x: Array) -> Array:
    """The leading axes as one."""
    if len(x.shape) == 2:
        return x
    return xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


class MatMul(Function):
    """a @ b for ranks of at least 2; the leading axes broadcast."""

    broadcasts = True

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.matmul(a, b)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None]:
        xp, a, b, db = self.xp, self.a, self.b, None
        da = xp.matmul(dy, transposed(xp, b)) if self.needs[0] else None
        if self.needs[1] and len(b.shape) == 2:  # one product, where a stack would be summed after
            db = xp.matmul(transposed(xp, rows(xp, a)), rows(xp, dy))
        elif self.needs[1]:
            db = xp.matmul(transposed(xp, a), dy)
        return da, db


class Linear(Function):
    """x @ weight.T + bias in one node, for x of any leading axes."""

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        xp, self.shape, self.weight = self.xp, x.shape, weight
        self.x = x = x if len(self.shape) == 2 else rows(xp, x)
        if bias is None:
            y = xp.matmul(x, transposed(xp, weight))
        else:
            y = affine(self.backend, x, weight, bias)
        if len(self.shape) == 2:
            return y
        return xp.reshape(y, (*self.shape[:-1], weight.shape[0]))

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None, Array | None]:
        xp, backend, dx, dweight, dbias = self.xp, self.backend, None, None, None
        x, needs, shape = self.x, self.needs, self.shape
        dy = dy if len(shape) == 2 else rows(xp, dy)
        place, other_place = places_for(self, 1, 2)
        if place is not None:
            dweight = computed_in(place, weight_grad_placed, backend, dy, x)
        elif needs[1] and needs[2]:
            dweight, dbias = affine_grad_parameters(backend, dy, x)
        elif needs[1]:
            dweight = weight_grad(xp, dy, x)
        if needs[2] and dbias is None:
            if other_place is None:
                dbias = column_sums(backend, dy)
            else:
                dbias = computed_in(other_place, column_sums, backend, dy)
        if needs[0]:
            dx = xp.matmul(dy, self.weight)
            dx = dx if len(shape) == 2 else xp.reshape(dx, shape)
        return dx, dweight, dbias


@under_autocast
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, of stacks of them (leading axes broadcast), or with vectors.

    Shapes
    ------
    (..., n, k) @ (..., k, m) -> (..., n, m); a vector (k,) counts as a row on the left and as a
    column on the right.
    """
    require_tensor(input)
    require_tensor(other, "other")
    a, b = pair(input, other)
    p, q = a.array.shape, b.array.shape
    if len(p) == len(q) == 2 and p[1] == q[0]:
        return MatMul.apply(a, b)  # type: ignore[no-any-return]
    if not a.array.ndim or not b.array.ndim:
        raise ShapeError(f"expected ranks of at least 1, got {a.shape} @ {b.shape}")
    row, column = a.array.ndim == 1, b.array.ndim == 1
    if a.array.shape[-1] != b.array.shape[-1 if column else -2]:
        raise ShapeError(f"expected (..., n, k) @ (..., k, m), got {a.shape} @ {b.shape}")
    a = a.unsqueeze(0) if row else a
    b = b.unsqueeze(1) if column else b
    for m, n in zip(a.array.shape[-3::-1], b.array.shape[-3::-1], strict=False):
        if m != n and 1 not in (m, n):
            raise ShapeError(f"expected leading axes that broadcast, got {a.shape} @ {b.shape}")
    y: Tensor = MatMul.apply(a, b)
    if column:
        y = y.squeeze(-1)
    return y.squeeze(-1 if column else -2) if row else y


def rmatmul(input: Tensor, other: Tensor) -> Tensor:
    """other @ input."""
    return matmul(other, input)


def require_ranks(expected: str, *operands: tuple[Tensor, int]) -> None:
    """Refuse operands of other ranks than given with them."""
    for position, (x, rank) in enumerate(operands):
        require_tensor(x, f"operand {position}")
        if x.array.ndim != rank:
            raise ShapeError(
                f"expected {expected}, got {', '.join(str(x.shape) for x, _ in operands)}"
            )


@under_autocast
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, (n, k) @ (k, m)."""
    require_ranks("(n, k) @ (k, m)", (input, 2), (mat2, 2))
    return matmul(input, mat2)


@under_autocast
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two stacks of matrices, (b, n, k) @ (b, k, m); nothing broadcasts."""
    require_ranks("(b, n, k) @ (b, k, m)", (input, 3), (mat2, 3))
    if input.array.shape[0] != mat2.array.shape[0]:
        raise ShapeError(f"expected (b, n, k) @ (b, k, m), got {input.shape} @ {mat2.shape}")
    return matmul(input, mat2)


@under_autocast
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector, (n, k) @ (k,)."""
    require_ranks("(n, k) @ (k,)", (input, 2), (vec, 1))
    return matmul(input, vec)


@under_autocast
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The scalar product of two vectors."""
    require_ranks("(n,) @ (n,)", (input, 1), (tensor, 1))
    return matmul(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector and one of another: (n,), (m,) -> (n, m)."""
    require_ranks("(n,) and (m,)", (input, 1), (vec2, 1))
    return input.unsqueeze(1) * vec2


def plus(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    """beta * input + alpha * product; with beta = 0 not even a NaN of the input counts."""
    require_tensor(input)
    shape, wanted = input.array.shape, product.array.shape
    if len(shape) > len(wanted) or any(
        m not in (1, n) for m, n in zip(reversed(shape), reversed(wanted), strict=False)
    ):
        raise ShapeError(f"expected an input that broadcasts to {wanted}, got {shape}")
    for factor in (beta, alpha):
        if isinstance(factor, float) and not is_floating(product.array.dtype):
            raise DtypeError(f"expected whole beta and alpha for integers, got {factor}")
    scaled = product if alpha == 1 else product * alpha
    return scaled if beta == 0 else scaled + (input if beta == 1 else input * beta)


@under_autocast
def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2); the input broadcasts."""
    return plus(input, mm(mat1, mat2), beta, alpha)


@under_autocast
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2) for stacks of matrices; the input broadcasts."""
    return plus(input, bmm(batch1, batch2), beta, alpha)


@under_autocast
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The affine map of a layer: input @ weight.T + bias, all of one dtype.

    Shapes
    ------
    input (..., in), weight (out, in), bias (out,) -> (..., out)
    """
    if not (isinstance(input, Variable) and isinstance(weight, Variable)):  # tell which
        require_tensor(input)
        require_tensor(weight, "weight")
    x, w, b = input.array, weight.array, None
    if bias is not None:
        if not isinstance(bias, Variable):
            require_tensor(bias, "bias")
        b = bias.array
    if x.dtype != w.dtype or (b is not None and b.dtype != w.dtype):
        raise DtypeError(
            f"expected input and bias of the weight's {w.dtype}, got {x.dtype} and "
            f"{w.dtype if b is None else b.dtype}"
        )
    if w.ndim != 2 or (b is not None and b.shape != w.shape[:1]):
        raise ShapeError(
            f"expected weight (out, in) and bias (out,), got {w.shape} and "
            f"{None if b is None else b.shape}"
        )
    if not x.ndim or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"expected input (..., in_features = {w.shape[1]}), got {x.shape}")
    return Linear.apply(input, weight, bias)  # type: ignore[no-any-return]
