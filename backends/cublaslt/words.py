"""``matmul`` as the vocabulary means it, and products that end with more than a product.

Products of floats are cuBLASLt's; those of integers stay with CuPy, which has its own kernels.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array
from tinygrad_bn.errors import BackendError, DtypeError, ShapeError

from ..half import is_half
from .binding import Epilogue
from .layouts import Operand, Product, part_of, product_of
from .products import Task, data_type, products

LARGEST_BATCH = 2**16 - 1
"""cuBLASLt takes no more matrices at once, which its documentation does not say."""


def matmul(a: Array, b: Array) -> Array:
    """The matrix product; of 16-bit floats accumulated in float32, rounded once."""
    if a.ndim < 2 or b.ndim < 2:
        return of_vectors(a, b)
    if a.dtype != b.dtype:
        dtype = cupy.result_type(a, b)
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    return cupy.matmul(a, b) if data_type(a.dtype) is None else product(a, b)


def of_vectors(a: Array, b: Array) -> Array:
    """A product in which a vector counts as a row on the left, and as a column on the right."""
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"expected ranks of at least 1, got {a.shape} @ {b.shape}")
    y = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
    gone = ((-2,) if a.ndim == 1 else ()) + ((-1,) if b.ndim == 1 else ())
    return cupy.squeeze(y, axis=gone)


def product(
    a: Array,
    b: Array,
    *,
    bias: Array | None = None,
    relu: bool = False,
    out: Array | None = None,
    alpha: float = 1,
    beta: float = 0,
) -> Array:
    """α a @ b + β out + bias, and of that the ReLU if ``relu``: one kernel, which rounds once.

    Parameters
    ----------
    a, b : floats of one dtype; leading axes broadcast. They are read where they lie if their rows
        or their columns are in one piece and one stride walks all matrices; else they are copied.
    bias : (n,), for a result (..., n).
    out : where the result goes, in C order; what it holds counts where β is not 0.

    Notes
    -----
    Where cuBLASLt has no algorithm that ends so, what comes after the product is a kernel of its
    own, and 16-bit floats are rounded in between. The ReLU of a NaN may be 0 here, so operations
    that promise to pass NaN on take another.

    Raises
    ------
    ShapeError, DtypeError
        If the arrays do not fit.
    BackendError
        As of `Products.run`.
    """
    p, a, b = ready(a, b)
    y = cupy.empty(p.shape, a.dtype) if out is None else out
    require(y, p.shape, a.dtype, "out")
    if bias is not None:
        require(bias, (p.n,), a.dtype, "bias")
        bias = cupy.ascontiguousarray(bias)
    if y.size == 0:
        return y
    end = Epilogue((2 if relu else 0) + (0 if bias is None else 4) or 1)
    if p.k == 0:
        y[...] = y * beta if beta else 0
    elif run(p, a, b, y, end, bias, alpha, beta):
        return y
    else:
        plain(p, a, b, y, alpha, beta)
    if bias is not None:
        y += bias
    if relu:
        y[...] = cupy.maximum(y, 0)
    return y


def product_and_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a @ b of matrices, and the sum of b's rows: of a = xᵀ and b = dy, a layer's dWᵀ and db.

    The sum is taken beside the product, in its accumulators; where cuBLASLt has no algorithm for
    both, in a kernel of its own.
    """
    p, a, b = ready(a, b)
    y, total = cupy.empty(p.shape, a.dtype), cupy.empty(p.n, a.dtype)
    # b is the left operand, A, of the product that BLAS is asked for
    if y.size and p.k and run(p, a, b, y, Epilogue.BGRADA, total, 1, 0):
        return y, total
    if y.size and p.k:
        plain(p, a, b, y, 1, 0)
    else:
        y[...] = 0
    wide = np.float32 if is_half(a.dtype) else a.dtype
    return y, cupy.sum(b, axis=0, dtype=wide).astype(a.dtype, copy=False)


def ready(a: Array, b: Array) -> tuple[Product, Array, Array]:
    """What a @ b is for BLAS, and the operands, copied where it could not read them."""
    if a.dtype != b.dtype or data_type(a.dtype) is None:
        raise DtypeError(f"expected operands of one floating dtype, got {a.dtype} and {b.dtype}")
    p = product_of(a.shape, a.strides, b.shape, b.strides, a.itemsize)
    if isinstance(p.a, Operand) and isinstance(p.b, Operand):
        return p, a, b
    if not isinstance(p.a, Operand):
        a = cupy.ascontiguousarray(cupy.broadcast_to(a, p.a))
    if not isinstance(p.b, Operand):
        b = cupy.ascontiguousarray(cupy.broadcast_to(b, p.b))
    return product_of(a.shape, a.strides, b.shape, b.strides, a.itemsize), a, b


def require(x: Array, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Refuse an array that does not fit."""
    if x.shape != shape or (name == "out" and not x.flags.c_contiguous):
        raise ShapeError(f"expected {name} of the shape {shape}, in C order, got {x.shape}")
    if x.dtype != dtype:
        raise DtypeError(f"expected {name} of the operands' {dtype}, got {x.dtype}")


def run(
    p: Product,
    a: Array,
    b: Array,
    y: Array,
    end: Epilogue,
    vector: Array | None,
    alpha: float,
    beta: float,
) -> bool:
    """Compute a product into y, in as few calls as it takes; False if none ends so."""
    device = cupy.cuda.runtime.getDevice()
    at_a, at_b, at_y = address(a, device), address(b, device), address(y, device)
    at_vector = 0 if vector is None else address(vector, device)
    task = Task(p, a.dtype, end, at_a, at_b, at_y, at_vector, alpha, beta)
    here = products(device)
    if p.batch <= LARGEST_BATCH:
        return here.run(task)
    assert isinstance(p.a, Operand)
    assert isinstance(p.b, Operand)
    a_step, b_step, y_step = (s * a.itemsize for s in (p.a.step, p.b.step, p.m * p.n))
    for first in range(0, p.batch, LARGEST_BATCH):
        part = task._replace(
            product=part_of(p, min(LARGEST_BATCH, p.batch - first)),
            a=task.a + first * a_step,
            b=task.b + first * b_step,
            y=task.y + first * y_step,
        )
        if not here.run(part):
            return False
    return True


def plain(p: Product, a: Array, b: Array, y: Array, alpha: float, beta: float) -> None:
    """A product that ends as one, which there is for every one.

    Raises
    ------
    BackendError
        If it is not so.
    """
    if not run(p, a, b, y, Epilogue.DEFAULT, None, alpha, beta):
        raise BackendError(
            f"expected a product that cuBLASLt can compute, got {a.shape} @ {b.shape} of {a.dtype}"
        )


def address(x: Array, device: int) -> int:
    """Where an array lies, which must be on the current device."""
    data = x.data
    if data.device_id != device:
        raise BackendError(
            f"expected arrays on the current device, cuda:{device}, got one on "
            f"cuda:{data.device_id}"
        )
    found: int = data.ptr
    return found
