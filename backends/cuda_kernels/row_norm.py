"""Layer, group, instance and RMS norm for x (N, G, K, S), row by row: a warp a row, a block a long
one. The gradients of the parameters are column sums, merged by the last block of a channel.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .batch_norm import instances, parameter, wide
from .channel_plans import STORED, plan_of
from .compilation import NULL, TYPES, VECTOR_BYTES, Source, f64, i32, i64
from .teams import THREADS, WARP, blocks_for, team_for

SOURCE = Source(
    "row_norm.cu",
    [
        *(
            f"{kernel}<{TYPES[dtype]}, {team}>"
            for kernel in ("row_statistics", "row_normalize", "row_grad_input")
            for dtype in STORED
            for team in (WARP, THREADS)
        ),
        *instances("row_grad_sums"),
    ],
)


def by_rows(kernel: str, args: tuple[Any, ...], *elements: Array) -> None:
    """A team for each row; ``elements`` are the arrays of the shape of x."""
    x = elements[0]
    n, groups, channels, space = x.shape
    length = channels * space
    team = team_for(length)
    packed = length * x.dtype.itemsize % VECTOR_BYTES == 0 and all(
        a.data.ptr % VECTOR_BYTES == 0 for a in elements
    )
    sizes = i64(n * groups), i32(groups), i32(channels), i32(space), np.bool_(packed)
    name = f"{kernel}<{TYPES[x.dtype.name]}, {team}>"
    SOURCE.launch(name, blocks_for(n * groups, team), (THREADS,), (*args, *sizes))


def given(values: Array | None) -> Any:
    """The means of rows, or no address."""
    return NULL if values is None else values


def for_rows(x: Array) -> Array:
    """Room for a number of each row."""
    return cupy.empty(x.shape[:2], np.float64)


def row_moments(x: Array) -> tuple[Array, Array]:
    mean, var = for_rows(x), for_rows(x)
    by_rows("row_statistics", (x, f64(0), NULL, NULL, NULL, mean, var, NULL), x)
    return mean, var


def row_mean_square(x: Array) -> Array:
    square = for_rows(x)
    by_rows("row_statistics", (x, f64(0), NULL, NULL, NULL, NULL, square, NULL), x)
    return square


def whole_row_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, Array]:
    y, mean, var, rstd = cupy.empty(x.shape, x.dtype), for_rows(x), for_rows(x), for_rows(x)
    known = x, f64(eps), parameter(weight), parameter(bias)
    by_rows("row_statistics", (*known, y, mean, var, rstd), x, y)
    return y, mean, var, rstd


def whole_rms_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    y, square, rstd = cupy.empty(x.shape, x.dtype), for_rows(x), for_rows(x)
    known = x, f64(eps), parameter(weight), parameter(bias)
    by_rows("row_statistics", (*known, y, NULL, square, rstd), x, y)
    return y, square, rstd


def row_normalize(
    x: Array, mean: Array | None, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    y = cupy.empty(x.shape, x.dtype)
    by_rows("row_normalize", (x, given(mean), rstd, parameter(weight), parameter(bias), y), x, y)
    return y


def row_grad_sums(dy: Array, x: Array, mean: Array | None, rstd: Array) -> tuple[Array, Array]:
    n, groups, channels, space = x.shape
    columns = n, groups * channels, space
    plan = plan_of(dy.reshape(columns), x.reshape(columns))
    total, product = (cupy.empty((groups, channels), np.float64) for _ in range(2))
    parts, *room = plan.shared_out()
    args = dy, x, given(mean), rstd, i32(groups), i32(channels), total, product
    kernel, grid = "row_grad_sums" + plan.arguments, (plan.tiles, parts)
    SOURCE.launch(kernel, grid, plan.block, (*args, *room, *plan.sizes))
    return total, product


def row_grad_input(
    dy: Array, x: Array, mean: Array | None, rstd: Array, weight: Array | None
) -> Array:
    dx = cupy.empty(x.shape, x.dtype)
    by_rows("row_grad_input", (dy, x, given(mean), rstd, parameter(weight), dx), x, dy, dx)
    return dx


def whole_row_norm_grad(
    dy: Array, x: Array, mean: Array | None, rstd: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    return row_grad_input(dy, x, mean, rstd, weight), *row_grad_sums(dy, x, mean, rstd)


def accepts(x: Array, *others: Array) -> bool:
    """Floats of up to 32 bits in C order, all of one dtype, with values in them."""
    n, groups, channels, space = x.shape
    return bool(
        x.dtype.name in STORED
        and x.size
        and max(n * groups, n * space, groups * channels, channels * space) < 1 << 30
        and all(a.dtype == x.dtype and a.flags.c_contiguous for a in (x, *others))
    )


def of_rows(mean: Array | None, rstd: Array) -> bool:
    """Statistics as the kernels give them; around zero there is no mean."""
    return wide(rstd) and (mean is None or wide(mean))


def accepts_normalize(x: Array, mean: Array | None, rstd: Array, *affine: Any) -> bool:
    return accepts(x) and of_rows(mean, rstd)


def accepts_grad(dy: Array, x: Array, mean: Array | None, rstd: Array, *weight: Any) -> bool:
    return accepts(x, dy) and of_rows(mean, rstd)


def accepts_whole(x: Array, weight: Array | None, bias: Array | None, eps: Any) -> bool:
    return accepts(x) and isinstance(eps, (float, int))


KERNELS = {
    "row_moments": Kernel(row_moments, accepts),
    "row_mean_square": Kernel(row_mean_square, accepts),
    "row_normalize": Kernel(row_normalize, accepts_normalize),
    "row_grad_sums": Kernel(row_grad_sums, accepts_grad),
    "row_grad_input": Kernel(row_grad_input, accepts_grad),
    "whole_row_norm": Kernel(whole_row_norm, accepts_whole),
    "whole_rms_norm": Kernel(whole_rms_norm, accepts_whole),
    "whole_row_norm_grad": Kernel(whole_row_norm_grad, accepts_grad),
}
