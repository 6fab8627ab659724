"""Batch norm's kernels for x (N, C, S): the loops of `columns.py` where S = 1, of `positions.py`
for longer ones, and of `large_batches.py` for more than caches hold; phase by phase, or all in one
call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from . import columns, large_batches, positions
from .calling import Call, in_one_call, place
from .streaming import LARGE, is_unmapped

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def loops(x: Array) -> Any:
    """Where the loops for x are."""
    return columns if x.shape[2] == 1 else positions


def writing_loops(x: Array, out: Array | None, mask: Array | None = None) -> Any:
    """Where those are that write a result of the size of x, elsewhere than over an operand."""
    if x.nbytes >= LARGE and out is not None and mask is None and not is_unmapped(out):
        return large_batches
    return columns if x.shape[2] == 1 else positions


def batch_moments(outs: tuple[Array, ...], x: Array, mask: Array | None) -> Call:
    return loops(x).moments, (x, mask, *outs)


def batch_normalize(
    outs: tuple[Array, ...], x: Array, *known: Any, relu: bool | None = None
) -> Call:
    y = place(outs[0], x)
    return writing_loops(x, y).normalize, (x, *known, relu, y)


def batch_normalize_relu(outs: tuple[Array, ...], *args: Any) -> Call:
    return batch_normalize(outs, *args, relu=True)


def batch_grad_sums(
    outs: tuple[Array, ...], dy: Array, x: Array, mean: Array, rstd: Array, mask: Array | None
) -> Call:
    return loops(x).grad_sums, (dy, x, mean, rstd, None, None, None, mask, *outs)


def batch_relu_grad_sums(outs: tuple[Array, ...], dy: Array, x: Array, *args: Any) -> Call:
    *known, mask = args
    return loops(x).grad_sums, (dy, x, *known, True, mask, *outs)


def batch_grad_input(outs: tuple[Array, ...], dy: Array, x: Array, *args: Any) -> Call:
    *known, mean_dy, mean_dy_x_hat, mask = args
    rest = None, None, mean_dy, mean_dy_x_hat, mask
    dx = place(outs[0], dy)
    return writing_loops(x, dx, mask).grad_input, (dy, x, *known, *rest, dx)


def batch_relu_grad_input(outs: tuple[Array, ...], dy: Array, x: Array, *args: Any) -> Call:
    *known, mean_g, mean_g_x_hat, mask = args
    rest = True, mean_g, mean_g_x_hat, mask
    dx = place(outs[0], dy)
    return writing_loops(x, dx, mask).grad_input, (dy, x, *known, *rest, dx)


def whole_batch_norm(
    outs: tuple[Array, ...],
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mask: Array | None,
    eps: float,
    relu: bool,
) -> Call:
    function = writing_loops(x, outs[0], mask).whole
    return function, (x, weight, bias, mask, float(eps), relu or None, *outs)


def whole_batch_norm_grad(outs: tuple[Array, ...], dy: Array, x: Array, *args: Any) -> Call:
    *known, mask, count, relu = args
    dx, rest = place(outs[0], dy), (relu or None, mask, count)
    return writing_loops(x, dx, mask).whole_grad, (dy, x, *known, *rest, dx, *outs[1:])


def like(x: Array, *rest: Any) -> tuple[Array, ...]:
    """An array for results of the shape of x."""
    return (np.empty(x.shape, x.dtype),)


def of_channels(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for sums over each channel of x."""
    channels = x.shape[1]
    return np.empty(channels), np.empty(channels)


def of_whole(x: Array, *rest: Any) -> tuple[Array, ...]:
    channels = x.shape[1]
    return np.empty(x.shape, x.dtype), np.empty(channels), np.empty(channels), np.empty(channels)


def of_whole_grad(x: Array, *rest: Any) -> tuple[Array, ...]:
    channels = x.shape[1]
    return np.empty(x.shape, x.dtype), np.empty(channels), np.empty(channels)


def accepts(x: Array, *rest: Any) -> bool:
    """Float32 or float64 in C order, with values in it."""
    return bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)


def of_floats(weight: Array | None, bias: Array | None = None) -> bool:
    """Whether parameters that are there are of such a dtype."""
    return (weight is None or weight.dtype in FLOATS) and (bias is None or bias.dtype in FLOATS)


def accepts_affine(x: Array, mean: Array, rstd: Array, *parameters: Array | None) -> bool:
    """Such an x, and such γ and β."""
    return accepts(x) and of_floats(*parameters)


def accepts_both(dy: Array, x: Array, *rest: Any) -> bool:
    """The same of dy and x, in one dtype."""
    return bool(
        x.dtype in FLOATS
        and dy.dtype == x.dtype
        and x.flags.c_contiguous
        and dy.flags.c_contiguous
        and x.size
    )


def accepts_gradient(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, *rest: Any
) -> bool:
    """The same, and such a γ."""
    return accepts_both(dy, x) and of_floats(weight)


def accepts_relu(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    *rest: Any,
) -> bool:
    """The same, and such a β."""
    return accepts_both(dy, x) and of_floats(weight, bias)


def accepts_whole(
    x: Array, weight: Array | None, bias: Array | None, mask: Array | None, eps: Any, relu: bool
) -> bool:
    """Such an x, such parameters, and an ε that is a number."""
    return (
        isinstance(eps, (float, int))
        and bool(x.dtype in FLOATS and x.flags.c_contiguous and x.size)
        and (weight is None or weight.dtype in FLOATS)
        and (bias is None or bias.dtype in FLOATS)
    )


KERNELS = {
    "batch_moments": in_one_call(of_channels, batch_moments, accepts),
    "batch_normalize": in_one_call(like, batch_normalize, accepts_affine),
    "batch_normalize_relu": in_one_call(like, batch_normalize_relu, accepts_affine),
    "batch_grad_sums": in_one_call(of_channels, batch_grad_sums, accepts_both),
    "batch_relu_grad_sums": in_one_call(of_channels, batch_relu_grad_sums, accepts_relu),
    "batch_grad_input": in_one_call(like, batch_grad_input, accepts_gradient),
    "batch_relu_grad_input": in_one_call(like, batch_relu_grad_input, accepts_relu),
    "whole_batch_norm": in_one_call(of_whole, whole_batch_norm, accepts_whole),
    "whole_batch_norm_grad": in_one_call(of_whole_grad, whole_batch_norm_grad, accepts_relu),
}
