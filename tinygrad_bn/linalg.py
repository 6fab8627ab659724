"""Norms of vectors and matrices, under the names of ``torch.linalg``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.dtypes import as_dtype
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.order import amax, amin
from tinygrad_bn.ops.promotion import cast, require_tensor
from tinygrad_bn.ops.reduce import sum
from tinygrad_bn.ops.shape import axes, squeeze
from tinygrad_bn.ops.statistics import vector_norm
from tinygrad_bn.ops.unary import abs

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["norm", "vector_norm"]


@under_autocast
def norm(
    A: Tensor,
    ord: float | str | None = None,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The norm of a vector along one axis, of a matrix along two, or of all elements as one vector.

    Parameters
    ----------
    ord : None for the 2-norm of all elements. Of a vector the p of `vector_norm`. Of a matrix
        "fro", the 2-norm of its elements; 1, the greatest sum of |A| down a column; infinity,
        along a row; negative, the smallest.

    Raises
    ------
    ArgumentError
        For the norms of matrices that need singular values: 2, -2 and "nuc".
    ShapeError
        If neither one nor two axes are meant.
    """
    require_tensor(A, "A")
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    dims = axes(dim, A.array.ndim)
    if len(dims) == 1 and not isinstance(ord, str):
        return vector_norm(A, ord, dims, keepdim, dtype=dtype)
    if len(dims) != 2:
        raise ShapeError(f"expected one axis for a vector or two for a matrix, got {dims}")
    if ord == "fro":
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(f"expected 'fro', ±1 or ±infinity for a matrix, got {ord!r}")
    x = abs(A if dtype is None else cast(A, as_dtype(dtype)))
    down, along = dims if ord in (1, -1) else reversed(dims)
    sums = sum(x, down, keepdim=True)
    if ord > 0 and not sums.array.size:
        choose: Any = sum  # of no sums the greatest is 0
    else:
        choose = amax if ord > 0 else amin
    y = choose(sums, along, keepdim=True)
    return y if keepdim else squeeze(y, dims)
