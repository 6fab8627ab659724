"""Initialisers: their distributions, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optional import stats
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import init

SHAPE = (200, 300)


def drawn(initialiser, *args, shape=SHAPE, dtype=tg.float64, **kwargs) -> np.ndarray:
    tensor = tg.zeros(shape, dtype=dtype)
    assert initialiser(tensor, *args, generator=tg.Generator().manual_seed(1), **kwargs) is tensor
    return tensor.numpy()


def agrees(x: np.ndarray, distribution) -> bool:
    """Kolmogorov and Smirnov's test; the seed is fixed, and one of a thousand seeds would fail."""
    return stats.kstest(x.ravel(), distribution.cdf).pvalue > 1e-3


class TestDistributions:
    def test_uniform(self):
        assert agrees(drawn(init.uniform_, -1.0, 3.0), stats.uniform(-1, 4))

    def test_normal(self):
        assert agrees(drawn(init.normal_, 2.0, 0.5), stats.norm(2, 0.5))

    @pytest.mark.parametrize(("a", "b"), [(-2.0, 2.0), (0.5, 0.7), (1.0, 20.0)])
    def test_trunc_normal(self, a, b):
        mean, std = 0.25, 0.5
        x = drawn(init.trunc_normal_, mean, std, a, b)
        assert a <= x.min() <= x.max() <= b
        assert agrees(x, stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std))

    def test_xavier(self):
        std = 3 * math.sqrt(2 / 500)
        bound = math.sqrt(3) * std
        assert agrees(drawn(init.xavier_uniform_, 3.0), stats.uniform(-bound, 2 * bound))
        assert agrees(drawn(init.xavier_normal_, 3.0), stats.norm(0, std))

    @pytest.mark.parametrize(
        ("mode", "kernel", "fan"),
        [("fan_in", (), 30), ("fan_out", (), 20), ("fan_in", (3, 5), 450)],
    )
    def test_kaiming(self, mode, kernel, fan):
        shape = (20, 30, *kernel)
        std = math.sqrt(2 / (1 + 0.2**2) / fan)
        bound = math.sqrt(3) * std
        x = drawn(init.kaiming_uniform_, 0.2, mode, shape=shape)
        assert agrees(x, stats.uniform(-bound, 2 * bound))
        assert agrees(drawn(init.kaiming_normal_, 0.2, mode, shape=shape), stats.norm(0, std))
        x = drawn(init.kaiming_normal_, 0.2, mode, "tanh", shape=shape)
        assert agrees(x, stats.norm(0, 5 / 3 / math.sqrt(fan)))

    @pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
    def test_orthogonal(self, shape):
        x = drawn(init.orthogonal_, 2.0, shape=shape).reshape(shape[0], -1)
        gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
        # Householder's QR is orthogonal to a few ulp per column
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-14)

    def test_orthogonal_favours_no_sign(self):
        """QR alone would make the diagonal of R, and with it the signs of Q, one-sided."""
        generator = tg.Generator().manual_seed(3)
        corners = [
            init.orthogonal_(tg.zeros(2, 2), generator=generator)[0, 0].item() for _ in range(400)
        ]
        # the corner is cos of a uniform angle, of variance 1/2: 5 standard errors
        assert abs(np.mean(corners)) < 5 * math.sqrt(0.5 / 400)

    @pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (0.31, 4), (1.0, 10)])
    def test_sparse(self, sparsity, zeros):
        x = drawn(init.sparse_, sparsity, 2.0, shape=(10, 400))
        assert ((x == 0).sum(axis=0) == zeros).all()
        if zeros < 10:
            assert agrees(x[x != 0], stats.norm(0, 2))

    def test_the_generator_decides_and_the_default_one_is_seeded(self):
        a = drawn(init.normal_)
        assert np.array_equal(a, drawn(init.normal_))
        tg.manual_seed(1)
        assert np.array_equal(a, init.normal_(tg.zeros(SHAPE, dtype=tg.float64)).numpy())

    def test_half_precision_is_within_the_bounds(self):
        x = drawn(init.trunc_normal_, 0.0, 1.0, -1.0, 1.0, dtype=tg.float16)
        assert x.dtype == np.float16
        assert np.abs(x).max() <= 1


