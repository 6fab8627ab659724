"""The cells that walk through time: what a step makes of the two products and the states, and what
its gradient keeps and gives.

A step takes ``ax`` and ``ah``, the products with x and h as they enter the gates, and gives the
states after it and what is kept of it, arrays with a row for each sequence. Its gradient gives
those of ax, of ah, of h on other ways than ah, and of the other states.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.ops.recurrent_norms import NormInWalk
from tinygrad_bn.ops.recurrent_steps import (
    gru_step,
    gru_step_grad,
    lstm_cell_step,
    lstm_cell_step_grad,
    lstm_step,
    lstm_step_grad,
    parts,
    rnn_step,
    rnn_step_grad,
)

Arrays: TypeAlias = tuple[Array, ...]
Grads: TypeAlias = tuple[Array, Array, Array | None, list[Array]]


class Cell:
    """A cell; ``norm`` is that of the state on its way to h, where there is one."""

    states: ClassVar[int] = 1
    adds_products: ClassVar[bool] = True
    """Whether only the sum of ax and ah counts, so that their biases may be added up before."""

    def __init__(self, backend: Backend, norm: NormInWalk | None = None) -> None:
        self.backend, self.xp, self.norm = backend, backend.xp, norm

    def step(self, step: int, ax: Array, ah: Array, *states: Array) -> tuple[Arrays, Arrays]:
        """The states after a step, and what is kept of it."""
        raise NotImplementedError

    def grad(
        self, step: int, dh: Array, drest: list[Array], before: Arrays, h_after: Array, kept: Arrays
    ) -> Grads:
        """The gradients of a step, from those of the states after it and what they were."""
        raise NotImplementedError


class SimpleCell(Cell):
    """h' = tanh(ax + ah), or with max(·, 0) in its place."""

    relu: ClassVar[bool] = False

    def step(self, step: int, ax: Array, ah: Array, *states: Array) -> tuple[Arrays, Arrays]:
        return (rnn_step(self.backend, ax, ah, self.relu),), ()

    def grad(
        self, step: int, dh: Array, drest: list[Array], before: Arrays, h_after: Array, kept: Arrays
    ) -> Grads:
        da = rnn_step_grad(self.backend, dh, h_after, self.relu)
        return da, da, None, drest


class RectifiedCell(SimpleCell):
    relu = True


class LSTMCell(Cell):
    """The long short-term memory, of h and c. It keeps the gates, c', and tanh(N(c')) if normed."""

    states = 2

    def step(self, step: int, ax: Array, ah: Array, *states: Array) -> tuple[Arrays, Arrays]:
        if self.norm is None:
            h, c, gates = lstm_step(self.backend, ax, ah, states[1])
            return (h, c), (gates, c)
        c, gates = lstm_cell_step(self.backend, ax, ah, states[1])
        tanh = self.xp.tanh(self.norm.forward(step, c, self.norm.bias))
        return (parts(gates, 4)[3] * tanh, c), (gates, c, tanh)

    def grad(
        self, step: int, dh: Array, drest: list[Array], before: Arrays, h_after: Array, kept: Arrays
    ) -> Grads:
        gates, c, *tanh = kept
        if self.norm is None:
            da, dc = lstm_step_grad(self.backend, dh, drest[0], gates, before[1], c)
        else:
            slope = parts(gates, 4)[3] * (1 - self.xp.square(tanh[0]))
            dc_after = drest[0] + self.norm.backward(step, dh * slope, c)
            da, dc = lstm_cell_step_grad(self.backend, dc_after, dh * tanh[0], gates, before[1])
        return da, da, None, [dc]


class GRUCell(Cell):
    """The gated recurrent unit, whose reset gate multiplies ah. It keeps what `gru_step` does."""

    adds_products = False

    def step(self, step: int, ax: Array, ah: Array, *states: Array) -> tuple[Arrays, Arrays]:
        h, gates = gru_step(self.backend, ax, ah, states[0])
        return (h,), (gates,)

    def grad(
        self, step: int, dh: Array, drest: list[Array], before: Arrays, h_after: Array, kept: Arrays
    ) -> Grads:
        da, da_h, direct = gru_step_grad(self.backend, dh, kept[0], before[0])
        return da, da_h, direct, drest


CELLS: dict[str, type[Cell]] = {
    "rnn_tanh": SimpleCell,
    "rnn_relu": RectifiedCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
}
