"""The affine map of a layer and its gradients, as kernel points: where a product of matrices can
end with a bias, or be taken beside the bias's gradient, one kernel does both.
"""

from __future__ import annotations

from typing import Any

from tinygrad_bn.autograd.destinations import computed_in
from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.dense import add_bias, column_sums


@kernel_point
def affine(backend: Backend, x: Array, weight: Array, bias: Array) -> Array:
    """x weightᵀ + bias, for x (N, I), weight (O, I) and bias (O,) of one dtype."""
    xp = backend.xp
    y = xp.matmul(x, xp.transpose(weight, (1, 0)))
    return computed_in(y, add_bias, backend, y, bias)


@kernel_point
def affine_grad_parameters(backend: Backend, dy: Array, x: Array) -> tuple[Array, Array]:
    """dyᵀ x and the sum of the rows of dy: the gradients of weight and bias, for dy (N, O)."""
    return weight_grad(backend.xp, dy, x), column_sums(backend, dy)


@kernel_point
def weight_grad_placed(backend: Backend, dy: Array, x: Array) -> Array:
    """`weight_grad`, for a kernel that leaves it in given memory."""
    return weight_grad(backend.xp, dy, x)


def weight_grad(xp: Any, dy: Array, x: Array) -> Array:
    """dyᵀ x, as the transpose of what lies in memory as the weights of layers do."""
    return xp.transpose(xp.matmul(xp.transpose(x, (1, 0)), dy), (1, 0))
