"""The affine map and the gradients of its parameters, one call of cuBLASLt each.

The bias's gradient is summed in the accumulators of the product beside which it is taken: float32
for all but float64.
"""

from __future__ import annotations

from tinygrad_bn.backend import Array, Kernel

from ..cublaslt.products import data_type
from ..cublaslt.words import product, product_and_sum


def affine(x: Array, weight: Array, bias: Array) -> Array:
    return product(x, weight.T, bias=bias)


def affine_grad_parameters(dy: Array, x: Array) -> tuple[Array, Array]:
    dweight, dbias = product_and_sum(x.T, dy)
    return dweight.T, dbias  # as the weights of layers lie in memory


def accepts(x: Array, *others: Array) -> bool:
    """Floats of one dtype."""
    return data_type(x.dtype) is not None and all(y.dtype == x.dtype for y in others)


KERNELS = {
    "affine": Kernel(affine, accepts),
    "affine_grad_parameters": Kernel(affine_grad_parameters, accepts),
}
