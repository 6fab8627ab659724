"""The kernels of activations against the bodies that define them, computed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.kernels.curves import CURVES
from tinygrad_bn import curves
from tinygrad_bn.backend import Kernel, get_backend

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
OTHERS = [curves.Hardtanh(-1, 1), curves.Hardswish(), curves.Softshrink(0.5), curves.Softsign()]


def kernel_of(name: str) -> Kernel:
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    return kernel


def numbers(n: int, dtype: Any, seed: int) -> tuple[Any, Any]:
    """Of all sizes that activations meet, and where formulas change over."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * rng.choice([1e-6, 0.1, 1, 5, 30], n)
    odd = [0.0, -0.0, 1.5, -1.5, 10, -10, 20, -20, 40, -40, 87.5, -87.5, 1e30, -1e30]
    places = rng.random(n) < 0.1
    x[places] = rng.choice(odd, places.sum())
    return x.astype(dtype), rng.standard_normal(n).astype(dtype)


def reference(point: Any, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return point.reference(NUMPY, *args)


@pytest.mark.parametrize("curve", CURVES, ids=str)
@settings(max_examples=20, deadline=None)
@given(
    n=st.sampled_from([0, 1, 7, 64, 1001]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_gives_the_values_of_the_reference(curve: Any, n: int, dtype: Any, seed: int) -> None:
    x, dy = numbers(n, dtype, seed)
    wide, eps = x.astype(np.float64), np.finfo(dtype).eps
    # values lie within max(|x|, 1), slopes are of size 1: roundings of that size are unavoidable in
    # 1 + t and x s; ten of them, and for GELU's tanh 3 x² = 300 times what its argument is rounded
    size = np.maximum(np.minimum(np.abs(x), 40), 1)
    bound = eps * (60 if isinstance(curve, curves.GeluTanh) else 10)
    y = kernel_of("curve_value").run(x, curve)
    dx = kernel_of("curve_grad").run(dy, x, curve)
    assert y.dtype == dx.dtype == dtype
    wanted = reference(curves.curve_value, wide, curve)
    assert np.all(np.abs(y - wanted) <= bound * np.maximum(size, np.abs(wanted)))
    wanted = reference(curves.curve_grad, dy.astype(np.float64), wide, curve)
    assert np.all(np.abs(dx - wanted) <= bound * np.abs(dy) + np.finfo(dtype).tiny)


@pytest.mark.parametrize("curve", CURVES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_number_stays_and_infinity_is_as_in_the_reference(
    curve: Any, dtype: Any
) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1, np.nan], dtype)
    dy = np.ones_like(x)
    wanted = reference(curves.curve_value, x, curve)
    np.testing.assert_allclose(kernel_of("curve_value").run(x, curve), wanted, 1e-6)
    wanted = reference(curves.curve_grad, dy, x, curve)
    np.testing.assert_allclose(kernel_of("curve_grad").run(dy, x, curve), wanted, 1e-6, 1e-30)


def test_the_tail_of_the_normal_law_keeps_its_digits() -> None:
    """Where 1 + erf would have lost them all; against SciPy's logarithm of Φ."""
    special = pytest.importorskip("scipy.special")
    for dtype, lowest in ((np.float32, -12.5), (np.float64, -37.0)):
        x = np.linspace(lowest, -0.1, 10_001).astype(dtype)
        wide = x.astype(np.float64)
        wanted = wide * np.exp(special.log_ndtr(wide))
        y = kernel_of("curve_value").run(x, curves.Gelu())
        # x²/2 is rounded before exp: so many ulp of the result; SciPy's logarithm likewise
        allowed = np.finfo(dtype).eps * (8 + wide * wide) + 1e-15 * (8 + wide * wide)
        assert np.all(np.abs(y / wanted - 1) <= allowed)


@settings(max_examples=20, deadline=None)
@given(dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 99))
def test_sigmoid_and_the_chain_rules_of_results(dtype: Any, seed: int) -> None:
    x, dy = numbers(333, dtype, seed)
    eps = np.finfo(dtype).eps
    y = kernel_of("sigmoid_value").run(x)
    wanted = reference(curves.sigmoid_value, x.astype(np.float64))
    # relative, for it is a quotient; 0 where that is subnormal
    assert np.all(np.abs(y - wanted) <= 4 * eps * wanted + np.finfo(dtype).tiny)
    for name in ("sigmoid_grad", "tanh_grad"):  # the same operations in the same order
        dx = kernel_of(name).run(dy, y)
        wanted = reference(getattr(curves, name), dy, y)
        # a product and a sum may be rounded as one
        assert np.all(np.abs(dx - wanted) <= 2 * eps * np.abs(dy))


@pytest.mark.parametrize("curve", CURVES[:3], ids=str)
def test_gives_the_same_where_its_operand_lies(curve: Any) -> None:
    """The first operand's memory may be that of the result."""
    x, dy = numbers(100, np.float32, 0)
    for name, args in (("curve_value", (x,)), ("curve_grad", (dy, x))):
        kernel, place = kernel_of(name), args[0].copy()
        wanted = kernel.run(*args, curve)
        assert kernel.into is not None
        function, operands = kernel.into((place,), place, *args[1:], curve)
        function(*operands)
        np.testing.assert_array_equal(place, wanted)


def test_other_curves_and_arrays_go_to_the_reference() -> None:
    value, grad = kernel_of("curve_value"), kernel_of("curve_grad")
    x = np.ones((4, 6), np.float32)
    assert value.accepts(x, curves.Silu())
    assert grad.accepts(x, x, curves.Silu())
    for curve in OTHERS:
        assert not value.accepts(x, curve)
        assert not grad.accepts(x, x, curve)
    for other in (x.T, x[:, ::2], x.astype(np.float16), x.astype(int)):
        assert not value.accepts(other, curves.Silu())
        assert not grad.accepts(other, other, curves.Silu())


@pytest.mark.parametrize("name", ["gelu", "elu", "silu", "softplus", "mish", "logsigmoid"])
def test_a_replay_runs_kernels_without_python(name: str) -> None:
    activation = getattr(tg.nn.functional, name)
    w = tg.nn.Parameter(tg.linspace(-3, 3, 24).reshape(4, 6))

    def step(x: Any) -> Any:
        w.grad = None
        loss = activation(x * w).sum()
        loss.backward()
        return loss, w.grad

    x = tg.ones(4, 6)
    compiled = tg.compile(step)
    compiled(x)
    for got, wanted in zip(compiled(x), step(x), strict=True):
        np.testing.assert_array_equal(got.detach().numpy(), wanted.detach().numpy())
    assert compiled.program is not None
    assert "by Python" not in str(compiled.program)
