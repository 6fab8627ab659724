"""The steps of recurrent cells hold to their reference bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops import recurrent_steps

pytest.importorskip("numba")

from backends.numba_kernels.compilation import compiled
from backends.numba_kernels.gate_math import sigmoid, tanh

NUMPY = get_backend("numpy")
FLOATS = [np.float32, np.float64]


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name: str, *args: Any) -> Any:
    return getattr(recurrent_steps, name).reference(NUMPY, *args)


def assert_alike(name: str, *args: Any) -> Any:
    """A few roundings of the greatest number that is on the way."""
    found, expected = kernel(name, *args), reference(name, *args)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    size = max(1.0, *(float(np.abs(x).max()) for x in args if isinstance(x, np.ndarray)))
    for y, wanted in zip(found, expected, strict=True):
        assert y.dtype == wanted.dtype == args[0].dtype
        assert y.flags.c_contiguous
        np.testing.assert_allclose(y, wanted, rtol=0, atol=16 * np.finfo(y.dtype).eps * size)
    return expected


shapes = st.tuples(st.sampled_from([1, 2, 7, 65]), st.sampled_from([1, 3, 16, 33, 100]))
steps = st.fixed_dictionaries(
    {
        "shape": shapes,
        "dtype": st.sampled_from(FLOATS),
        "scale": st.sampled_from([1e-6, 1.0, 30.0]),
        "seed": st.integers(0, 99),
    }
)


def drawn(step: Any, *widths: int) -> list[Any]:
    """Normal numbers (N, k H) for each of the widths k."""
    rng, (n, size) = np.random.default_rng(step["seed"]), step["shape"]
    scale, dtype = step["scale"], step["dtype"]
    return [(scale * rng.standard_normal((n, k * size))).astype(dtype) for k in widths]


@settings(max_examples=40, deadline=None)
@given(step=steps, relu=st.booleans())
def test_rnn(step, relu):
    gx, gh, dh = drawn(step, 1, 1, 1)
    h = assert_alike("rnn_step", gx, gh, relu)[0]
    assert_alike("rnn_step_grad", dh, h, relu)


@settings(max_examples=40, deadline=None)
@given(step=steps)
def test_lstm(step):
    gx, gh, c, dh, dc = drawn(step, 4, 4, 1, 1, 1)
    _, c_after, gates = assert_alike("lstm_step", gx, gh, c)
    assert_alike("lstm_step_grad", dh, dc, gates, c, c_after)


@settings(max_examples=40, deadline=None)
@given(step=steps)
def test_gru(step):
    gx, gh, h, dh = drawn(step, 3, 3, 1, 1)
    _, gates = assert_alike("gru_step", gx, gh, h)
    assert_alike("gru_step_grad", dh, gates, h)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_element(value):
    for name, width in (("rnn_step", 1), ("lstm_step", 4), ("gru_step", 3)):
        gx, gh = np.ones((2, 5, width * 20), np.float32)
        state = np.ones((5, 20), np.float32)
        gx[2, 7] = value
        args = (gx, gh, False) if name == "rnn_step" else (gx, gh, state)
        found, expected = kernel(name, *args), reference(name, *args)
        pairs = [(found, expected)] if width == 1 else zip(found, expected, strict=True)
        for y, wanted in pairs:
            np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
            assert np.isfinite(np.delete(y, 2, 0)).all()
    assert np.isnan(kernel("rnn_step", np.full((1, 9), np.nan), np.ones((1, 9)), True)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_the_gates_are_right_to_a_few_ulp(name, dtype):
    function = {"sigmoid": sigmoid, "tanh": tanh}[name]

    @compiled
    def run(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    small = 10.0 ** np.linspace(-37, 0, 1000)
    x = np.concatenate([np.linspace(-80, 80, 20001), np.linspace(-0.6, 0.6, 20001), small, -small])
    x = np.concatenate([x, [np.inf, -np.inf, 0.0]]).astype(dtype)
    y, wide = np.empty_like(x), x.astype(np.longdouble)
    run(x, y)
    exact = np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))
    ulp = np.spacing(np.abs(exact).astype(dtype)).astype(np.longdouble)
    assert np.max(np.abs(y - exact) / ulp) < 3  # exp's 1.1, and four roundings
    run(np.full_like(x, np.nan), y)
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float16),
        lambda x: x[:0],
        lambda x: x[:, ::-1],
        lambda x: np.asfortranarray(x),
    ],
    ids=["float16", "no_row", "backwards", "columns"],
)
def test_goes_to_the_reference(change):
    good = np.ones((3, 4), np.float32)
    found = NUMPY.kernels.get("rnn_step")
    assert found is not None
    assert found.accepts(good, good, True)
    assert not found.accepts(change(good), good, True)
    assert not found.accepts(change(good), change(good), True)
    assert not found.accepts(good, good.astype(np.float64), True)
