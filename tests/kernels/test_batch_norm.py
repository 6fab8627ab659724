"""The kernels of batch norm against the reference bodies that define them.

Bounds of whole norms against long double, kernels included, are in
``tests/nn/normalization/test_precision.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.two_backends import dtype_named
from tinygrad_bn.backend import KERNEL_POINTS, get_backend
from tinygrad_bn.ops import moments

pytest.importorskip("numba")

NUMPY = get_backend("numpy")


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name: str, *args: Any) -> Any:
    return KERNEL_POINTS[name].reference(NUMPY, *args)


@dataclass
class Batch:
    """Arguments of the phases."""

    x: Any
    dy: Any
    weight: Any
    bias: Any
    mask: Any
    scale: float

    @property
    def count(self) -> int:
        """How many values of each channel count."""
        n, _, space = self.x.shape
        return n * space if self.mask is None else int(self.mask.sum())


def drawn(
    n=131, channels=3, space=1, offset=0.0, scale=1.0, affine=True, masked=False,
    dtype=np.float32, seed=0,
):  # fmt: skip
    """Normal numbers; the offset is in units of the scale."""
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((n, channels, space)) + offset) * scale).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    weight, bias = rng.standard_normal((2, channels)).astype(dtype)
    mask = rng.random((n, space)) < 0.7 if masked else None
    return Batch(x, dy, *((weight, bias) if affine else (None, None)), mask, scale)


batches = st.builds(
    drawn,
    n=st.sampled_from([1, 2, 3, 4, 5, 63, 64, 65, 131]),
    channels=st.sampled_from([1, 2, 7, 16, 33]),
    space=st.sampled_from([1, 1, 1, 2, 7, 16, 65]),
    offset=st.sampled_from([0.0, 1e-6, 1.0, -1e4, 1e6]),
    scale=st.sampled_from([1e-30, 1e-2, 1.0, 1e30]),
    affine=st.booleans(),
    masked=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
each_space = pytest.mark.parametrize("space", [1, 5], ids=["single", "positions"])


@settings(max_examples=50, deadline=None)
@given(batch=batches)
def test_moments(batch):
    """Sums of thousands of float64, whose order differs."""
    mean, var = kernel("batch_moments", batch.x, batch.mask)
    wanted_mean, wanted_var = reference("batch_moments", batch.x, batch.mask)
    assert mean.dtype == var.dtype == np.float64
    assert np.all(np.abs(mean - wanted_mean) <= 1e-13 * (np.abs(wanted_mean) + np.sqrt(wanted_var)))
    # the reference's differences from a mean are as exact as that is: 1e-16 of it
    assert np.all(np.abs(var - wanted_var) <= 1e-13 * wanted_var + (1e-16 * wanted_mean) ** 2)


@settings(max_examples=50, deadline=None)
@given(batch=batches, scaled_eps=st.booleans())
def test_normalize_and_gradients(batch, scaled_eps):
    """A few roundings of the dtype, of the largest number that is on the way to the result."""
    x, dy, weight, mask = batch.x, batch.dy, batch.weight, batch.mask
    ulp = np.finfo(x.dtype).eps
    mean, var = reference("batch_moments", x, mask)
    rstd = 1 / np.sqrt(var + 1e-5 * (batch.scale**2 if scaled_eps else 1))
    columns = [v[:, None] for v in (mean, rstd, np.sqrt(var))]
    # what rounding the mean loses, which is a part of every constant, is below a standard deviation
    x_hat = (np.abs(x - columns[0]) + columns[2]) * columns[1]
    scale = np.ones(1) if weight is None else np.abs(weight)[:, None].astype(np.float64)
    shift = 0 if batch.bias is None else np.abs(batch.bias)[:, None]

    y = kernel("batch_normalize", x, mean, rstd, weight, batch.bias)
    wanted = reference("batch_normalize", x, mean, rstd, weight, batch.bias)
    assert y.dtype == x.dtype
    assert np.all(np.abs(y - wanted) <= 4 * ulp * (scale * x_hat + shift))

    sums = kernel("batch_grad_sums", dy, x, mean, rstd, mask)
    wanted = reference("batch_grad_sums", dy, x, mean, rstd, mask)
    for total, wanted_total, terms in zip(sums, wanted, (np.abs(dy), x_hat), strict=True):
        assert total.dtype == np.float64
        size = np.sum(np.abs(dy) * np.maximum(terms, 1), axis=(0, 2))
        assert np.all(np.abs(total - wanted_total) <= 1e-13 * size)

    means = [total / max(batch.count, 1) for total in wanted]
    given = (dy, x, mean, rstd, weight, *means, mask)
    dx, wanted = kernel("batch_grad_input", *given), reference("batch_grad_input", *given)
    assert dx.dtype == x.dtype
    level, slope = (np.abs(v)[:, None] for v in means)
    size = scale * columns[1] * (np.abs(dy) + level + x_hat * slope)
    assert np.all(np.abs(dx - wanted) <= 8 * ulp * size)


class TestMoments:
    @each_space
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_a_first_value_far_from_the_others(self, space, dtype):
        """Differences are taken from it, and then once more from the mean, where it costs digits;
        of a hundred times the variance it costs two.
        """
        batch = drawn(n=1000, space=space, dtype=dtype_named(dtype))
        batch.x[0] = 1e6
        wide = batch.x.astype(np.longdouble)
        mean, var = kernel("batch_moments", batch.x, None)
        assert np.all(np.abs(mean - wide.mean((0, 2))) <= 1e-13 * np.sqrt(var))
        np.testing.assert_allclose(var, np.float64(wide.var((0, 2))), rtol=1e-13)

    @each_space
    @pytest.mark.parametrize("value", [0.1, -1e30, 3e-39])
    def test_of_a_constant_channel_are_exact(self, space, value):
        batch = drawn(space=space)
        batch.x[:] = value
        mean, var = kernel("batch_moments", batch.x, None)
        assert (mean == np.float32(value)).all()
        assert (var == 0).all()
        y = kernel("batch_normalize", batch.x, mean, 1 / np.sqrt(var + 1e-5), None, batch.bias)
        assert (y == batch.bias[:, None]).all()

    @each_space
    @pytest.mark.parametrize("kept", [[], [0], [130], [3, 77]], ids=str)
    def test_of_what_few_a_mask_keeps(self, space, kept):
        batch = drawn(space=space, masked=True, offset=1e4)
        batch.mask[:] = False
        batch.mask[kept, 0] = True
        batch.x[np.broadcast_to(~batch.mask[:, None], batch.x.shape)] = np.nan
        mean, var = kernel("batch_moments", batch.x, batch.mask)
        values = batch.x[kept, :, 0].astype(np.float64)
        np.testing.assert_allclose(mean, values.mean(0) if kept else np.zeros(3), rtol=1e-15)
        np.testing.assert_allclose(var, values.var(0) if kept else np.zeros(3), rtol=1e-8)

    @pytest.mark.parametrize("shape", [(100_000, 2, 1), (100, 2, 1000)])
    def test_of_values_behind_an_outlier_lose_no_digits_to_it(self, shape):
        x = np.random.default_rng(0).standard_normal(shape)
        x[0, :, 0] = 1e8
        exact = x.astype(np.longdouble)
        mean = exact.mean(axis=(0, 2))
        var = np.square(exact - mean[:, None]).mean(axis=(0, 2))
        found = moments.batch_moments(NUMPY, x, None)
        # float64 sums of 1e5 numbers; differences from the outlier alone would err by 1e-10
        np.testing.assert_allclose(found[0], mean.astype(float), rtol=1e-12)
        np.testing.assert_allclose(found[1], var.astype(float), rtol=1e-12)


class TestGradInput:
    @each_space
    def test_keeps_the_digits_of_gradients_far_from_zero(self, space):
        """mean(dy) is subtracted in full: rounded to float32, it would cost dx 1e-4 of itself."""
        batch = drawn(n=65, space=space)
        batch.dy += 1e4
        mean, var = kernel("batch_moments", batch.x, None)
        rstd = 1 / np.sqrt(var + 1e-5)
        sums = kernel("batch_grad_sums", batch.dy, batch.x, mean, rstd, None)
        means = [total / batch.count for total in sums]
        dx = kernel("batch_grad_input", batch.dy, batch.x, mean, rstd, batch.weight, *means, None)
        x, dy = batch.x.astype(np.longdouble), batch.dy.astype(np.longdouble)
        x_hat = (x - mean[:, None]) * rstd[:, None]
        g = dy - dy.mean((0, 2))[:, None] - x_hat * (dy * x_hat).mean((0, 2))[:, None]
        wanted = g * (rstd * batch.weight)[:, None]
        assert np.linalg.norm(np.float64(dx - wanted)) <= 3e-7 * np.linalg.norm(np.float64(wanted))

    @each_space
    def test_ignores_what_a_mask_leaves_out(self, space):
        """Even NaN, where dy is 0; and there dx is that of a constant function."""
        batch = drawn(space=space, masked=True)
        x, dy, out = batch.x, batch.dy, ~batch.mask
        mean, var = kernel("batch_moments", x, batch.mask)
        rstd = 1 / np.sqrt(var + 1e-5)
        x[np.broadcast_to(out[:, None], x.shape)] = np.nan
        dy[np.broadcast_to(out[:, None], x.shape)] = 0
        sums = kernel("batch_grad_sums", dy, x, mean, rstd, batch.mask)
        assert all(np.isfinite(total).all() for total in sums)
        dx = kernel("batch_grad_input", dy, x, mean, rstd, None, *sums, batch.mask)
        assert np.isfinite(dx).all()
        assert (dx.transpose(1, 0, 2)[:, out] == 0).all()


def at_the_kink(batch):
    """Mean and rstd, and a bias that puts a third of the values on the ReLU's kink, to a rounding
    to one side or to the other.
    """
    batch.x[::3] = batch.x[:1, :, :1]
    mean, var = kernel("batch_moments", batch.x, None)
    rstd = 1 / np.sqrt(var + 1e-5)
    batch.bias = (-(batch.x[0, :, 0] - mean) * rstd * batch.weight).astype(batch.x.dtype)
    return mean, rstd


@settings(max_examples=50, deadline=None)
@given(batch=batches.filter(lambda batch: batch.weight is not None))
def test_relu_lets_gradients_back_where_it_let_values_through(batch):
    """To the last bit: the kernels compute y as the forward did."""
    x, dy, mask = batch.x, batch.dy, batch.mask
    mean, rstd = at_the_kink(batch)
    known = mean, rstd, batch.weight, batch.bias
    y = kernel("batch_normalize", x, *known)
    np.testing.assert_array_equal(kernel("batch_normalize_relu", x, *known), np.maximum(y, 0))
    g = dy * (y > 0)
    wanted = kernel("batch_grad_sums", g, x, mean, rstd, mask)
    terms = np.abs(x - mean[:, None]) * rstd[:, None]
    for total, wanted_total in zip(
        kernel("batch_relu_grad_sums", dy, x, *known, mask), wanted, strict=True
    ):
        size = np.sum(np.abs(dy) * np.maximum(terms, 1), axis=(0, 2))
        assert np.all(np.abs(total - wanted_total) <= 1e-13 * size)  # in another order
    means = [total / max(batch.count, 1) for total in wanted]
    dx = kernel("batch_relu_grad_input", dy, x, *known, *means, mask)
    wanted_dx = kernel("batch_grad_input", g, x, mean, rstd, batch.weight, *means, mask)
    np.testing.assert_array_equal(dx, wanted_dx)


@each_space
def test_gradients_go_where_they_come_from(space):
    """dx may be made in the memory of dy, and y in that of x."""
    batch = drawn(space=space)
    known = np.zeros(3), np.ones(3), batch.weight
    for name, first, rest in (
        ("batch_normalize", batch.x, (*known, batch.bias)),
        ("batch_grad_input", batch.dy, (batch.x, *known, *known[:2], None)),
        ("whole_batch_norm_grad", batch.dy, (batch.x, *known, None, None, 131 * space, False)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        wanted = found.run(first, *rest)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        memory = first.copy().reshape(-1)
        here, there = memory.reshape(first.shape), memory.reshape(first.shape)
        sums = (np.empty(3), np.empty(3)) if "whole" in name else ()
        function, operands = found.into((there, *sums), here, *rest)
        function(*operands)
        np.testing.assert_array_equal(here, wanted)


@each_space
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 40, 69])
def test_what_is_not_finite_stays_in_its_channel(space, value, place):
    batch = drawn(n=70, space=space)
    batch.x[place, 1, 0] = value
    mean, var = kernel("batch_moments", batch.x, None)
    assert np.isnan(var[1])
    rstd = 1 / np.sqrt(var + 1e-5)
    y = kernel("batch_normalize", batch.x, mean, rstd, batch.weight, batch.bias)
    sums = kernel("batch_grad_sums", batch.dy, batch.x, mean, rstd, None)
    dx = kernel("batch_grad_input", batch.dy, batch.x, mean, rstd, batch.weight, *sums, None)
    assert np.isnan(y[:, 1]).all()
    for values in (mean[:, None], var[:, None], *(s[:, None] for s in sums)):
        assert np.isfinite(values[[0, 2]]).all()
    for values in (y, dx):
        assert np.isfinite(values[:, [0, 2]]).all()


@each_space
def test_parameters_may_have_another_dtype_and_any_strides(space):
    batch = drawn(space=space)
    weight, bias = np.stack([batch.weight, batch.bias], axis=1).astype(np.float64).T
    mean, rstd = np.zeros(3), np.ones(3)
    y = kernel("batch_normalize", batch.x, mean, rstd, weight, bias)
    wanted = reference("batch_normalize", batch.x, mean, rstd, weight, bias)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)  # roundings of numbers up to 16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_of_sixteen_bits_go_to_the_reference(dtype):
    batch, vectors = drawn(), (np.zeros(3), np.ones(3))
    half = batch.weight.astype(dtype_named(dtype))
    for name, args in (
        ("batch_normalize", (batch.x, *vectors, half, None)),
        ("batch_normalize", (batch.x, *vectors, None, half)),
        ("batch_grad_input", (batch.dy, batch.x, *vectors, half, *vectors, None)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args)


@each_space
def test_bits_depend_on_the_input_alone(space):
    """Not on the thread, nor on what the others do."""
    batch = drawn(n=257, channels=33, space=space)

    def phases(_: int) -> list[bytes]:
        mean, var = kernel("batch_moments", batch.x, None)
        rstd = 1 / np.sqrt(var + 1e-5)
        y = kernel("batch_normalize", batch.x, mean, rstd, batch.weight, batch.bias)
        sums = kernel("batch_grad_sums", batch.dy, batch.x, mean, rstd, None)
        dx = kernel("batch_grad_input", batch.dy, batch.x, mean, rstd, batch.weight, *sums, None)
        return [v.tobytes() for v in (mean, var, y, *sums, dx)]

    wanted = phases(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(bits == wanted for bits in pool.map(phases, range(16)))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 3, 1), np.float16),
        np.zeros((4, 3, 1), ">f4"),
        np.zeros((0, 3, 1), np.float32),
        np.zeros((4, 3, 0), np.float32),
        np.zeros((3, 4, 1), np.float32).transpose(1, 0, 2),
        np.zeros((4, 3, 6), np.float32)[..., ::2],
    ],
    ids=["float16", "other_endian", "no_sample", "no_position", "transposed", "strided"],
)
def test_goes_to_the_reference(x):
    vectors = np.zeros(3), np.zeros(3)
    good = np.zeros(x.shape, np.float32)
    for name, args in (
        ("batch_moments", (x, None)),
        ("batch_normalize", (x, *vectors, None, None)),
        ("batch_grad_sums", (good, x, *vectors, None)),
        ("batch_grad_sums", (x, good, *vectors, None)),
        ("batch_grad_input", (x, good, *vectors, None, *vectors, None)),
    ):
        found = NUMPY.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args)