class TestDevices:
    @pytest.mark.parametrize("name", [n for n in init.__all__ if n.endswith("_")])
    def test_every_initialiser_gives_the_same_everywhere(self, name, cuda):
        arguments = {"constant_": (3.0,), "sparse_": (0.5,)}.get(name, ())
        x, y = (
            tg.zeros((4, 5, 3)[: 3 if name == "dirac_" else 2], device=d) for d in ("cpu", cuda)
        )
        for tensor in (x, y):
            tg.manual_seed(5)
            assert getattr(init, name)(tensor, *arguments) is tensor
        assert y.device == cuda
        # the transcendental functions of two libraries may differ by an ulp or two
        np.testing.assert_allclose(x.numpy(), y.cpu().numpy(), rtol=1e-6, atol=1e-7)


class TestConstants:
    def test_constant_ones_zeros(self):
        x = tg.zeros(2, 2)
        assert init.constant_(x, 0.3).numpy() == pytest.approx(0.3)
        assert init.ones_(x).tolist() == [[1, 1], [1, 1]]
        assert init.zeros_(x).tolist() == [[0, 0], [0, 0]]

    def test_eye(self):
        assert np.array_equal(init.eye_(tg.ones(2, 3)).numpy(), np.eye(2, 3))

    @pytest.mark.parametrize("kernel", [(3,), (3, 4), (1, 2, 3)])
    def test_dirac_hands_channels_on(self, kernel):
        x = init.dirac_(tg.ones(6, 2, *kernel), groups=2).numpy()
        center = tuple(n // 2 for n in kernel)
        expected = np.zeros(x.shape)
        for out, channel in [(0, 0), (1, 1), (3, 0), (4, 1)]:
            expected[(out, channel, *center)] = 1
        assert np.array_equal(x, expected)

    def test_empty_tensors_stay_so(self):
        for initialiser in (init.kaiming_uniform_, init.xavier_normal_, init.orthogonal_):
            assert initialiser(tg.zeros(0, 3)).shape == (0, 3)
        assert init.kaiming_normal_(tg.zeros(3, 0)).shape == (3, 0)

    def test_gains(self):
        assert init.calculate_gain("linear") == init.calculate_gain("conv2d") == 1
        assert init.calculate_gain("tanh") == pytest.approx(5 / 3)
        assert init.calculate_gain("relu") == pytest.approx(math.sqrt(2))
        assert init.calculate_gain("leaky_relu") == pytest.approx(math.sqrt(2 / 1.0001))
        assert init.calculate_gain("leaky_relu", 1) == 1
        assert init.calculate_gain("selu") == 0.75


class TestGraph:
    def test_parameters_are_written_outside_of_it(self):
        weight = tg.nn.Parameter(tg.zeros(3, 3))
        held = weight.array
        init.xavier_uniform_(weight)
        assert weight.array is held
        assert weight.is_leaf
        assert weight.requires_grad


class TestRefusals:
    @pytest.mark.parametrize(
        "name", ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"]
    )
    def test_vectors_have_no_fan(self, name):
        with pytest.raises(ShapeError, match=r"rank 2 or more.*\(3,\)"):
            getattr(init, name)(tg.zeros(3))

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda x: init.uniform_(x, 1.0, 0.0), ArgumentError),
            (lambda x: init.normal_(x, 0.0, -1.0), ArgumentError),
            (lambda x: init.trunc_normal_(x, std=0.0), ArgumentError),
            (lambda x: init.trunc_normal_(x, a=1.0, b=1.0), ArgumentError),
            (lambda x: init.kaiming_uniform_(x, mode="fan"), ArgumentError),
            (lambda x: init.kaiming_uniform_(x, nonlinearity="gelu"), ArgumentError),
            (lambda x: init.calculate_gain("leaky_relu", True), ArgumentError),
            (lambda x: init.sparse_(x, 1.5), ArgumentError),
            (lambda x: init.sparse_(x.reshape(4), 0.5), ShapeError),
            (lambda x: init.eye_(x.reshape(4)), ShapeError),
            (lambda x: init.orthogonal_(x.reshape(4)), ShapeError),
            (lambda x: init.dirac_(x), ShapeError),
            (lambda x: init.dirac_(x.reshape(2, 2, 1), 3), ArgumentError),
            (lambda x: init.normal_(x.long()), DtypeError),
        ],
    )
    def test_bad_arguments_change_nothing(self, call, error):
        x = tg.ones(2, 2)
        with pytest.raises(error):
            call(x)
        assert x.tolist() == [[1, 1], [1, 1]]

    @pytest.mark.parametrize(
        "name", ["uniform_", "normal_", "xavier_uniform_", "kaiming_normal_", "zeros_", "eye_"]
    )
    def test_arrays_are_no_tensors(self, name):
        x = np.ones((2, 2), np.float32)
        with pytest.raises(DtypeError, match="ndarray"):
            getattr(init, name)(x)
        assert x.tolist() == [[1, 1], [1, 1]]
