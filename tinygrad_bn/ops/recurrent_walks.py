"""A recurrent layer in one direction over whole sequences, and its gradient, as kernel points.

Sequences come packed (`packing.py`), so that nothing is computed for padding and nothing is masked.
Sequences of one length are T steps of N rows. In reverse they begin at their last step.

The forward walk keeps states and gates, and the backward walk is backpropagation through time. Both
are written once for all cells and norms. What does not depend on the state, the products with
inputs and all gradients of weights, is one matrix product for all steps.

References
----------
Werbos 1990, "Backpropagation through time: what it does and how to do it".
Sak, Senior and Beaufays 2014, arXiv:1402.1128, for the recurrent projection of h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from tinygrad_bn.backend import Array, Backend, kernel_point
from tinygrad_bn.ops.linear import transposed
from tinygrad_bn.ops.packing import Running, by_step, in_order, states_before
from tinygrad_bn.ops.recurrent_cells import CELLS, Cell
from tinygrad_bn.ops.recurrent_norms import NormArrays, NormInWalk, in_walk

Weights: TypeAlias = tuple[Array, Array, Array | None, Array | None, Array | None]
"""W_ih, W_hh, b_ih, b_hh, and W_hr where h is projected."""


class Products:
    """The products of a step as they enter the cell: normalised where there are norms, and with
    their biases.
    """

    def __init__(self, xp: Any, cell: Cell, weights: Weights, norms: dict[str, NormInWalk]) -> None:
        self.xp = xp
        self.bias_ih: Array = weights[2]  # or None, and then both are
        self.bias_hh: Array = weights[3]
        self.of_x, self.of_h = norms.get("x"), norms.get("h")
        self.of_sum = norms.get("sum")
        self.kept = 1 if self.of_sum is not None else 0 if self.of_x is None else 2
        """How many arrays are kept as they were before their norms."""
        together = self.of_sum is not None or (self.of_x is None and cell.adds_products)
        if together and self.bias_ih is not None:  # once, and not to as many rows as there are
            self.bias_ih, self.bias_hh = None, self.bias_ih + self.bias_hh

    def forward(self, step: int, gx: Array, gh: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        """ax, ah and, where they are normalised, what they were before."""
        if self.of_sum is not None:
            both = gx + gh
            a = self.of_sum.forward(step, both, self.bias_hh)
            return a, self.xp.zeros_like(a), (both,)
        if self.of_x is not None and self.of_h is not None:
            ax = self.of_x.forward(step, gx, self.bias_ih)
            return ax, self.of_h.forward(step, gh, self.bias_hh), (gx, gh)
        ax = gx if self.bias_ih is None else gx + self.bias_ih
        return ax, gh if self.bias_hh is None else gh + self.bias_hh, ()

    def backward(
        self, step: int, dax: Array, dah: Array, before: Sequence[Array]
    ) -> tuple[Array, Array]:
        """The gradients of the products from those of ax and ah."""
        if self.of_sum is not None:
            both = self.of_sum.backward(step, dax, before[0])
            return both, both
        if self.of_x is not None and self.of_h is not None:
            dgx = self.of_x.backward(step, dax, before[0])
            return dgx, self.of_h.backward(step, dah, before[1])
        return dax, dah


@kernel_point
def walk_forward(
    backend: Backend,
    cell: str,
    x: Array,
    weights: Weights,
    states: tuple[Array, ...],
    norms: tuple[NormArrays, ...],
    sizes: tuple[int, ...],
    reverse: bool,
) -> tuple[Array, ...]:
    """The output (R, P), the last states, and what is kept for the gradient: mean and variance of
    each norm, and arrays with a row for each of x.
    """
    xp, found, weight_hr = backend.xp, in_walk(backend, norms), weights[4]
    body = CELLS[cell](backend, found.get("c"))
    products = Products(xp, body, weights, found)
    weight_hh = transposed(xp, weights[1])
    if len(sizes) > 1:  # the copy is paid for by the products that it makes faster
        weight_hh = xp.contiguous(weight_hh)
    walk = [Running(xp, state) for state in states]
    y: list[Array] = []
    kept: list[tuple[Array, ...]] = []
    gx = xp.matmul(x, transposed(xp, weights[0]))
    for step, of_step in enumerate(by_step(gx, sizes, reverse)):
        h, *rest = (state.at(of_step.shape[0]) for state in walk)
        ax, ah, before = products.forward(step, of_step, xp.matmul(h, weight_hh))
        after, of_cell = body.step(step, ax, ah, h, *rest)
        if weight_hr is not None:
            of_cell = (*of_cell, after[0])
            after = (xp.matmul(after[0], transposed(xp, weight_hr)), *after[1:])
        kept.append((*before, *of_cell))
        y.append(after[0])
        for state, rows in zip(walk, after, strict=True):
            state.rows = rows
    statistics = [values for norm in found.values() for values in norm.statistics()]
    columns = [in_order(xp, steps, reverse) for steps in zip(*kept, strict=True)]
    return (in_order(xp, y, reverse), *(state.all() for state in walk), *statistics, *columns)


@kernel_point
def walk_backward(
    backend: Backend,
    cell: str,
    dy: Array,
    dstates: tuple[Array, ...],
    x: Array,
    weights: Weights,
    states: tuple[Array, ...],
    norms: tuple[NormArrays, ...],
    y: Array,
    kept: tuple[Array, ...],
    sizes: tuple[int, ...],
    reverse: bool,
    needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:
    """The gradients of x, of the weights as far as they are needed, of the first states, and of γ
    and β of each norm.
    """
    xp, found, weight_hr = backend.xp, in_walk(backend, norms), weights[4]
    for k, norm in enumerate(found.values()):
        norm.resume(*(by_norm(x, sizes, norm) for x in kept[2 * k : 2 * k + 2]))
    body = CELLS[cell](backend, found.get("c"))
    products = Products(xp, body, weights, found)
    of_rows = kept[2 * len(found) :]
    steps = recalled(xp, products.kept, states, dy, y, of_rows, sizes, reverse)
    walk = [Running(xp, grad) for grad in dstates]
    grads: list[tuple[Array, ...]] = []
    for step in reversed(range(len(sizes))):
        known = steps[step]
        dh, *drest = (grad.at(known.dy.shape[0]) for grad in walk)
        dh_after = dh = dh + known.dy
        if weight_hr is not None:
            dh = xp.matmul(dh, weight_hr)
        dax, dah, direct, drest = body.grad(
            step, dh, drest, known.before, known.h_after, known.of_cell
        )
        dgx, dgh = products.backward(step, dax, dah, known.raw)
        grads.append((dax, dah, dgx, dgh) if weight_hr is None else (dax, dah, dgx, dgh, dh_after))
        dh = xp.matmul(dgh, weights[1])
        for grad, rows in zip(walk, (dh if direct is None else dh + direct, *drest), strict=True):
            grad.rows = rows
    h_before = in_order(xp, [known.before[0] for known in steps], reverse)
    unprojected = None if weight_hr is None else kept[-1]
    of_weights = weight_grads(
        backend, joined(xp, grads[::-1], reverse), x, weights[0], h_before, unprojected, needs
    )
    of_norms = (grad for norm in found.values() for grad in norm.grads())
    return (*of_weights, *(grad.all() for grad in walk), *of_norms)


class Step(NamedTuple):
    """What the gradient of a step needs: the gradient of its output, h' as it came out, the states
    before it, the products before they were normalised, and what the cell kept.
    """

    dy: Array
    h_after: Array
    before: tuple[Array, ...]
    raw: tuple[Array, ...]
    of_cell: tuple[Array, ...]


def recalled(
    xp: Any,
    raw: int,
    states: tuple[Array, ...],
    dy: Array,
    y: Array,
    kept: tuple[Array, ...],
    sizes: tuple[int, ...],
    reverse: bool,
) -> list[Step]:
    """The steps of a walk; ``raw`` of the arrays kept are products, and the second one behind them
    is the second state, if there is one.
    """
    dy_by_step, after = by_step(dy, sizes, reverse), by_step(y, sizes, reverse)
    columns = [by_step(rows, sizes, reverse) for rows in kept]
    before = [states_before(xp, states[0], after)]
    if len(states) > 1:
        before.append(states_before(xp, states[1], columns[raw + 1]))
    steps = []
    for k in range(len(sizes)):
        of_step = tuple(column[k] for column in columns)
        known = tuple(state[k] for state in before)
        steps.append(Step(dy_by_step[k], after[k], known, of_step[:raw], of_step[raw:]))
    return steps


def by_norm(x: Array, sizes: Sequence[int], norm: NormInWalk) -> list[Array]:
    """Statistics for each step: of batch norm (C,), of layer norm those of the step's rows."""
    if not norm.of_rows:
        return [row[0] for row in by_step(x, (1,) * len(sizes))]
    return by_step(x, sizes)


