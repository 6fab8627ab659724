"""Local response norm, and vectors of length 1: PyTorch's semantics, more exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tests.nn.normalization.training import assert_trains_like_pytorch
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

ORDERS = [2.0, 1, 3, 0.5, 0, 50.0, -1.5, math.inf, -math.inf]


def unit(x, p, axis=1):
    """x over its p-norm; powers are taken of numbers up to 1, since the scale of x does not matter
    but at p = 0.
    """
    x = np.float64(x)
    if p == 0:
        return x / np.count_nonzero(x, axis=axis, keepdims=True)
    x = x / np.max(np.abs(x))
    if math.isinf(p):
        return x / (np.max if p > 0 else np.min)(np.abs(x), axis=axis, keepdims=True)
    return x / np.sum(np.abs(x) ** p, axis=axis, keepdims=True) ** (1 / p)


class TestNormalize:
    @pytest.mark.parametrize("p", ORDERS, ids=str)
    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    def test_is_right_at_any_scale(self, p, scale, device):
        x = normal(4, 6, std=scale)
        y = F.normalize(tg.tensor(x, device=device), p, eps=0.0)
        # one rounding of float32
        np.testing.assert_allclose(y.tolist(), unit(x, p), rtol=1.2e-7)

    @pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e307])
    @pytest.mark.parametrize("p", [2.0, 7.0, -3.0])
    def test_powers_do_not_leave_the_range_of_float64(self, p, scale):
        x = np.array([[3.0, -4.0, 1.5]]) * scale
        y, expected = F.normalize(tg.tensor(x), p, eps=0.0), unit(x, p)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)  # pow's last digits

    @pytest.mark.parametrize("dim", [0, -1, (0, 2), (-1, 0, 1), None])
    def test_takes_vectors_along_one_axis_or_several(self, dim, device):
        x = normal(3, 4, 5)
        y = F.normalize(tg.tensor(x, device=device), dim=dim)
        expected = unit(x, 2.0, dim if dim is not None else (0, 1, 2))
        np.testing.assert_allclose(y.tolist(), expected, rtol=1e-6)

    @pytest.mark.parametrize("p", ORDERS, ids=str)
    def test_zero_stays_zero_with_the_gradient_of_pytorch(self, p, device):
        x = tg.zeros(2, 3, dtype=tg.float64, device=device, requires_grad=True)
        y = F.normalize(x, p)
        (dx,) = tg.autograd.grad(y, [x], tg.full((2, 3), 3.0, dtype=tg.float64, device=device))
        assert y.tolist() == [[0.0] * 3] * 2
        np.testing.assert_allclose(dx.tolist(), 3e12, rtol=1e-15)  # dy / ε

    @pytest.mark.parametrize("p", ORDERS, ids=str)
    def test_second_gradients_are_finite_beside_zeros(self, p):
        """Where PyTorch's are NaN: of zero vectors, and of zeros in others."""
        x = tg.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=tg.float64, requires_grad=True)
        (dx,) = tg.autograd.grad(F.normalize(x, p)[:, 1].sum(), [x], create_graph=True)
        (ddx,) = tg.autograd.grad((dx * dx).sum(), [x], allow_unused=True, materialize_grads=True)
        assert np.isfinite(ddx.numpy()).all()

    def test_a_vector_shorter_than_epsilon_is_divided_by_it(self, device):
        x = tg.tensor([[3e-3, 4e-3], [3.0, 4.0]], device=device)
        y = F.normalize(x, eps=0.1)
        np.testing.assert_allclose(y.tolist(), [[0.03, 0.04], [0.6, 0.8]], rtol=1e-6)

    @pytest.mark.parametrize("p", [-1.5, -math.inf])
    def test_epsilon_divides_long_vectors_whose_norm_is_short_too(self, p, device):
        x = tg.tensor([[1e-200, 1.0]], dtype=tg.float64, device=device, requires_grad=True)
        y = F.normalize(x, p)
        y.sum().backward()
        np.testing.assert_allclose(y.tolist(), [[1e-188, 1e12]])
        np.testing.assert_allclose(x.grad.tolist(), [[1e12, 1e12]])

    def test_epsilon_does_not_underflow_in_sixteen_bits(self, device):
        x = tg.tensor([[0.0, 0.0], [300.0, 400.0]], dtype=tg.float16, device=device)
        y = F.normalize(x)
        assert y.dtype == np.float16
        np.testing.assert_allclose(y.tolist(), [[0, 0], [0.6, 0.8]], atol=2.5e-4)  # half a digit

    def test_nan_and_infinity_stay_in_their_vector(self, device):
        x = normal(3, 4)
        x[0, 1], x[1, 2] = np.nan, np.inf
        for p in ORDERS:
            a = tg.tensor(x, device=device, requires_grad=True)
            y = F.normalize(a, p)
            y.sum().backward()
            assert np.isfinite(y.tolist()[2]).all()
            assert np.isfinite(a.grad.tolist()[2]).all()
            if p > 0:
                assert np.isnan(y.tolist()[0]).all()
                assert np.isnan(y.tolist()[1][2])

    def test_the_extremes_share_the_gradient_of_the_greatest(self):
        x = tg.tensor([[2.0, -2.0, 1.0]], dtype=tg.float64, requires_grad=True)
        y = F.normalize(x, math.inf)
        (dx,) = tg.autograd.grad(y[0, 2], [x])
        np.testing.assert_allclose(dx.numpy(), [[-0.125, 0.125, 0.5]])

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 3)])
    @pytest.mark.parametrize("p", [2.0, math.inf])
    def test_nothing_gives_nothing(self, p, shape, device):
        x = tg.zeros(shape, device=device, requires_grad=True)
        F.normalize(x, p).sum().backward()
        assert x.grad.shape == shape

    def test_refuses_what_means_nothing(self):
        x = tg.ones(2, 3)
        with pytest.raises(ArgumentError, match="the order p of a norm, got nan"):
            F.normalize(x, math.nan)
        with pytest.raises(ArgumentError, match="the order p of a norm, got 'fro'"):
            F.normalize(x, "fro")
        with pytest.raises(ArgumentError, match="eps ≥ 0, got -1"):
            F.normalize(x, eps=-1)
        with pytest.raises(ShapeError, match="expected an axis within"):
            F.normalize(x, dim=2)
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            F.normalize(tg.ones(2, 3, dtype=tg.int64))


