"""Layer normalization and its kin as operations: the phases of ``row_moments.py`` with shapes and
gradients around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.ops.norm_arguments import require_eps, require_floats
from tinygrad_bn.ops.row_moments import (
    row_grad_input,
    row_grad_sums,
    row_mean_square,
    row_moments,
    row_normalize,
)

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


class RowNorm(Function):
    """x, seen as ``rows`` (N, G, K, S), by the statistics of each row; γ and β hold G·K numbers in
    any shape. Where it is not ``centred`` it is divided by the root of its mean square only.
    """

    mean: Array | None
    var: Array

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        rows: tuple[int, int, int, int],
        eps: float,
        centred: bool = True,
    ) -> Array:
        xp = self.xp
        self.shape, self.rows = x.shape, rows
        self.affine_shapes = [None if v is None else v.shape for v in (weight, bias)]
        x = xp.reshape(x, rows)
        weight, bias = (None if v is None else xp.reshape(v, rows[1:3]) for v in (weight, bias))
        if centred:
            self.mean, self.var = row_moments(self.backend, x)
        else:
            self.mean, self.var = None, row_mean_square(self.backend, x)
        self.rstd = 1 / xp.sqrt(self.var + eps)
        self.x, self.weight = x, weight
        y = row_normalize(self.backend, x, self.mean, self.rstd, weight, bias)
        return xp.reshape(y, self.shape)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None, Array | None]:
        xp, dy = self.xp, self.xp.reshape(dy, self.rows)
        kept = (self.x, self.mean, self.rstd)
        dx = dweight = dbias = None
        if self.needs[0]:
            dx = xp.reshape(row_grad_input(self.backend, dy, *kept, self.weight), self.shape)
        if self.needs[1] or self.needs[2]:
            sums = row_grad_sums(self.backend, dy, *kept)
            dweight, dbias = (
                None if shape is None else xp.reshape(total, shape)
                for shape, total in zip(self.affine_shapes, sums[::-1], strict=True)
            )
        return dx, dweight, dbias


class RowNormMoments(RowNorm):
    """The same; mean and biased variance of each row come along, (N, G) each."""

    auxiliary = True

    def forward(self, x: Array, weight: Array | None, bias: Array | None, **options: Any) -> Any:
        return super().forward(x, weight, bias, **options), self.mean, self.var


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β over the trailing axes, for each sample by itself.

    Shapes
    ------
    input (*, *normalized_shape); weight, bias normalized_shape; the result as input.

    Raises
    ------
    ShapeError
        If the input does not end in ``normalized_shape``, or weight or bias do not have it.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
    """
    return over_trailing(input, normalized_shape, weight, bias, eps, centred=True)


def over_trailing(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    centred: bool,
) -> Tensor:
    """The rows are the trailing axes of ``normalized_shape``, each element with its own γ and β."""
    require_floats(input)
    require_eps(eps)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"expected (*, {', '.join(map(str, shape))}) with at least one axis, got {input.shape}"
        )
    for name, x in (("weight", weight), ("bias", bias)):
        if x is not None and x.shape != shape:
            raise ShapeError(f"expected {name} of shape {shape}, got {x.shape}")
    size = math.prod(shape)
    if not size:
        return input.clone()  # there is nothing to normalise
    rows = (math.prod(input.shape) // size, 1, size, 1)
    return RowNorm.apply(input, weight, bias, rows=rows, eps=eps, centred=centred)  # type: ignore[no-any-return]
