"""Products of matrices on the CPU: by BLAS, or by kernels that are quicker for some."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .half import in_float32

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and the operands that it is called with."""
LEAST_WORK = 2**20
"""With fewer products of numbers BLAS is as quick as anything."""


def matmul(a: Array, b: Array) -> Array:
    """The matrix product; of 16-bit floats in float32."""
    if a.dtype.itemsize < 4:
        return half_matmul(a, b)
    if of_one_term(a, b):
        return np.multiply(a, b)
    kernel = tiled(a, b)
    return np.matmul(a, b) if kernel is None else kernel.run(a, b)


half_matmul = in_float32(np.matmul)


def matmul_into(outs: tuple[Array, ...], a: Array, b: Array) -> Call:
    """The call that leaves the same in given memory, by rows or by columns."""
    out = outs[0]
    if a.dtype.itemsize < 4:
        return half_matmul_into, (a, b, out)
    if of_one_term(a, b):
        return np.multiply, (a, b, out)
    kernel = tiled(a, b)
    if kernel is None:
        return np.matmul, (a, b, out)
    if not out.flags.carray:  # the bits must not depend on where they go
        return tiled_into, (a, b, out)
    call: Call = kernel.into(outs, a, b)
    return call


def tiled_into(a: Array, b: Array, out: Array) -> None:
    np.copyto(out, tiled(a, b).run(a, b))


def half_matmul_into(a: Array, b: Array, out: Array) -> None:
    np.copyto(out, half_matmul(a, b))


def multiply(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product, in given memory if there is any."""
    if out is None:
        return matmul(a, b)
    function, operands = matmul_into((out,), a, b)
    function(*operands)
    return out


def weight_grad(dy: Array, x: Array) -> Array:
    """dyᵀ x, by columns."""
    return matmul(x.T, dy).T


def weight_grad_into(outs: tuple[Array, ...], dy: Array, x: Array) -> Call:
    """The same in given memory."""
    return matmul_into((outs[0].T,), x.T, dy)


def of_one_term(a: Array, b: Array) -> bool:
    """Whether sums have one term, for which NumPy takes no BLAS."""
    return bool(a.shape[-1] == 1 and a.ndim > 1 and b.ndim > 1)


def tiled(a: Array, b: Array) -> Any:
    """The kernel for low matrices and short sums, if it takes this product."""
    if a.size * b.shape[-1] < LEAST_WORK:
        return None
    kernel = for_tiles()
    return kernel if kernel is not None and kernel.accepts(a, b) else None


@cache
def for_tiles() -> Kernel | None:
    """That kernel, where there is one."""
    if find_spec("numba") is None:
        return None
    kernels = import_module(f"{__package__}.numba_kernels.tiled_products")
    return kernels.TILED_PRODUCT  # type: ignore[no-any-return]


def accepts_all(*operands: Array) -> bool:
    return True


WORDS = {
    "matmul": Kernel(matmul, accepts_all, matmul_into),
    "weight_grad_placed": Kernel(weight_grad, accepts_all, weight_grad_into),
}
"""Products as kernels, which may leave results in given memory."""
