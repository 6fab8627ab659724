"""The kernels of layer norm and its kin against the reference bodies that define them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.two_backends import dtype_named
from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops import row_moments

pytest.importorskip("numba")

NUMPY = get_backend("numpy")


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name: str, *args: Any) -> Any:
    return getattr(row_moments, name).reference(NUMPY, *args)


@dataclass
class Rows:
    """Arguments of the phases; x is (N, G, K, S)."""

    x: Any
    dy: Any
    weight: Any
    bias: Any
    centred: bool
    scale: float

    def statistics(self, run: Any, eps: float = 1e-5) -> tuple[Any, Any, Any]:
        """Mean, which is None without centring, variance or mean square, and rstd."""
        if self.centred:
            mean, var = run("row_moments", self.x)
        else:
            mean, var = None, run("row_mean_square", self.x)
        return mean, var, 1 / np.sqrt(var + eps)


def drawn(
    n=65, groups=1, channels=33, space=1, offset=0.0, scale=1.0, affine=True, centred=True,
    dtype=np.float32, seed=0,
):  # fmt: skip
    """Normal numbers; the offset is in units of the scale."""
    rng = np.random.default_rng(seed)
    shape = (n, groups, channels, space)
    x = ((rng.standard_normal(shape) + offset) * scale).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    weight, bias = rng.standard_normal((2, groups, channels)).astype(dtype)
    return Rows(x, dy, *((weight, bias) if affine else (None, None)), centred, scale)


layouts = st.one_of(  # samples, groups, channels, positions
    st.tuples(  # layer and RMS norm
        st.sampled_from([1, 2, 5, 64, 131]),
        st.just(1),
        st.sampled_from([1, 2, 7, 63, 64, 65, 131, 1025]),
        st.just(1),
    ),
    st.tuples(  # group norm, and instance norm where K = 1
        st.sampled_from([1, 2, 5]),
        st.sampled_from([1, 2, 3]),
        st.sampled_from([1, 2, 7]),
        st.sampled_from([1, 2, 16, 65, 131]),
    ),
)
rows = st.builds(
    lambda layout, **options: drawn(*layout, **options),
    layout=layouts,
    offset=st.sampled_from([0.0, 1e-6, 1.0, -1e4, 1e6]),
    scale=st.sampled_from([1e-30, 1e-2, 1.0, 1e30]),
    affine=st.booleans(),
    centred=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
each_space = pytest.mark.parametrize("space", [1, 5], ids=["single", "positions"])
each_kind = pytest.mark.parametrize("centred", [True, False], ids=["centred", "rms"])


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_moments(rows):
    """Sums of hundreds of float64, whose order differs."""
    mean, var, _ = rows.statistics(kernel)
    wanted_mean, wanted_var, _ = rows.statistics(reference)
    assert var.dtype == np.float64
    assert np.all(np.abs(var - wanted_var) <= 1e-13 * wanted_var)
    if rows.centred:
        assert mean.dtype == np.float64
        size = np.abs(wanted_mean) + np.sqrt(wanted_var)
        assert np.all(np.abs(mean - wanted_mean) <= 1e-13 * size)


@settings(max_examples=50, deadline=None)
@given(rows=rows, scaled_eps=st.booleans())
def test_normalize_and_gradients(rows, scaled_eps):
    """A few roundings of the dtype, of the largest number that is on the way to the result."""
    x, dy, weight = rows.x, rows.dy, rows.weight
    ulp = np.finfo(x.dtype).eps
    eps = 1e-5 * (rows.scale**2 if scaled_eps else 1)
    mean, var, rstd = rows.statistics(reference, eps)
    distance = np.abs(x.astype(np.float64) - (0 if mean is None else mean[..., None, None]))
    # what rounding the mean loses, which is a part of every constant, is below a standard deviation
    x_hat = (distance + np.sqrt(var)[..., None, None]) * rstd[..., None, None]
    scale = np.ones(1) if weight is None else np.abs(weight).astype(np.float64)[..., None]
    shift = 0 if rows.bias is None else np.abs(rows.bias)[..., None]

    y = kernel("row_normalize", x, mean, rstd, weight, rows.bias)
    wanted = reference("row_normalize", x, mean, rstd, weight, rows.bias)
    assert y.dtype == x.dtype
    assert np.all(np.abs(y - wanted) <= 4 * ulp * (scale * x_hat + shift))

    sums = kernel("row_grad_sums", dy, x, mean, rstd)
    wanted = reference("row_grad_sums", dy, x, mean, rstd)
    for total, wanted_total in zip(sums, wanted, strict=True):
        assert total.dtype == np.float64
        size = np.sum(np.abs(dy) * np.maximum(x_hat, 1), axis=(0, 3))
        assert np.all(np.abs(total - wanted_total) <= 1e-13 * size)

    dx = kernel("row_grad_input", dy, x, mean, rstd, weight)
    wanted = reference("row_grad_input", dy, x, mean, rstd, weight)
    assert dx.dtype == x.dtype
    g = scale * np.abs(dy)
    over = {"axis": (2, 3), "keepdims": True}
    size = g + np.mean(g, **over) + x_hat * np.mean(g * x_hat, **over)
    assert np.all(np.abs(dx - wanted) <= 8 * ulp * size * rstd[..., None, None])


@each_space
@pytest.mark.parametrize("value", [0.1, -1e30, 3e-39])
def test_a_constant_row_gives_exactly_its_bias(space, value):
    rows = drawn(space=space)
    rows.x[:] = value
    mean, var, rstd = rows.statistics(kernel)
    assert (mean == np.float32(value)).all()
    assert (var == 0).all()
    y = kernel("row_normalize", rows.x, mean, rstd, rows.weight, rows.bias)
    assert (y == rows.bias[..., None]).all()


@each_space
def test_the_moments_of_a_first_value_far_from_the_others(space):
    """As in batch norm: roundings are larger by the count, and grow with its root."""
    rows = drawn(channels=1000, space=space)
    rows.x[:, :, 0, 0] = 1e6
    wide = rows.x.astype(np.longdouble)
    mean, var, _ = rows.statistics(kernel)
    assert np.all(np.abs(mean - wide.mean((2, 3))) <= 1e-13 * np.sqrt(var))
    rtol = (1000 * space) ** 1.5 * 2.0**-53
    np.testing.assert_allclose(var, np.float64(wide.var((2, 3))), rtol=rtol)


@each_space
def test_grad_input_keeps_the_digits_of_gradients_far_from_zero(space):
    """mean(g) is subtracted in full: rounded to float32, it would cost dx 1e-4 of itself."""
    rows = drawn(space=space, affine=False)
    rows.dy += 1e4
    mean, _, rstd = rows.statistics(kernel)
    dx = kernel("row_grad_input", rows.dy, rows.x, mean, rstd, None)
    wide = (v.astype(np.float64) for v in (rows.dy, rows.x))
    wanted = reference("row_grad_input", *wide, mean, rstd, None)
    assert np.linalg.norm(dx - wanted) <= 3e-7 * np.linalg.norm(wanted)


@each_kind
@each_space
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 16, 32])
def test_what_is_not_finite_stays_in_its_row(centred, space, value, place):
    rows = drawn(n=5, groups=2, space=space, centred=centred)
    rows.x[3, 1, place, 0] = value
    mean, var, rstd = rows.statistics(kernel)
    y = kernel("row_normalize", rows.x, mean, rstd, rows.weight, rows.bias)
    dx = kernel("row_grad_input", rows.dy, rows.x, mean, rstd, rows.weight)
    sums = kernel("row_grad_sums", rows.dy, rows.x, mean, rstd)
    others = np.ones((5, 2), bool)
    others[3, 1] = False
    assert not np.isfinite(var[3, 1])
    assert not np.isfinite(y[3, 1]).all()
    for values in (var, y, dx):
        assert np.isfinite(values[others]).all()
    assert all(np.isfinite(total[0]).all() for total in sums)


@each_space
@each_kind
def test_gradients_go_where_they_come_from(space, centred):
    """dx may be made in the memory of dy, and y in that of x."""
    rows = drawn(space=space, centred=centred)
    mean, _, rstd = rows.statistics(kernel)
    for name, first, rest in (
        ("row_normalize", rows.x, (mean, rstd, rows.weight, rows.bias)),
        ("row_grad_input", rows.dy, (rows.x, mean, rstd, rows.weight)),
        ("whole_row_norm_grad", rows.dy, (rows.x, mean, rstd, rows.weight)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        wanted = found.run(first, *rest)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        memory = first.copy().reshape(-1)
        here, there = memory.reshape(first.shape), memory.reshape(first.shape)
        sums = (np.empty((1, 33)), np.empty((1, 33))) if "whole" in name else ()
        function, operands = found.into((there, *sums), here, *rest)
        function(*operands)
        np.testing.assert_array_equal(here, wanted)


@each_space
def test_parameters_may_have_another_dtype_and_any_strides(space):
    rows = drawn(space=space)
    weight, bias = np.stack([rows.weight, rows.bias], axis=2).astype(np.float64).transpose(2, 0, 1)
    mean, _, rstd = rows.statistics(kernel)
    y = kernel("row_normalize", rows.x, mean, rstd, weight, bias)
    wanted = reference("row_normalize", rows.x, mean, rstd, weight, bias)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)  # roundings of numbers up to 16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_of_sixteen_bits_go_to_the_reference(dtype):
    rows, rstd = drawn(), np.ones((65, 1))
    half = rows.weight.astype(dtype_named(dtype))
    for name, args in (
        ("row_normalize", (rows.x, None, rstd, half, None)),
        ("row_normalize", (rows.x, None, rstd, None, half)),
        ("row_grad_input", (rows.dy, rows.x, None, rstd, half)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args)


@each_kind
@each_space
def test_bits_depend_on_the_input_alone(centred, space):
    """Not on the thread, nor on what the others do."""
    rows = drawn(n=131, groups=2, space=space, centred=centred)

    def phases(_: int) -> list[bytes]:
        mean, var, rstd = rows.statistics(kernel)
        y = kernel("row_normalize", rows.x, mean, rstd, rows.weight, rows.bias)
        sums = kernel("row_grad_sums", rows.dy, rows.x, mean, rstd)
        dx = kernel("row_grad_input", rows.dy, rows.x, mean, rstd, rows.weight)
        return [v.tobytes() for v in (var, y, *sums, dx)]

    wanted = phases(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(bits == wanted for bits in pool.map(phases, range(16)))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 1, 3, 1), np.float16),
        np.zeros((0, 1, 3, 1), np.float32),
        np.zeros((4, 1, 3, 0), np.float32),
        np.zeros((4, 1, 2, 3), np.float32).transpose(0, 1, 3, 2),
    ],
    ids=["float16", "no_sample", "no_position", "transposed"],
)
def test_goes_to_the_reference(x):
    statistics = np.zeros(x.shape[:2]), np.zeros(x.shape[:2])
    good = np.zeros(x.shape, np.float32)
    for name, args in (
        ("row_moments", (x,)),
        ("row_mean_square", (x,)),
        ("row_normalize", (x, *statistics, None, None)),
        ("row_grad_sums", (good, x, *statistics)),
        ("row_grad_sums", (x, good, *statistics)),
        ("row_grad_input", (x, good, *statistics, None)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args)
