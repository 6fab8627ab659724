"""Batch norm for x (N, C, S): its phases, in two launches each way, or in one where a block can
hold all values of its channels.

Sums of all blocks are merged by the last of them, in the order of blocks, so that bits depend on
the input and the GPU alone.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .channel_plans import MOST_CHANNELS, STORED, THREADS, Plan, plan_of
from .compilation import NULL, TYPES, Source, f64, i32


def instances(*kernels: str) -> list[str]:
    """Kernels for every dtype, of one channel by elements and by packs, and of several."""
    return [
        f"{kernel}<{TYPES[dtype]}, {width}, {channels}>"
        for kernel in kernels
        for dtype, most in STORED.items()
        for width, channels in ((1, 1), (most, 1), (MOST_CHANNELS, MOST_CHANNELS))
    ]


SOURCE = Source(
    "batch_norm.cu",
    [
        *instances("moments", "normalize", "grad_sums", "grad_input"),
        "moving_average<float>",
        "moving_average<double>",
    ],
)
WHOLE = Source("whole_batch_norm.cu", instances("whole", "whole_grad"))


def parameter(values: Array | None) -> Any:
    """γ or β in float32; where there is none, no address."""
    if values is None:
        return NULL
    if values.dtype == np.float32 and values.flags.c_contiguous:
        return values
    return cupy.ascontiguousarray(values, np.float32)


def reduced(
    plan: Plan,
    kernel: str,
    given: tuple[Any, ...],
    outs: tuple[Any, ...],
    source: Source = SOURCE,
) -> None:
    """Two sums for each channel, and what is made of them."""
    parts, *room = plan.shared_out()
    args = (*given, *outs, *room, *plan.sizes)
    source.launch(kernel + plan.arguments, (plan.tiles, parts), plan.block, args)


def applied(
    plan: Plan, kernel: str, given: tuple[Any, ...], out: Array, source: Source = SOURCE
) -> Array:
    """Every element anew."""
    grid = plan.tiles, plan.spread_out()
    source.launch(kernel + plan.arguments, grid, plan.block, (*given, out, *plan.sizes))
    return out


def vectors(x: Array, count: int) -> Array:
    """Room for as many numbers for each channel."""
    return cupy.empty((count, x.shape[1]), np.float64)


def batch_moments(x: Array, mask: Array | None) -> tuple[Array, Array]:
    mean, var = vectors(x, 2)
    reduced(plan_of(x), "moments", (x, f64(0)), (mean, var, NULL))
    return mean, var


def normalized(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None, relu: bool
) -> Array:
    y = cupy.empty(x.shape, x.dtype)
    given = x, mean, rstd, parameter(weight), parameter(bias), np.bool_(relu)
    return applied(plan_of(x, y), "normalize", given, y)


def batch_normalize(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    return normalized(x, mean, rstd, weight, bias, False)


def batch_normalize_relu(
    x: Array, mean: Array, rstd: Array, weight: Array | None, bias: Array | None
) -> Array:
    return normalized(x, mean, rstd, weight, bias, True)


def summed_grads(dy: Array, x: Array, *known: Any) -> tuple[Array, Array]:
    total, product = vectors(x, 2)
    reduced(plan_of(dy, x), "grad_sums", (dy, x, *known), (total, product))
    return total, product


def batch_grad_sums(
    dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> tuple[Array, Array]:
    return summed_grads(dy, x, mean, rstd, NULL, NULL, np.bool_(False))


def batch_relu_grad_sums(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
) -> tuple[Array, Array]:
    return summed_grads(dy, x, mean, rstd, parameter(weight), parameter(bias), np.bool_(True))


def batch_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: Array | None,
) -> Array:
    dx = cupy.empty(x.shape, x.dtype)
    given = dy, x, mean, rstd, parameter(weight), NULL, np.bool_(False), mean_dy, mean_dy_x_hat
    return applied(plan_of(dy, x, dx), "grad_input", (*given, f64(1)), dx)


def batch_relu_grad_input(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mean_dy: Array,
    mean_dy_x_hat: Array,
    mask: Array | None,
) -> Array:
    dx = cupy.empty(x.shape, x.dtype)
    known = mean, rstd, parameter(weight), parameter(bias), np.bool_(True)
    given = dy, x, *known, mean_dy, mean_dy_x_hat, f64(1)
    return applied(plan_of(dy, x, dx), "grad_input", given, dx)


def whole_batch_norm(
    x: Array, weight: Array | None, bias: Array | None, mask: Array | None, eps: float, relu: bool
) -> tuple[Array, Array, Array, Array]:
    y, (mean, var, rstd) = cupy.empty(x.shape, x.dtype), vectors(x, 3)
    affine, plan = (parameter(weight), parameter(bias)), plan_of(x, y)
    held = plan.held
    if held is not None:
        args = (x, *affine, f64(eps), np.bool_(relu), y, mean, var, rstd, *held.sizes)
        WHOLE.launch("whole" + held.arguments, (held.tiles,), held.block, args)
    else:
        reduced(plan, "moments", (x, f64(eps)), (mean, var, rstd))
        applied(plan, "normalize", (x, mean, rstd, *affine, np.bool_(relu)), y)
    return y, mean, var, rstd


def whole_batch_norm_grad(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    count: int,
    relu: bool,
) -> tuple[Array, Array, Array]:
    dx, (dbias, dweight) = cupy.empty(x.shape, x.dtype), vectors(x, 2)
    known = dy, x, mean, rstd, parameter(weight), parameter(bias), np.bool_(relu)
    plan, share = plan_of(dy, x, dx), f64(1 / max(count, 1))
    held = plan.held
    if held is not None:
        args = (*known, share, dx, dbias, dweight, *held.sizes)
        WHOLE.launch("whole_grad" + held.arguments, (held.tiles,), held.block, args)
    else:
        reduced(plan, "grad_sums", known, (dbias, dweight))
        applied(plan, "grad_input", (*known, dbias, dweight, share), dx)
    return dx, dbias, dweight


def moving_average(running: Array, value: Array, rate: Array | float, scale: float) -> Array:
    moved, n = cupy.empty(value.shape, value.dtype), value.size
    known = (NULL, f64(rate)) if isinstance(rate, float) else (rate, f64(0))
    args = (running, value, *known, f64(scale), moved, i32(n))
    kernel = f"moving_average<{TYPES[running.dtype.name]}>"
    SOURCE.launch(kernel, (-(-n // THREADS),), (THREADS,), args)
    return moved


def fits(x: Array, *others: Array) -> bool:
    """Floats of up to 32 bits in C order, all of one dtype, with values in them."""
    n, channels, space = x.shape
    return bool(
        x.dtype.name in STORED
        and x.size
        and max(n * space, channels) < 1 << 30
        and all(a.dtype == x.dtype and a.flags.c_contiguous for a in (x, *others))
    )


def wide(*values: Array) -> bool:
    """Statistics in float64, as the bodies of other phases give them."""
    return all(v.dtype == np.float64 and v.flags.c_contiguous for v in values)


def accepts_moments(x: Array, mask: Array | None) -> bool:
    return mask is None and fits(x)


def accepts_normalize(x: Array, mean: Array, rstd: Array, *affine: Any) -> bool:
    return fits(x) and wide(mean, rstd)


def accepts_grad_sums(dy: Array, x: Array, mean: Array, rstd: Array, *rest: Any) -> bool:
    return rest[-1] is None and fits(x, dy) and wide(mean, rstd)


def accepts_grad_input(dy: Array, x: Array, mean: Array, rstd: Array, *rest: Any) -> bool:
    *_, mean_dy, mean_dy_x_hat, mask = rest
    return mask is None and fits(x, dy) and wide(mean, rstd, mean_dy, mean_dy_x_hat)


def accepts_whole(x: Array, weight: Any, bias: Any, mask: Array | None, *rest: Any) -> bool:
    return mask is None and fits(x)


def accepts_whole_grad(dy: Array, x: Array, mean: Array, rstd: Array, *rest: Any) -> bool:
    _, _, mask, _, _ = rest
    return mask is None and fits(x, dy) and wide(mean, rstd)


def accepts_moving(running: Array, value: Array, rate: Array | float, scale: float) -> bool:
    return bool(
        running.dtype in (np.float32, np.float64)
        and running.shape == value.shape
        and running.flags.c_contiguous
        and 0 < value.size < 1 << 30
        and wide(value)
        and (isinstance(rate, float) or (rate.size == 1 and wide(rate)))
    )


KERNELS = {
    "moving_average": Kernel(moving_average, accepts_moving),
    "batch_moments": Kernel(batch_moments, accepts_moments),
    "batch_normalize": Kernel(batch_normalize, accepts_normalize),
    "batch_normalize_relu": Kernel(batch_normalize_relu, accepts_normalize),
    "batch_grad_sums": Kernel(batch_grad_sums, accepts_grad_sums),
    "batch_relu_grad_sums": Kernel(batch_relu_grad_sums, accepts_grad_sums),
    "batch_grad_input": Kernel(batch_grad_input, accepts_grad_input),
    "batch_relu_grad_input": Kernel(batch_relu_grad_input, accepts_grad_input),
    "whole_batch_norm": Kernel(whole_batch_norm, accepts_whole),
    "whole_batch_norm_grad": Kernel(whole_batch_norm_grad, accepts_whole_grad),
}