def responses(x, size, alpha, beta, k):
    """Local response norm, a channel at a time."""
    x = np.float64(x)
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / size * np.sum(window**2, axis=1)) ** beta
    return y


class TestLocalResponseNorm:
    @settings(deadline=None, max_examples=50)
    @given(
        channels=st.integers(1, 9),
        size=st.integers(1, 21),
        space=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    )
    def test_is_the_formula_for_any_window(self, channels, size, space):
        x = normal(2, channels, *space, dtype=np.float64)
        y = F.local_response_norm(tg.tensor(x), size, 0.7, 0.6, 1.5)
        np.testing.assert_allclose(y.numpy(), responses(x, size, 0.7, 0.6, 1.5), rtol=1e-14)

    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15, 1e30])
    def test_at_any_scale(self, scale, device):
        x = normal(2, 7, 3, std=scale)
        y = F.local_response_norm(tg.tensor(x, device=device), 5)
        expected = responses(x, 5, 1e-4, 0.75, 1.0)
        np.testing.assert_allclose(y.tolist(), expected, rtol=1.2e-7)  # one rounding of float32

    def test_nan_stays_in_the_windows_that_have_it(self, device):
        x = normal(2, 6, 4)
        x[1, 3, 2] = np.nan
        a = tg.tensor(x, device=device, requires_grad=True)
        y = F.local_response_norm(a, 3)
        y.sum().backward()
        expected = np.zeros(x.shape, bool)
        expected[1, 2:5, 2] = True
        np.testing.assert_array_equal(np.isnan(y.tolist()), expected)
        expected[1, 1:6, 2] = True  # channels whose windows have a NaN among their responses
        np.testing.assert_array_equal(np.isnan(a.grad.tolist()), expected)

    def test_sixteen_bits_do_not_overflow(self, device):
        x = tg.tensor(normal(2, 5, 3, std=1e4), dtype=tg.float16, device=device)
        y = nn.LocalResponseNorm(3)(x)
        assert y.dtype == np.float16
        expected = responses(x.cpu().numpy(), 3, 1e-4, 0.75, 1.0)
        np.testing.assert_allclose(y.tolist(), expected, rtol=2**-11)  # one rounding

    @pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
    def test_nothing_gives_nothing(self, shape, device):
        x = tg.zeros(shape, device=device, requires_grad=True)
        F.local_response_norm(x, 3).sum().backward()
        assert x.grad.shape == shape

    def test_refuses_what_means_nothing(self):
        with pytest.raises(ShapeError, match="rank 3 or more, got"):
            nn.LocalResponseNorm(2)(tg.zeros(2, 3))
        with pytest.raises(ArgumentError, match="size ≥ 1 of the window, got 0"):
            F.local_response_norm(tg.zeros(1, 2, 3), 0)
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            F.local_response_norm(tg.zeros(1, 2, 3, dtype=tg.int64), 1)

    def test_has_no_state_and_shows_how_it_was_made(self):
        layer = nn.LocalResponseNorm(5, k=2.0)
        assert not layer.state_dict()
        assert repr(layer) == "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2.0)"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [((3,), (2, 5, 3)), ((2, 1.0, 0.5, 2.0), (2, 5, 2, 2)), ((7, 0.5), (1, 3, 2, 2, 2))],
    ids=str,
)
def test_fifty_steps_are_those_of_pytorch(arguments, shape):
    assert_trains_like_pytorch("LocalResponseNorm", arguments, {}, shape)
