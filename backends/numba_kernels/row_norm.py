"""The kernels of layer norm and its kin for x (N, G, K, S): the loops of `rows.py` where S = 1, of
`row_positions.py` for longer ones, phase by phase or all in one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from . import row_positions, rows
from .batch_norm import (
    accepts,
    accepts_affine,
    accepts_both,
    accepts_gradient,
    accepts_whole,
    like,
)
from .calling import Call, in_one_call, place


def loops(x: Array) -> Any:
    """Where the loops for x are."""
    return rows if x.shape[3] == 1 else row_positions


def as_rows(x: Array) -> Array:
    """x (N, G, K, S) with a row for each pair of statistics."""
    n, groups, channels, space = x.shape
    return x.reshape(n * groups, channels * space)


def row_moments(outs: tuple[Array, ...], x: Array) -> Call:
    mean, var = outs
    return rows.moments, (as_rows(x), mean.reshape(-1), var.reshape(-1))


def row_mean_square(outs: tuple[Array, ...], x: Array) -> Call:
    return rows.mean_square, (as_rows(x), outs[0].reshape(-1))


def row_normalize(outs: tuple[Array, ...], x: Array, *known: Any) -> Call:
    return loops(x).normalize, (x, *known, place(outs[0], x))


def row_grad_sums(outs: tuple[Array, ...], dy: Array, x: Array, *statistics: Any) -> Call:
    return loops(x).grad_sums, (dy, x, *statistics, *outs)


def row_grad_input(outs: tuple[Array, ...], dy: Array, x: Array, *known: Any) -> Call:
    return loops(x).grad_input, (dy, x, *known, place(outs[0], dy))


def whole_row_norm(
    outs: tuple[Array, ...], x: Array, weight: Array | None, bias: Array | None, eps: float
) -> Call:
    return loops(x).whole, (x, weight, bias, float(eps), *outs)


def whole_rms_norm(
    outs: tuple[Array, ...], x: Array, weight: Array | None, bias: Array | None, eps: float
) -> Call:
    y, *statistics = outs
    return loops(x).whole, (x, weight, bias, float(eps), y, None, *statistics)


def whole_row_norm_grad(outs: tuple[Array, ...], dy: Array, x: Array, *known: Any) -> Call:
    dx, *sums = outs
    return loops(x).whole_grad, (dy, x, *known, place(dx, dy), *sums)


def of_rows(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for a number of each row of x."""
    shape = x.shape[:2]
    return np.empty(shape), np.empty(shape)


def of_row(x: Array) -> tuple[Array, ...]:
    """An array for a number of each row of x."""
    return (np.empty(x.shape[:2]),)


def of_channels(x: Array, *rest: Any) -> tuple[Array, ...]:
    """Two arrays for sums over each channel of each group of x."""
    shape = x.shape[1:3]
    return np.empty(shape), np.empty(shape)


def of_whole(x: Array, *rest: Any) -> tuple[Array, ...]:
    return *like(x), *of_rows(x), *of_row(x)


def of_whole_rms(x: Array, *rest: Any) -> tuple[Array, ...]:
    return *like(x), *of_rows(x)


def of_whole_grad(x: Array, *rest: Any) -> tuple[Array, ...]:
    return *like(x), *of_channels(x)


def accepts_row_norm(x: Array, weight: Array | None, bias: Array | None, eps: Any) -> bool:
    return accepts_whole(x, weight, bias, None, eps, False)


KERNELS = {
    "row_moments": in_one_call(of_rows, row_moments, accepts),
    "row_mean_square": in_one_call(of_row, row_mean_square, accepts),
    "row_normalize": in_one_call(like, row_normalize, accepts_affine),
    "row_grad_sums": in_one_call(of_channels, row_grad_sums, accepts_both),
    "row_grad_input": in_one_call(like, row_grad_input, accepts_gradient),
    "whole_row_norm": in_one_call(of_whole, whole_row_norm, accepts_row_norm),
    "whole_rms_norm": in_one_call(of_whole_rms, whole_rms_norm, accepts_row_norm),
    "whole_row_norm_grad": in_one_call(of_whole_grad, whole_row_norm_grad, accepts_gradient),
}
