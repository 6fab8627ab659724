"""Norms inside of walks through time: each takes the values of a step, (n, C) in C order, and puts
what it makes of them into memory that is there already.

The loops are those of `columns.py` and `rows.py`; statistics are of float64.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from tinygrad_bn.backend import Array

from . import columns
from .compilation import compiled
from .rows import moments_of, product_sums, put_differentiated, put_normalized


class At(NamedTuple):
    """A step of a walk: its number from the first, its rows, how many they are, and which of its
    block's.
    """

    step: int
    rows: slice
    n: int
    inside: slice


class BatchNorm:
    """Batch norm: statistics (T, C) of each step, taken of its values or given."""

    def __init__(self, arrays: Any, mean: Array, var: Array) -> None:
        self.norm, self.weight, self.bias, *self.given = arrays
        self.mean, self.var = mean, var
        self.rstd = np.empty_like(var)
        self.sums, self.of_step = np.zeros((2, 2, var.shape[1]))

    def begin(self) -> None:
        """Before a walk forward: have the statistics that are given."""
        for values, given in zip((self.mean, self.var), self.given, strict=True):
            if given is not None:
                np.copyto(values, given)

    def forward(self, at: At, x: Array, bias: Array | None, y: Array) -> None:
        """y = γ x̂ + b."""
        step, x, y = at.step, x[:, :, np.newaxis], y[:, :, np.newaxis]
        mean, var, rstd = self.mean[step], self.var[step], self.rstd[step]
        if self.norm.by_batch[step]:
            eps = self.norm.eps[step]
            columns.whole(x, self.weight, bias, None, eps, None, y, mean, var, rstd)
        else:
            np.divide(1, np.sqrt(var + self.norm.eps[step]), out=rstd)
            columns.normalize(x, mean, rstd, self.weight, bias, None, y)

    def resume(self) -> None:
        """Before a walk back."""
        np.divide(1, np.sqrt(self.var + np.array(self.norm.eps)[:, np.newaxis]), out=self.rstd)

    def backward(self, at: At, dy: Array, x: Array, dx: Array) -> None:
        """The gradient of x; Σ dy and Σ dy·x̂ are added up."""
        dy, x, dx = dy[:, :, np.newaxis], x[:, :, np.newaxis], dx[:, :, np.newaxis]
        mean, rstd, weight = self.mean[at.step], self.rstd[at.step], self.weight
        if self.norm.by_batch[at.step]:
            rest = len(x), dx, *self.of_step
            columns.whole_grad(dy, x, mean, rstd, weight, None, None, None, *rest)
        else:  # scaled as x is, with nothing subtracted
            columns.grad_sums(dy, x, mean, rstd, None, None, None, None, *self.of_step)
            columns.normalize(dy, np.zeros_like(mean), rstd, weight, None, None, dx)
        np.add(self.sums, self.of_step, out=self.sums)


@compiled
def normalize_parts(
    x: Any, ends: Any, eps: Any, weight: Any, bias: Any, y: Any, mean: Any, var: Any
) -> None:
    """γ x̂ + b of each row, whose parts have statistics of their own."""
    for i in range(len(x)):
        start = 0
        for p in range(len(ends)):
            end = ends[p]
            mean[i, p], var[i, p] = moments_of(x[i, start:end])
            beta = None if bias is None else bias[start:end]
            rstd = 1 / np.sqrt(var[i, p] + eps[p])
            put_normalized(
                x[i, start:end], mean[i, p], rstd, weight[start:end], beta, y[i, start:end]
            )
            start = end


@compiled
def differentiate_parts(
    dy: Any,
    x: Any,
    ends: Any,
    eps: Any,
    mean: Any,
    var: Any,
    weight: Any,
    dx: Any,
    total: Any,
    product: Any,
) -> None:
    """The gradient of x, with Σ dy and Σ dy·x̂ of each column added to what is there."""
    for i in range(len(x)):
        start = 0
        for p in range(len(ends)):
            end = ends[p]
            grad, row, gamma = dy[i, start:end], x[i, start:end], weight[start:end]
            centre, rstd, size = mean[i, p], 1 / np.sqrt(var[i, p] + eps[p]), end - start
            of_grad, of_product = product_sums(grad, row, centre, gamma)
            means = of_grad / size, of_product * rstd / size
            put_differentiated(grad, row, centre, rstd, gamma, *means, dx[i, start:end])
            to_total, to_product = total[start:end], product[start:end]
            for k in range(size):
                to_total[k] += grad[k]
                to_product[k] += grad[k] * ((row[k] - centre) * rstd)
            start = end


class LayerNorm:
    """Layer norm: statistics (R, parts) of each part of each row."""

    def __init__(self, arrays: Any, mean: Array, var: Array) -> None:
        norm, self.weight, self.bias, *_ = arrays
        self.mean, self.var = mean, var
        self.ends, self.eps = np.array([*accumulate(norm.widths)]), np.array(norm.eps, np.float64)
        self.sums = np.zeros((2, len(self.weight)))

    def begin(self) -> None:
        """Before a walk forward."""

    def forward(self, at: At, x: Array, bias: Array | None, y: Array) -> None:
        """y = γ x̂ + b."""
        mean, var = self.mean[at.rows], self.var[at.rows]
        normalize_parts(x, self.ends, self.eps, self.weight, bias, y, mean, var)

    def resume(self) -> None:
        """Before a walk back."""

    def backward(self, at: At, dy: Array, x: Array, dx: Array) -> None:
        """The gradient of x; Σ dy and Σ dy·x̂ are added up."""
        known = self.ends, self.eps, self.mean[at.rows], self.var[at.rows], self.weight
        differentiate_parts(dy, x, *known, dx, *self.sums)


def in_walk(norms: Any, statistics: Any) -> dict[str, Any]:
    """The norms by their places, on mean and variance of each."""
    found = {}
    for k, arrays in enumerate(norms):
        kind = LayerNorm if arrays[0].widths else BatchNorm
        found[arrays[0].place] = kind(arrays, *statistics[2 * k : 2 * k + 2])
    return found