def weight_grads(
    backend: Backend,
    grads: list[Array],
    x: Array,
    weight_ih: Array,
    h_before: Array,
    unprojected: Array | None,
    needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:
    """The gradients of x, the weights and the biases, each from all steps at once, from those of
    ax, ah, gx, gh and, where it is projected, h'.
    """
    xp = backend.xp
    dx = dweight_ih = dweight_hh = dbias_ih = dbias_hh = dweight_hr = None
    dax, dah, dgx, dgh, *dh_after = grads
    if needs[0]:
        dx = xp.matmul(dgx, weight_ih)
    if needs[1]:
        dweight_ih = xp.matmul(transposed(xp, dgx), x)
    if needs[2]:
        dweight_hh = xp.matmul(transposed(xp, dgh), h_before)
    if needs[3] or needs[4]:
        dbias_ih = xp.sum(dax, axis=0)
        dbias_hh = backend.copy(dbias_ih) if dah is dax else xp.sum(dah, axis=0)
    if unprojected is not None and needs[5]:
        dweight_hr = xp.matmul(transposed(xp, dh_after[0]), unprojected)
    return dx, dweight_ih, dweight_hh, dbias_ih, dbias_hh, dweight_hr


def joined(xp: Any, grads: list[tuple[Array, ...]], reverse: bool) -> list[Array]:
    """The columns of what a walk found, each in the order of rows; columns of the same arrays are
    the same.
    """
    known: dict[int, Array] = {}
    found = []
    for steps in zip(*grads, strict=True):
        key = id(steps[0])
        if key not in known:
            known[key] = in_order(xp, steps, reverse)
        found.append(known[key])
    return found
