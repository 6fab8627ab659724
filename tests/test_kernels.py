"""Every kernel against the reference body that defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.backend import KERNEL_POINTS, Kernel, get_backend
from tinygrad_bn.ops import moments

pytest.importorskip("numba")
families = pytest.importorskip("tinygrad_bn.backends.numba_kernels")

NUMPY = get_backend("numpy")

cases = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 2, 3, 63, 64, 65, 131]),
        "channels": st.sampled_from([1, 2, 7, 16, 33]),
        "offset": st.sampled_from([0.0, 1e-6, 1.0, -1e4, 1e6]),
        "scale": st.sampled_from([1e-30, 1e-2, 1.0, 1e30]),
        "affine": st.booleans(),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "seed": st.integers(0, 99),
    }
)


def batch(n, channels, offset, scale, affine, dtype, seed):
    """x, dy, weight and bias; the offset is in units of the scale."""
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((n, channels, 1)) + offset) * scale).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    weight, bias = rng.standard_normal((2, channels)).astype(dtype)
    return x, dy, *((weight, bias) if affine else (None, None))


def test_every_kernel_has_its_kernel_point():
    assert set(families.FAMILIES) <= set(KERNEL_POINTS)
    for name in families.FAMILIES:
        assert NUMPY.kernels.get(name) is not None


def test_a_kernel_point_without_a_kernel_has_none():
    assert NUMPY.kernels.get("row_moments") is None


@settings(max_examples=150, deadline=None)
@given(case=cases)
def test_batch_norm(case):
    """Rounding of the result's dtype is all that may differ: the statistics are float64 in both."""
    x, dy, weight, bias = batch(**case)
    tolerance = 4 * np.finfo(case["dtype"]).eps
    kernel = {name: NUMPY.kernels.get(name).run for name in families.FAMILIES}
    mean, var = moments.batch_moments.reference(NUMPY, x, None)
    spread = np.sqrt(var) + 1e-300
    fast_mean, fast_var = kernel["batch_moments"](x, None)
    # float64 sums of some hundred numbers, whose order differs: their rounding is an offset's 1e-16
    assert np.all(np.abs(fast_mean - mean) <= 1e-13 * (np.abs(mean) + spread))
    assert np.all(np.abs(fast_var - var) <= 1e-12 * var + 1e-25 * mean**2)
    rstd = 1 / np.sqrt(var + 1e-5)
    y = moments.batch_normalize.reference(NUMPY, x, mean, rstd, weight, bias)
    fast = kernel["batch_normalize"](x, mean, rstd, weight, bias)
    assert fast.dtype == y.dtype
    assert np.max(np.abs(fast - y)) <= tolerance * (1 + np.max(np.abs(y)))
    sums = moments.batch_grad_sums.reference(NUMPY, dy, x, mean, rstd, None)
    size = np.sum(np.abs(dy), axis=(0, 2)) * (1 + np.max(np.abs(x - mean[:, None]) * rstd[:, None]))
    for a, b in zip(kernel["batch_grad_sums"](dy, x, mean, rstd, None), sums, strict=True):
        assert np.all(np.abs(a - b) <= 1e-12 * size)
    means = [s / case["n"] for s in sums]
    dx = moments.batch_grad_input.reference(NUMPY, dy, x, mean, rstd, weight, *means, None)
    fast = kernel["batch_grad_input"](dy, x, mean, rstd, weight, *means, None)
    scale = np.max(np.abs(rstd if weight is None else rstd * weight)) * 10
    assert np.max(np.abs(fast - dx)) <= tolerance * scale


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_batch_norm_keeps_what_is_not_finite_in_its_channel(value):
    x = np.random.default_rng(0).standard_normal((70, 3, 1)).astype(np.float32)
    x[40, 1] = value
    mean, var = NUMPY.kernels.get("batch_moments").run(x, None)
    assert np.isfinite(mean[[0, 2]]).all()
    assert np.isfinite(var[[0, 2]]).all()
    assert np.isnan(var[1])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 3, 1), np.float16),
        np.zeros((4, 3, 2), np.float32),
        np.zeros((0, 3, 1), np.float32),
        np.zeros((3, 4, 1), np.float32).transpose(1, 0, 2),
    ],
    ids=["float16", "positions", "empty", "strided"],
)
def test_what_a_kernel_does_not_take_goes_to_the_reference(x):
    assert not NUMPY.kernels.get("batch_moments").accepts(x, None)


def test_reference_kernels_switches_kernels_off(monkeypatch):
    calls = []
    kernel = NUMPY.kernels.get("batch_moments")
    spy = type(kernel)(lambda *args: calls.append(1) or kernel.run(*args), kernel.accepts)
    monkeypatch.setitem(NUMPY.kernels, "batch_moments", spy)
    x = tg.randn(8, 3)
    norm = tg.nn.functional.batch_norm
    fast = norm(x, None, None, training=True)
    with tg.reference_kernels():
        slow = norm(x, None, None, training=True)
    assert calls == [1]
    np.testing.assert_allclose(fast.numpy(), slow.numpy(), atol=5e-7)  # float32's rounding at 4


@pytest.mark.parametrize("wrapped", [0, 2])
def test_ctrl_c_inside_of_a_kernel_is_ctrl_c(wrapped, monkeypatch):
    """Numba hands results over in Python, where a signal turns into its SystemError."""

    def run(*args, **kwargs):
        error = KeyboardInterrupt()
        for _ in range(wrapped):
            try:
                raise SystemError("returned a result with an exception set") from error
            except SystemError as outer:
                error = outer
        raise error

    monkeypatch.setitem(NUMPY.kernels, "batch_moments", Kernel(run, lambda *args: True))
    with pytest.raises(KeyboardInterrupt):
        moments.batch_moments(NUMPY, np.ones((4, 2, 1)), None)


def test_another_error_of_a_kernel_stays_itself(monkeypatch):
    def run(*args, **kwargs):
        raise SystemError("own")

    monkeypatch.setitem(NUMPY.kernels, "batch_moments", Kernel(run, lambda *args: True))
    with pytest.raises(SystemError, match="own"):
        moments.batch_moments(NUMPY, np.ones((4, 2, 1)), None)
