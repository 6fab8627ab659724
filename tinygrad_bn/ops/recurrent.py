"""Recurrent networks as operations: a layer in one direction, over whole sequences, is one node.

Sequences come packed: rows (R, I) hold step 0 of every sequence, then step 1 of those that have
one, and so on, the longest sequence first. ``sizes`` says how many rows each step has, and never
grows. Sequences of one length are T steps of N rows, so that nothing is computed for padding and
nothing is masked. In reverse, sequences begin at their last step.

The forward walk keeps states and gates, and the backward walk is backpropagation through time. Both
are written once for all cells; a cell defines a step and its gradient. What does not depend on the
state, the products with inputs and all gradients of weights, is one matrix product for all steps.

References
----------
Werbos 1990, "Backpropagation through time: what it does and how to do it".
Sak, Senior and Beaufays 2014, arXiv:1402.1128, equation 7, for the projection of h.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.join import cut
from tinygrad_bn.ops.linear import transposed
from tinygrad_bn.ops.recurrent_steps import (
    gru_step,
    gru_step_grad,
    lstm_step,
    lstm_step_grad,
    rnn_step,
    rnn_step_grad,
)


def spans(sizes: Sequence[int]) -> list[slice]:
    """The rows of each step."""
    return [slice(end - n, end) for n, end in zip(sizes, accumulate(sizes), strict=True)]


class Running:
    """The rows of a state that belong to sequences running at a step of a walk.

    Sequences that end are put aside, sequences that begin come from what is ``given`` for all.
    """

    def __init__(self, xp: Any, given: Array) -> None:
        self.xp, self.given = xp, given
        self.rows = given[:0]
        self.ended: list[Array] = []

    def at(self, count: int) -> Array:
        """The rows of the first ``count`` sequences, which are those that run now."""
        known = self.rows.shape[0]
        if not known:
            self.rows = self.given[:count]
        elif known < count:
            self.rows = self.xp.concatenate([self.rows, self.given[known:count]], axis=0)
        elif known > count:
            self.ended.append(self.rows[count:])
            self.rows = self.rows[:count]
        return self.rows

    def all(self) -> Array:
        """The rows of all sequences after the last step of the walk."""
        if not self.ended:
            return self.rows
        return self.xp.concatenate([self.rows, *reversed(self.ended)], axis=0)


class Recurrence(Function):
    """A cell along packed sequences; states are h (N, P) and what else the cell carries."""

    multiplies_bias = False
    """Whether b_hh and b_ih belong to different products; else they may be added up before."""

    def forward(
        self,
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array | None,
        bias_hh: Array | None,
        weight_hr: Array | None,
        *initial: Array,
        sizes: tuple[int, ...],
        reverse: bool,
        **options: Any,
    ) -> tuple[Array, ...]:
        xp, self.options, self.reverse = self.xp, options, reverse
        self.x, self.weight_ih, self.weight_hh, self.weight_hr = x, weight_ih, weight_hh, weight_hr
        self.sizes = sizes
        gx = xp.matmul(x, transposed(xp, weight_ih))
        if bias_ih is not None:
            if self.multiplies_bias:
                gx = gx + bias_ih
            else:  # a step at a time, while the sums are in the cache
                bias_hh = bias_hh + bias_ih
        return self.walk(gx, bias_hh, [Running(xp, state) for state in initial])

    def walk(self, gx: Array, bias: Array | None, states: list[Running]) -> tuple[Array, ...]:
        """The output and the last states, from the input's products and the first states."""
        xp, projection = self.xp, None
        weight_hh = transposed(xp, self.weight_hh)
        if len(self.sizes) > 1:  # the copy is paid for by the products that it makes faster
            weight_hh = xp.contiguous(weight_hh)
        if self.weight_hr is not None:
            projection = transposed(xp, self.weight_hr)
        before: list[Array] = []
        cells: list[Array] = []
        y: list[Array] = []
        for of_step in self.by_step(gx):
            h, *rest = [state.at(of_step.shape[0]) for state in states]
            gh = xp.matmul(h, weight_hh)
            if bias is not None:
                gh = gh + bias
            (h_after, *rest_after), kept = self.step(of_step, gh, h, *rest)
            before.append(h)
            cells += (h_after, *kept)
            if projection is not None:
                h_after = xp.matmul(h_after, projection)
            y.append(h_after)
            for state, after in zip(states, (h_after, *rest_after), strict=True):
                state.rows = after
        self.before, self.cells = tuple(before), tuple(cells)
        return (self.in_order(y), *(state.all() for state in states))

    def by_step(self, x: Array) -> list[Array]:
        """The rows of each step, in the order of the walk."""
        if isinstance(x, Variable):  # in one node: the gradient of each view is as large as x
            found = list(cut(x, self.sizes, 0))  # type: ignore[arg-type]
        else:
            found = [x[rows] for rows in spans(self.sizes)]
        return found[::-1] if self.reverse else found

    def in_order(self, steps: list[Array]) -> Array:
        """What a walk found for the rows of each step, in the order of rows."""
        return self.xp.concatenate(steps[::-1] if self.reverse else steps, axis=0)

    def backward(self, dy: Array, *dfinal: Array) -> tuple[Array | None, ...]:
        xp = self.xp
        walk = [Running(xp, grad) for grad in dfinal]
        dgx: list[Array] = []
        dgh: list[Array] = []
        dh_after: list[Array] = []
        width, dy_by_step = len(self.cells) // len(self.sizes), self.by_step(dy)
        for k in reversed(range(len(self.sizes))):
            h, cell = self.before[k], self.cells[k * width : (k + 1) * width]
            dh, *drest = [grad.at(h.shape[0]) for grad in walk]
            dh = dh + dy_by_step[k]
            dh_after.append(dh)
            if self.weight_hr is not None:
                dh = xp.matmul(dh, self.weight_hr)
            da, da_h, direct, drest = self.step_grad(dh, drest, h, *cell)
            dgx.append(da)
            dgh.append(da_h)
            dh = xp.matmul(da_h, self.weight_hh)
            for grad, before in zip(
                walk, (dh if direct is None else dh + direct, *drest), strict=True
            ):
                grad.rows = before
        return (*self.grads(dgx, dgh, dh_after), *(grad.all() for grad in walk))

    def grads(
        self, dgx: list[Array], dgh: list[Array], dh_after: list[Array]
    ) -> tuple[Array | None, ...]:
        """The gradients of x, the weights and the biases, each from all steps at once; what comes
        in is in the order of the backward walk.
        """
        xp, needs = self.xp, self.needs
        dx = dweight_ih = dweight_hh = dbias_ih = dbias_hh = dweight_hr = None
        da = da_h = self.in_order(dgx[::-1])
        if self.multiplies_bias:
            da_h = self.in_order(dgh[::-1])
        if needs[0]:
            dx = xp.matmul(da, self.weight_ih)
        if needs[1]:
            dweight_ih = xp.matmul(transposed(xp, da), self.x)
        if needs[2]:
            dweight_hh = xp.matmul(transposed(xp, da_h), self.in_order(list(self.before)))
        if needs[3] or needs[4]:
            dbias_ih = xp.sum(da, axis=0)
            same = da_h is da
            dbias_hh = self.backend.copy(dbias_ih) if same else xp.sum(da_h, axis=0)
        if needs[5]:
            unprojected = self.in_order(list(self.cells[:: len(self.cells) // len(self.sizes)]))
            dweight_hr = xp.matmul(transposed(xp, self.in_order(dh_after[::-1])), unprojected)
        return dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, dweight_hr

    # What a cell defines

    def step(
        self, gx: Array, gh: Array, *states: Array
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The states after a step, and what its gradient needs beside them and h before it."""
        raise NotImplementedError

    def step_grad(
        self, dh: Array, drest: list[Array], h: Array, h_after: Array, *kept: Array
    ) -> tuple[Array, Array, Array | None, list[Array]]:
        """The gradients of gx, of gh, of h on other ways than gh, and of the rest of the states."""
        raise NotImplementedError


class RNNSequence(Recurrence):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with max(·, 0) in its place."""

    def step(
        self, gx: Array, gh: Array, *states: Array
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return (rnn_step(self.backend, gx, gh, self.options["relu"]),), ()

    def step_grad(
        self, dh: Array, drest: list[Array], h: Array, h_after: Array, *kept: Array
    ) -> tuple[Array, Array, Array | None, list[Array]]:
        da = rnn_step_grad(self.backend, dh, h_after, self.options["relu"])
        return da, da, None, drest


class LSTMSequence(Recurrence):
    """The long short-term memory, with the states h and c."""

    def step(
        self, gx: Array, gh: Array, *states: Array
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        _, c = states
        h_after, c_after, gates = lstm_step(self.backend, gx, gh, c)
        return (h_after, c_after), (gates, c, c_after)

    def step_grad(
        self, dh: Array, drest: list[Array], h: Array, h_after: Array, *kept: Array
    ) -> tuple[Array, Array, Array | None, list[Array]]:
        da, dc = lstm_step_grad(self.backend, dh, drest[0], *kept)
        return da, da, None, [dc]


class GRUSequence(Recurrence):
    """The gated recurrent unit, whose reset gate multiplies W_hn h + b_hn."""

    multiplies_bias = True

    def step(
        self, gx: Array, gh: Array, *states: Array
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        h_after, gates = gru_step(self.backend, gx, gh, states[0])
        return (h_after,), (gates,)

    def step_grad(
        self, dh: Array, drest: list[Array], h: Array, h_after: Array, *kept: Array
    ) -> tuple[Array, Array, Array | None, list[Array]]:
        da, da_h, direct = gru_step_grad(self.backend, dh, kept[0], h)
        return da, da_h, direct, drest


@under_autocast
def recurrence(cell: type[Recurrence], *operands: Any, **options: Any) -> Any:
    """The output and the last states of a cell along packed sequences; see `Recurrence.forward`."""
    return cell.apply(*operands, **options)
