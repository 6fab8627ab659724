"""Walks through time: NumPy's matrix products and, between them, compiled steps, on memory that is
taken once for a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from ..products import multiply
from .batch_norm import FLOATS
from .calling import Call
from .sequence_plans import Backward, Forward, Plan, Running, states_before
from .sequence_products import Products, WeightGrads


def memory_forward(given: Forward) -> tuple[Array, ...]:
    """Where `fill_forward` leaves its results."""
    x, states = given.x, given.states
    y = np.empty((len(x), states[0].shape[1]), x.dtype)
    return (y, *(np.empty(state.shape, x.dtype) for state in states), *Plan(given).kept())


def fill_forward(outs: Sequence[Array], *args: Any) -> None:
    """The walk forward."""
    given = Forward(*args)
    plan, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr) = Plan(given), given.weights
    y, final, kept = outs[0], outs[1 : 1 + plan.kind.states], outs[1 + plan.kind.states :]
    found, raw, body = plan.found(kept)
    for norm in found.values():
        norm.begin()
    products = Products(plan, found, raw)
    if bias_ih is not None:
        products.add(bias_ih, bias_hh, body)
    weight_ih, weight_hh = (np.ascontiguousarray(w.T) for w in (weight_ih, weight_hh))
    unprojected = y if weight_hr is None else kept[-1]
    running = [Running(*pair) for pair in zip(given.states, final, strict=True)]
    for block in plan.blocks:
        gx = multiply(given.x[block.rows], weight_ih, out=products.of_block(block.rows))
        for at in block.steps:
            before = [state.at(at.n) for state in running]
            gh = multiply(before[0], weight_hh, out=products.of_step(at))
            ax, ah = products.forward(at, gx[at.inside], gh)
            h = unprojected[at.rows]
            rest = body.step(at, ax, ah, before, h)
            if weight_hr is not None:
                h = multiply(h, weight_hr.T, out=y[at.rows])
            for state, rows in zip(running, (h, *rest), strict=True):
                state.rows = rows
    for state in running:
        state.end()


def memory_backward(given: Backward) -> tuple[Array | None, ...]:
    """Where `fill_backward` leaves its results; None for what is not needed."""
    needs, dtype = given.needs, given.x.dtype
    wanted = (*needs[:3], *[needs[3] or needs[4]] * 2, needs[5])
    found: list[Array | None] = [
        np.empty(like.shape, dtype) if needed and like is not None else None
        for like, needed in zip((given.x, *given.weights), wanted, strict=True)
    ]
    found += [np.empty(state.shape, dtype) for state in given.states]
    for _, weight, bias, *_ in given.norms:
        found += [np.empty(len(weight)), None if bias is None else np.empty(len(weight))]
    return tuple(found)


def fill_backward(outs: Sequence[Any], *args: Any) -> None:
    """The walk back."""
    given = Backward(*args)
    plan, states = Plan(given), given.states
    _, weight_hh, _, _, weight_hr = given.weights
    found, raw, body = plan.found(given.kept)
    for norm in found.values():
        norm.resume()
    products, grads = Products(plan, found, raw), WeightGrads(plan, outs[:6], given)
    now = outs[6 : 6 + len(states)]
    for grad, last in zip(now, given.dstates, strict=True):
        np.copyto(grad, last)
    before = [states_before(states[0], given.y, plan.blocks)]
    if len(states) > 1:
        before.append(states_before(states[1], body.kept[1], plan.blocks))
    of_h = np.empty((plan.count, plan.size), plan.dtype)
    for block in reversed(plan.blocks):
        for at in reversed(block.steps):
            known, running = [rows[at.step] for rows in before], [grad[: at.n] for grad in now]
            dh = np.add(running[0], given.dy[at.rows], out=running[0])
            np.copyto(grads.h_before[at.inside], known[0])
            if weight_hr is not None:
                np.copyto(grads.dh[at.inside], dh)
                dh = multiply(dh, weight_hr, out=of_h[: at.n])
            dgx, dgh = grads.dgx[at.inside], grads.dgh[at.inside]
            dax, dah = products.places(dgx, dgh)
            body.grad(at, dh, running, known, given.y[at.rows], dax, dah)
            products.backward(at, dax, dah if body.splits else dax, dgx, dgh)
            multiply(dgh, weight_hh, out=running[0])
            if body.splits:
                np.add(running[0], body.direct[: at.n], out=running[0])
        grads.take_in(block.rows)
    grads.leave()
    grads.leave()
    leave_norms(outs, found, len(states))


def leave_norms(outs: Sequence[Any], norms: dict[str, Any], states: int) -> None:
    """The gradients of γ and β of each norm, and of biases that stand behind norms."""
    of_norms = outs[6 + states :]
    for k, norm in enumerate(norms.values()):
        total, product = norm.sums
        np.copyto(of_norms[2 * k], product)
        if of_norms[2 * k + 1] is not None:
            np.copyto(of_norms[2 * k + 1], total)
    if norms and outs[3] is not None:
        for out, place in zip(outs[3:5], ("x", "h"), strict=True):
            norm = norms["sum"] if "sum" in norms else norms[place]
            np.copyto(out, norm.sums[0], casting="same_kind")


def is_ready(given: Forward | Backward) -> bool:
    """Arrays of float32 or of float64, all in C order, with values in every step; gradients may lie
    as they like.
    """
    x, parameters = given.x, tuple((weight, bias) for _, weight, bias, *_ in given.norms)
    if x.dtype not in FLOATS or not x.size or min(given.sizes) < 1:
        return False
    arrays = arrays_in((x, given.weights, given.states, parameters))
    return all(v.dtype == x.dtype and v.flags.c_contiguous for v in arrays)


def accepts_forward(*args: Any) -> bool:
    return is_ready(Forward(*args))


def accepts_backward(*args: Any) -> bool:
    return is_ready(Backward(*args))


def walk_forward(*args: Any) -> tuple[Array, ...]:
    outs = memory_forward(Forward(*args))
    fill_forward(outs, *args)
    return outs


def into_forward(outs: tuple[Array, ...], *args: Any) -> Call:
    return OnLeaves(fill_forward, (outs, *args)), arrays_in((outs, *args))


def walk_backward(*args: Any) -> tuple[Array | None, ...]:
    outs = memory_backward(Backward(*args))
    fill_backward(outs, *args)
    return outs


def into_backward(outs: tuple[Array, ...], *args: Any) -> Call:
    made = iter([out for out in outs if out is not None])
    wanted = memory_backward(Backward(*args))
    places = tuple(None if like is None else next(made) for like in wanted)
    return OnLeaves(fill_backward, (places, *args)), arrays_in((places, *args))


class OnLeaves:
    """A function of trees of tuples, as one of the arrays in them: they are in plain sight of who
    calls it with others in their places.
    """

    def __init__(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args

    def __call__(self, *arrays: Array) -> None:
        self.function(*with_arrays(self.args, iter(arrays)))


def arrays_in(tree: tuple[Any, ...]) -> tuple[Array, ...]:
    """The arrays in a tree of tuples, from the left."""
    found: list[Array] = []
    for part in tree:
        if type(part) is tuple:
            found += arrays_in(part)
        elif isinstance(part, np.ndarray):
            found.append(part)
    return tuple(found)


def with_arrays(tree: tuple[Any, ...], given: Iterator[Array]) -> tuple[Any, ...]:
    """The tree with other arrays in the places of its own."""
    parts: list[Any] = []
    for part in tree:
        if type(part) is tuple:
            part = with_arrays(part, given)
        elif isinstance(part, np.ndarray):
            part = next(given)
        parts.append(part)
    return tuple(parts)


KERNELS = {
    "walk_forward": Kernel(walk_forward, accepts_forward, into_forward),
    "walk_backward": Kernel(walk_backward, accepts_backward, into_backward),
}
