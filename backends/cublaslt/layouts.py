"""How BLAS sees the operands of a product where they lie: which stacks of matrices they are.

Nothing here touches an array; shapes and strides are all it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from numpy import broadcast_shapes

from tinygrad_bn.errors import ShapeError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operand:
    """A stack of matrices in memory; distances count elements."""

    transposed: bool
    """Whether a column, not a row, lies in one piece."""
    ld: int
    """From one row to the next, or from one column to the next of a transposed one."""
    step: int
    """From one matrix to the next; 0 where it is the same."""


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """A stack of ``batch`` products (m, k) @ (k, n); one object for each, by which it is known."""

    shape: Shape
    """Of the result, which is to be in C order."""
    batch: int
    m: int
    n: int
    k: int
    a: Operand | Shape
    """How the left operand is read, or of which shape it must be copied first, in C order."""
    b: Operand | Shape


@lru_cache(maxsize=4096)
def product_of(
    a_shape: Shape, a_strides: Shape, b_shape: Shape, b_strides: Shape, itemsize: int
) -> Product:
    """What a @ b is for BLAS; strides are in bytes.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    message = f"expected (..., n, k) @ (..., k, m), got {a_shape} @ {b_shape}"
    if a_shape[-1] != b_shape[-2]:
        raise ShapeError(message)
    try:
        batch = broadcast_shapes(a_shape[:-2], b_shape[:-2])
    except ValueError as error:
        raise ShapeError(message) from error
    (m, k), n = a_shape[-2:], b_shape[-1]
    a = operand(a_shape, [s // itemsize for s in a_strides], batch)
    b = operand(b_shape, [s // itemsize for s in b_strides], batch)
    shape, count = (*batch, m, n), prod(batch)
    if count > 1 and isinstance(a, Operand) and isinstance(b, Operand) and b.step == 0:
        as_rows = not a.transposed and (a.step == m * a.ld or (m == 1 and a.step >= k))
        if as_rows:  # of one matrix, and one right operand for all: one product
            a, m, count = Operand(False, a.step // m, 0), count * m, 1
    return Product(shape, count, m, n, k, a, b)


@lru_cache(maxsize=64)
def part_of(product: Product, count: int) -> Product:
    """``count`` products of a stack of them."""
    p = product
    return Product(p.shape, count, p.m, p.n, p.k, p.a, p.b)


def operand(shape: Shape, strides: Sequence[int], batch: Shape) -> Operand | Shape:
    """How an operand is read where it lies, or the shape of the copy to be read instead."""
    matrix = as_matrix(*shape[-2:], *strides[-2:])
    step = as_one(batch, broadcast(shape[:-2], strides[:-2], batch))
    if matrix is not None and step is not None:
        return Operand(*matrix, step)
    copied = [prod(shape[i + 1 :]) for i in range(len(shape) - 2)]
    if as_one(batch, broadcast(shape[:-2], copied, batch)) is not None:
        return shape
    return (*batch, *shape[-2:])  # it repeats within axes that do not


def as_matrix(rows: int, columns: int, down: int, across: int) -> tuple[bool, int] | None:
    """Whether a matrix is transposed, and its leading dimension; None where it has none."""
    if (across == 1 or columns == 1) and (rows == 1 or down >= columns):
        return False, columns if rows == 1 else down
    if (down == 1 or rows == 1) and across >= rows:
        return True, across
    return None


def broadcast(shape: Shape, strides: Sequence[int], wanted: Shape) -> list[int]:
    """The strides with which axes of ``shape`` are walked as axes of ``wanted``."""
    inside = [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)]
    return [0] * (len(wanted) - len(shape)) + inside


def as_one(sizes: Shape, strides: Sequence[int]) -> int | None:
    """The one stride that walks all axes in C order; None where there is none."""
    axes = [(n, s) for n, s in zip(sizes, strides, strict=True) if n != 1]
    if not axes:
        return 0
    count, step = 1, axes[-1][1]
    for n, stride in reversed(axes):
        if stride != count * step:
            return None
        count *= n
    return step if step >= 0 else None
