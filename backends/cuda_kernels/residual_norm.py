"""Batch norm, what is added to it, and the ReLU of the sum, for x (N, C, S): two launches each way,
as batch norm's.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .batch_norm import applied, fits, instances, parameter, reduced, vectors, wide
from .channel_plans import plan_of
from .compilation import Source, f64

SOURCE = Source("residual_norm.cu", instances("normalize_add", "grad_sums_add"))


def whole_residual_norm(
    x: Array,
    residual: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    eps: float,
) -> tuple[Array, Array, Array, Array]:
    y, (mean, var, rstd) = cupy.empty(x.shape, x.dtype), vectors(x, 3)
    plan = plan_of(x, residual, y)
    reduced(plan, "moments", (x, f64(eps)), (mean, var, rstd))
    given = x, residual, mean, rstd, parameter(weight), parameter(bias)
    applied(plan, "normalize_add", given, y, SOURCE)
    return y, mean, var, rstd


def whole_residual_norm_grad(
    dy: Array,
    x: Array,
    residual: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    count: int,
) -> tuple[Array, Array, Array, Array]:
    dx, through = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    dbias, dweight = vectors(x, 2)
    plan, affine = plan_of(dy, x, residual, dx, through), (parameter(weight), parameter(bias))
    given = dy, x, residual, mean, rstd, *affine, through
    reduced(plan, "grad_sums_add", given, (dbias, dweight), SOURCE)
    known = through, x, mean, rstd, *affine, np.bool_(False), dbias, dweight
    applied(plan, "grad_input", (*known, f64(1 / max(count, 1))), dx)
    return dx, through, dbias, dweight


def accepts(x: Array, residual: Array, weight: Any, bias: Any, mask: Any, eps: Any) -> bool:
    return mask is None and fits(x, residual) and residual.shape == x.shape


def accepts_grad(
    dy: Array, x: Array, residual: Array, mean: Array, rstd: Array, *rest: Any
) -> bool:
    _, _, mask, _ = rest
    return accepts(x, residual, None, None, mask, 0) and fits(x, dy) and wide(mean, rstd)


KERNELS = {
    "whole_residual_norm": Kernel(whole_residual_norm, accepts),
    "whole_residual_norm_grad": Kernel(whole_residual_norm_grad, accepts_grad),
}
