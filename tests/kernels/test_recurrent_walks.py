"""Walks through time, on memory taken once, hold to their reference bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.walks import STATISTICS, backward_arguments, forward_arguments
from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops import recurrent_walks
from tinygrad_bn.ops.recurrent_norms import Norm

pytest.importorskip("numba")

from backends.numba_kernels import sequence_plans

NUMPY = get_backend("numpy")


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name: str, *args: Any) -> Any:
    return getattr(recurrent_walks, name).reference(NUMPY, *args)


def assert_alike(found: Any, expected: Any, dtype: Any) -> None:
    """Some roundings a step, of products and norms of numbers around 1; gradients are compared with
    the greatest of theirs.
    """
    digits = 4e-13 if dtype == np.float64 else 4e-4
    assert len(found) == len(expected)
    for k, (y, wanted) in enumerate(zip(found, expected, strict=True)):
        assert (y is None) == (wanted is None), k
        if wanted is not None:
            assert y.dtype == wanted.dtype, k
            assert y.shape == wanted.shape, k
            size = max(1.0, float(np.abs(wanted).max(initial=0)))
            np.testing.assert_allclose(y, wanted, rtol=0, atol=digits * size, err_msg=str(k))


@st.composite
def walks(draw: st.DrawFn) -> dict[str, Any]:
    """A cell with what it can have; steps of two sequences at least, for batch statistics."""
    cell = draw(st.sampled_from(["rnn_tanh", "rnn_relu", "lstm", "gru"]))
    statistics = draw(st.sampled_from(STATISTICS))
    sizes = sorted(draw(st.lists(st.integers(4, 9), min_size=1, max_size=6)), reverse=True)
    plain = statistics == "none"
    return {
        "cell": cell,
        "sizes": sizes,
        "statistics": statistics,
        "joint": statistics != "none" and cell[:3] == "rnn" and draw(st.booleans()),
        "projected": plain and cell == "lstm" and draw(st.booleans()),
        "biased": draw(st.booleans()),
        "reverse": plain and draw(st.booleans()),
        "dtype": draw(st.sampled_from([np.float32, np.float64])),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=50, deadline=None)
@given(walk=walks(), block=st.sampled_from([1, 40, 2**17]))
def test_holds_to_its_body(walk, block):
    """Whether a block has one step, some, or all."""
    args, before = forward_arguments(**walk), sequence_plans.BLOCK
    sequence_plans.BLOCK = block
    try:
        found, expected = kernel("walk_forward", *args), reference("walk_forward", *args)
        assert_alike(found, expected, walk["dtype"])
        args = backward_arguments(args, expected)
        found, expected = kernel("walk_backward", *args), reference("walk_backward", *args)
        assert_alike(found, expected, walk["dtype"])
    finally:
        sequence_plans.BLOCK = before


@pytest.mark.parametrize("missing", range(6))
@pytest.mark.parametrize("statistics", ["none", "batch"])
def test_what_is_not_needed_is_left_out(missing, statistics):
    args = forward_arguments("lstm", (4, 3), statistics=statistics)
    args = backward_arguments(args, kernel("walk_forward", *args), missing)
    found, expected = kernel("walk_backward", *args), reference("walk_backward", *args)
    assert_alike(found, expected, np.float64)
    assert [x is None for x in found[:3]] == [missing == k for k in range(3)]


def test_gradients_may_lie_as_they_like():
    args = forward_arguments("gru", (4, 4, 2))
    good = backward_arguments(args, kernel("walk_forward", *args))
    dy = np.broadcast_to(np.ones(()), good[1].shape)
    args = (good[0], dy, tuple(d.T.copy().T for d in good[2]), *good[3:])
    assert_alike(kernel("walk_backward", *args), reference("walk_backward", *args), np.float64)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_sequence(cell, value):
    """Of four at every step the second: others share neither states nor sums with it."""
    args = forward_arguments(cell, (4, 4, 4), dtype=np.float32)
    args[1][5] = value  # at step 1
    y = kernel("walk_forward", *args)[0].reshape(3, 4, -1)
    assert np.isfinite(np.delete(y, 1, 1)).all()
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1:, 1]).any() or np.isinf(value)
    back = backward_arguments(args, kernel("walk_forward", *args))
    dx = kernel("walk_backward", *back)[0].reshape(3, 4, -1)
    assert np.isfinite(np.delete(dx, 1, 1)).all()


def test_an_offset_costs_no_digits():
    """Against the same in float64: what float32 loses is in x already, which both are given."""
    size, rng = 16, np.random.default_rng(0)
    x = (1e6 + rng.standard_normal((3 * 40, size))).astype(np.float32)
    eye, zero = np.eye(size, dtype=np.float32), np.zeros((size, size), np.float32)
    ones, states = np.ones(size, np.float32), (np.zeros((40, size), np.float32),)
    norms = tuple(
        (Norm(place, (1e-5,) * 3, (), (True,) * 3), ones, None, None, None) for place in "xh"
    )
    args = ("rnn_tanh", x, (eye, zero, None, None, None), states, norms, (40,) * 3, False)
    y = kernel("walk_forward", *args)[0]
    wide = x.astype(np.float64).reshape(3, 40, size)
    centred = wide - wide.mean(1, keepdims=True)
    exact = np.tanh(centred / np.sqrt(wide.var(1, keepdims=True) + 1e-5))
    # products with 1 and 0 are exact, statistics are of float64; then three roundings and a tanh
    np.testing.assert_allclose(y.reshape(3, 40, size), exact, rtol=0, atol=1e-6)


def test_constant_channels_give_exactly_their_biases():
    args = forward_arguments("rnn_tanh", (6, 6), statistics="batch", dtype=np.float32)
    cell, x, weights, states, *rest = args
    x, states = np.full_like(x, 0.7), tuple(np.full_like(s, -0.3) for s in states)
    y = kernel("walk_forward", cell, x, weights, states, *rest)[0]
    expected = np.tanh((weights[2] + weights[3]).astype(np.float64))
    np.testing.assert_allclose(y, np.tile(expected, (12, 1)), atol=2e-7)
    assert len(np.unique(y, axis=0)) == 1


def fortran(x: Any) -> Any:
    return np.asfortranarray(x)


@pytest.mark.parametrize(
    ("position", "change"),
    [
        (1, lambda x: x.astype(np.float16)),
        (1, lambda x: x.astype(np.float64)),
        (1, fortran),
        (2, lambda w: (fortran(w[0]), *w[1:])),
        (2, lambda w: (*w[:2], w[2].astype(np.float64), *w[3:])),
        (3, lambda s: tuple(map(fortran, s))),
        (5, lambda sizes: (*sizes[:-1], 0)),
    ],
    ids=["float16", "another_dtype", "columns", "weight", "bias", "state", "no_rows"],
)
def test_goes_to_the_reference(position, change):
    args = list(forward_arguments("lstm", (4, 4, 2), dtype=np.float32))
    found = NUMPY.kernels.get("walk_forward")
    assert found is not None
    assert found.accepts(*args)
    args[position] = change(args[position])
    assert not found.accepts(*args)
