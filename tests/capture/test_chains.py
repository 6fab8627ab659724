"""Chains run loops a block at a time: nothing may come out otherwise than one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg

pytest.importorskip("numba")
threaded_code = pytest.importorskip("tinygrad_bn.backends.threaded_code")
chains = pytest.importorskip("tinygrad_bn.backends.threaded_code.chains")

N = 5000
UFUNCS = {1: [np.negative, np.sqrt, np.exp], 2: [np.add, np.multiply, np.maximum]}


def one_by_one(calls: Any, inputs: Any) -> None:
    assert threaded_code.Code(calls, inputs).run(tuple(inputs)) == threaded_code.Code.FINISHED


def chain_lengths(calls: Any, inputs: Any, own: Any) -> list[int]:
    firsts = [first for _, first in threaded_code.chained(calls, inputs, own)]
    return [b - a for a, b in zip(firsts, [*firsts[1:], len(calls)], strict=True)]


def compare(steps: Any, own: Any, inputs: Any, outside: Any = ()) -> list[int]:
    """Run steps (ufunc, operands, out) both ways; how many each call then holds."""
    calls = [c for f, args, out in steps for c in threaded_code.machine_code(f, (*args, out))]
    places = (own, *outside)
    before = [x.copy() for x in places]
    with np.errstate(all="ignore"):
        one_by_one(calls, inputs)
        wanted = [x.tobytes() for x in places]
        for x, values in zip(places, before, strict=True):
            x[...] = values
        one_by_one([call for call, _ in threaded_code.chained(calls, inputs, own)], inputs)
    assert [x.tobytes() for x in places] == wanted
    return chain_lengths(calls, inputs, own)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_places_may_overlap_as_they_do_in_an_arena(data: Any) -> None:
    """Results in the same place, beside each other, or across each other; of one dtype or two."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    own = rng.standard_normal(6 * N).astype("f4")
    given_array = rng.standard_normal(N).astype("f4")
    offsets = st.sampled_from([0, 2, N // 2, N, 2 * N, 2 * N + 16])

    def place() -> Any:
        start = data.draw(offsets)
        if data.draw(st.booleans()):
            return own[start : start + N]
        return own[start : start + 2 * N].view("f8") if data.draw(st.booleans()) else given_array

    steps = []
    for _ in range(data.draw(st.integers(2, 6))):
        count = data.draw(st.sampled_from([1, 2]))
        ufunc = data.draw(st.sampled_from(UFUNCS[count]))
        out = place()
        if out is given_array:
            out = own[:N]
        args = [place() for _ in range(count)]
        args = [x if x.dtype == out.dtype else out.dtype.type(1.5) for x in args]
        if not any(isinstance(x, np.ndarray) for x in args):
            args[0] = out
        if all(x is out or not np.shares_memory(x, out) for x in args if isinstance(x, np.ndarray)):
            steps.append((ufunc, [float(x) if x.shape == () else x for x in args], out))
    if steps:
        compare(steps, own, [given_array])


def test_what_follows_from_itself_is_one_chain() -> None:
    own, x = np.zeros((2, N), "f4"), np.linspace(-1, 1, N, dtype="f4")
    steps = [
        (np.exp, [x], own[0]),
        (np.multiply, [own[0], x], own[1]),
        (np.add, [own[1], 1.0], own[0]),
    ]
    assert compare(steps, own, [x]) == [3]


def test_few_elements_stay_single_calls() -> None:
    n = chains.BLOCK
    own, x = np.zeros((2, n), "f4"), np.ones(n, "f4")
    assert compare([(np.exp, [x], own[0]), (np.exp, [x], own[1])], own, [x]) == [1, 1]


def test_another_length_and_another_kind_of_call_end_a_chain() -> None:
    own, x = np.zeros((4, N), "f4"), np.ones(N, "f4")
    steps = [
        (np.exp, [x], own[0]),
        (np.negative, [own[0]], own[1]),
        (np.exp, [x[:-1]], own[2, :-1]),
        (np.matmul, [own[:2].reshape(4, -1), own[:2].reshape(-1, 4)], np.zeros((4, 4), "f4")),
        (np.exp, [x], own[3]),
    ]
    assert compare(steps, own, []) == [2, 1, 1, 1]


def test_a_result_across_an_operand_ends_a_chain() -> None:
    own = np.arange(2 * N, dtype="f4")
    first, across = own[:N], own[N - 2 : 2 * N - 2]
    out = np.zeros(N, "f4")
    assert compare([(np.negative, [across], out), (np.sqrt, [out], first)], own, [], [out]) == [
        1,
        1,
    ]


def test_what_is_given_may_lie_where_state_is_written() -> None:
    """So these are taken one after the other: state, which is nobody's own, and an input."""
    own, x, state = np.zeros(N, "f4"), np.ones(N, "f4"), np.zeros(N + 1, "f4")
    steps = [(np.negative, [x], own), (np.add, [own, 1.0], state[1:])]
    assert compare(steps, own, [x], [state]) == [1, 1]
    assert compare(steps, own, [], [state]) == [2]


def test_a_step_of_many_operations_has_eagers_bits() -> None:
    w = tg.nn.Parameter(tg.ones(7))

    def step(x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        w.grad = None
        y = (x * tg.sigmoid(x * 1.7) + 0.1 * tg.tanh(x) * x - x * x * 0.01) * w
        loss = (y * y).mean()
        loss.backward()
        return loss.detach(), w.grad

    compiled = tg.compile(step)
    for seed in range(3):
        tg.manual_seed(seed)
        x = tg.randn(1001, 7)
        for got, wanted in zip(compiled(x), step(x), strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    assert "by Python" not in str(compiled.program)
