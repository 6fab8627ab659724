"""The matrix products of walks through time: those that enter a cell, and the gradients of weights,
a block of steps at a time. Sums over blocks are of their dtype, as products themselves are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array

from ..products import multiply
from .sequence_norms import At
from .sequence_plans import Backward, Plan


class Products:
    """The products of steps as they enter the cell, which adds their biases."""

    def __init__(self, plan: Plan, norms: dict[str, Any], raw: Sequence[Array]) -> None:
        self.norms, self.raw, shape = norms, raw, (plan.count, plan.columns)
        self.ax, self.ah = np.empty((2, *shape), plan.dtype)
        self.of_blocks = np.empty((0 if raw else plan.longest, plan.columns), plan.dtype)
        self.biases: tuple[Array | None, Array | None] = None, None

    def add(self, bias_ih: Array, bias_hh: Array, body: Any) -> None:
        """Have biases to add: behind the norms or, without, in the cell."""
        if not self.norms:
            body.add(bias_ih, bias_hh)
        elif "sum" in self.norms:
            self.biases = bias_ih + bias_hh, None
        else:
            self.biases = bias_ih, bias_hh

    def of_block(self, rows: slice) -> Array:
        """Where the product with the x of a block goes."""
        return self.raw[0][rows] if self.raw else self.of_blocks[: rows.stop - rows.start]

    def of_step(self, at: At) -> Array:
        """Where the product with the h of a step goes."""
        return self.raw[1][at.rows] if len(self.raw) > 1 else self.ah[: at.n]

    def forward(self, at: At, gx: Array, gh: Array) -> tuple[Array, Array]:
        """What enters the cell."""
        if not self.norms:
            return gx, gh
        ax, ah, (bias_ih, bias_hh) = self.ax[: at.n], self.ah[: at.n], self.biases
        if len(self.raw) == 1:
            np.add(gx, gh, out=gx)
            self.norms["sum"].forward(at, gx, bias_ih, ax)
            ah.fill(0)
        else:
            self.norms["x"].forward(at, gx, bias_ih, ax)
            self.norms["h"].forward(at, gh, bias_hh, ah)
        return ax, ah

    def places(self, dgx: Array, dgh: Array) -> tuple[Array, Array]:
        """Where the cell leaves the gradients of ax and ah, for those of the products to go to dgx
        and dgh.
        """
        return (self.ax[: len(dgx)], self.ah[: len(dgx)]) if self.norms else (dgx, dgh)

    def backward(self, at: At, dax: Array, dah: Array, dgx: Array, dgh: Array) -> None:
        """The gradients of the products."""
        if len(self.raw) == 1:
            self.norms["sum"].backward(at, dax, self.raw[0][at.rows], dgx)
        elif self.raw:
            self.norms["x"].backward(at, dax, self.raw[0][at.rows], dgx)
            self.norms["h"].backward(at, dah, self.raw[1][at.rows], dgh)


class WeightGrads:
    """The gradients of x, the weights and, without norms behind which they stand, the biases: a
    block of steps at a time.

    Attributes
    ----------
    dgx, dgh : the gradients of the products at the steps of a block; the same where only their sum
        counts, and then those of both weights are one product.
    h_before, dh : the h before those steps and, if it is projected, the gradients of those after.
    """

    def __init__(self, plan: Plan, outs: Sequence[Any], given: Backward) -> None:
        self.outs, self.given, self.begun = outs, given, False
        self.features, width = given.x.shape[1], given.weights[1].shape[1]
        self.apart = plan.kind.splits or plan.raw == 2
        self.dgx = np.empty((plan.longest, plan.columns), plan.dtype)
        self.dgh = np.empty_like(self.dgx) if self.apart else self.dgx
        self.before = np.empty((plan.longest, self.features + width), plan.dtype)
        self.h_before = self.before[:, self.features :]
        self.dh = np.empty((plan.longest if plan.projected else 0, width), plan.dtype)
        self.of_both = np.empty((plan.columns, self.features + width), plan.dtype)
        self.with_biases = not plan.norms

    def take_in(self, rows: slice) -> None:
        """Add what the steps of a block have left, which has these rows of all."""
        n, x = rows.stop - rows.start, self.given.x[rows]
        dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, dweight_hr = self.outs
        dgx, dgh = self.dgx[:n], self.dgh[:n]
        if dx is not None:
            multiply(dgx, self.given.weights[0], out=dx[rows])
        if self.apart:
            self.add(multiply, dweight_ih, dgx.T, x)
            self.add(multiply, dweight_hh, dgh.T, self.h_before[:n])
        elif dweight_ih is not None or dweight_hh is not None:
            np.copyto(self.before[:n, : self.features], x)
            self.add(multiply, self.of_both, dgx.T, self.before[:n])
        if self.with_biases:
            self.add(np.add.reduce, dbias_ih, dgx)
            if self.apart:
                self.add(np.add.reduce, dbias_hh, dgh)
        if len(self.dh):
            self.add(multiply, dweight_hr, self.dh[:n].T, self.given.kept[-1][rows])
        self.begun = True

    def add(self, function: Any, total: Array | None, *operands: Array) -> None:
        """Add what a function makes to a sum, if that is needed."""
        if total is None:
            return
        if self.begun:
            np.add(total, function(*operands), out=total)
        else:
            function(*operands, out=total)

    def leave(self) -> None:
        """After the last block: gradients that are parts of others, or the same."""
        if self.apart:
            return
        _, dweight_ih, dweight_hh, dbias_ih, dbias_hh, _ = self.outs
        parts = self.of_both[:, : self.features], self.of_both[:, self.features :]
        for out, part in zip((dweight_ih, dweight_hh), parts, strict=True):
            if out is not None:
                np.copyto(out, part)
        if self.with_biases and dbias_ih is not None:
            np.copyto(dbias_hh, dbias_ih)
