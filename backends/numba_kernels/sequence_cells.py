"""The cells of walks through time, on memory that is there already.

A step leaves h' and what it keeps in rows of a sequence's arrays, and the other states after it
where they were before it. Its gradient leaves those of ax and ah in ``da`` and ``da_h``, that of h
on other ways than ah in ``direct``, and those of the other states where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinygrad_bn.backend import Array

from . import recurrent
from .sequence_norms import At


class Cell:
    """A cell of H units for at most N sequences; ``kept`` are arrays with a row for each of x."""

    states: ClassVar[int] = 1
    gates: ClassVar[int] = 1
    """How many times H the products have columns."""
    splits: ClassVar[bool] = False
    """Whether ax and ah have gradients of their own, and h another one than through ah."""

    def __init__(
        self, kept: Sequence[Array], norm: Any, shape: tuple[int, int], dtype: Any
    ) -> None:
        count, size = shape
        self.kept, self.norm = kept, norm
        self.bias = recurrent.no_bias(self.bias_size(size), dtype)
        self.direct = np.empty((count if self.splits else 0, size), dtype)
        self.of_norm = np.empty((3, count if norm else 0, size), dtype)

    @classmethod
    def bias_size(cls, size: int) -> int:
        return cls.gates * size

    def add(self, bias_ih: Array, bias_hh: Array) -> None:
        """Have biases to add in every step."""
        self.bias = bias_ih + bias_hh

    @classmethod
    def widths(cls, size: int, normed: bool) -> tuple[int, ...]:
        """The columns of the arrays that are kept."""
        return ()

    def step(
        self, at: At, ax: Array, ah: Array, before: Sequence[Array], h: Array
    ) -> tuple[Array, ...]:
        """The states after a step but h, from those before it."""
        raise NotImplementedError

    def grad(
        self,
        at: At,
        dh: Array,
        now: Sequence[Array],
        before: Sequence[Array],
        h: Array,
        da: Array,
        da_h: Array,
    ) -> None:
        """From the gradients of the states after a step, where those of the others but h are to be
        before it.
        """
        raise NotImplementedError


class TanhCell(Cell):
    """h' = tanh(ax + ah)."""

    def step(
        self, at: At, ax: Array, ah: Array, before: Sequence[Array], h: Array
    ) -> tuple[Array, ...]:
        recurrent.rnn_tanh(ax, ah, self.bias, h)
        return ()

    def grad(
        self,
        at: At,
        dh: Array,
        now: Sequence[Array],
        before: Sequence[Array],
        h: Array,
        da: Array,
        da_h: Array,
    ) -> None:
        recurrent.rnn_tanh_grad(dh, h, da)


class ReLUCell(Cell):
    """h' = max(ax + ah, 0)."""

    def step(
        self, at: At, ax: Array, ah: Array, before: Sequence[Array], h: Array
    ) -> tuple[Array, ...]:
        recurrent.rnn_relu(ax, ah, self.bias, h)
        return ()

    def grad(
        self,
        at: At,
        dh: Array,
        now: Sequence[Array],
        before: Sequence[Array],
        h: Array,
        da: Array,
        da_h: Array,
    ) -> None:
        recurrent.rnn_relu_grad(dh, h, da)


class LSTMCell(Cell):
    """The long short-term memory."""

    states = 2
    gates = 4

    @classmethod
    def widths(cls, size: int, normed: bool) -> tuple[int, ...]:
        return (4 * size, size, size) if normed else (4 * size, size)

    def step(
        self, at: At, ax: Array, ah: Array, before: Sequence[Array], h: Array
    ) -> tuple[Array, ...]:
        gates, c_after, *tanh = [rows[at.rows] for rows in self.kept]
        if self.norm is None:
            recurrent.lstm(ax, ah, self.bias, before[1], h, c_after, gates)
        else:
            recurrent.lstm_cell(ax, ah, self.bias, before[1], c_after, gates)
            normed = self.of_norm[0, : at.n]
            self.norm.forward(at, c_after, self.norm.bias, normed)
            recurrent.lstm_output(gates, normed, tanh[0], h)
        return (c_after,)

    def grad(
        self,
        at: At,
        dh: Array,
        now: Sequence[Array],
        before: Sequence[Array],
        h: Array,
        da: Array,
        da_h: Array,
    ) -> None:
        gates, c_after, *tanh = [rows[at.rows] for rows in self.kept]
        dc = now[1]
        if self.norm is None:
            recurrent.lstm_grad(dh, dc, gates, before[1], c_after, da)
            return
        do, dnormed, through = self.of_norm[:, : at.n]
        recurrent.lstm_output_grad(dh, gates, tanh[0], do, dnormed)
        self.norm.backward(at, dnormed, c_after, through)
        np.add(dc, through, out=dc)
        recurrent.lstm_cell_grad(dc, do, gates, before[1], da)


class GRUCell(Cell):
    """The gated recurrent unit."""

    gates = 3
    splits = True

    @classmethod
    def bias_size(cls, size: int) -> int:
        return 4 * size

    def add(self, bias_ih: Array, bias_hh: Array) -> None:
        size = len(bias_ih) // 3
        both = bias_ih[: 2 * size] + bias_hh[: 2 * size]
        self.bias = np.concatenate([both, bias_ih[2 * size :], bias_hh[2 * size :]])

    @classmethod
    def widths(cls, size: int, normed: bool) -> tuple[int, ...]:
        return (4 * size,)

    def step(
        self, at: At, ax: Array, ah: Array, before: Sequence[Array], h: Array
    ) -> tuple[Array, ...]:
        recurrent.gru(ax, ah, self.bias, before[0], h, self.kept[0][at.rows])
        return ()

    def grad(
        self,
        at: At,
        dh: Array,
        now: Sequence[Array],
        before: Sequence[Array],
        h: Array,
        da: Array,
        da_h: Array,
    ) -> None:
        direct = self.direct[: at.n]
        recurrent.gru_grad(dh, self.kept[0][at.rows], before[0], da, da_h, direct)


CELLS: dict[str, type[Cell]] = {
    "rnn_tanh": TanhCell,
    "rnn_relu": ReLUCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
}
