"""Activations: far from 0, at their kinks, in half precision, and as modules."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

FAR = 1e4
LIMITS = {
    # value and slope at -FAR, value and slope at FAR
    "relu": (0, 0, FAR, 1),
    "relu6": (0, 0, 6, 0),
    "leaky_relu": (-0.01 * FAR, 0.01, FAR, 1),
    "elu": (-1, 0, FAR, 1),
    "celu": (-1, 0, FAR, 1),
    "selu": (-1.0507009873554805 * 1.6732632423543772, 0, 1.0507009873554805 * FAR, 1.05070098735),
    "gelu": (0, 0, FAR, 1),
    "silu": (0, 0, FAR, 1),
    "mish": (0, 0, FAR, 1),
    "softplus": (0, 0, FAR, 1),
    "softsign": (-FAR / (1 + FAR), (1 + FAR) ** -2, FAR / (1 + FAR), (1 + FAR) ** -2),
    "hardswish": (0, 0, FAR, 1),
    "hardsigmoid": (0, 0, 1, 0),
    "hardtanh": (-1, 0, 1, 0),
    "logsigmoid": (-FAR, 1, 0, 0),
    "tanh": (-1, 0, 1, 0),
    "sigmoid": (0, 0, 1, 0),
    "tanhshrink": (1 - FAR, 1, FAR - 1, 1),
    "softshrink": (0.5 - FAR, 1, FAR - 0.5, 1),
    "hardshrink": (-FAR, 1, FAR, 1),
}


def value_and_slope(function: Any, x: Any, dtype: Any = tg.float64) -> tuple[Any, Any]:
    """f(x) and f'(x), element by element."""
    tensor = tg.tensor(x, dtype=dtype, requires_grad=True)
    y = function(tensor)
    y.backward(tg.ones(*y.shape, dtype=y.dtype))
    assert y.dtype == tensor.grad.dtype == dtype
    return y.detach().numpy(), tensor.grad.numpy()


class TestFarFromZero:
    @pytest.mark.parametrize("name", LIMITS)
    def test_values_and_slopes_are_the_limits_without_a_warning(self, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, slope = value_and_slope(getattr(F, name), [-FAR, FAR], tg.float32)
        low, low_slope, high, high_slope = LIMITS[name]
        # one rounding to float32, or two
        np.testing.assert_allclose(y, [low, high], rtol=2e-7)
        np.testing.assert_allclose(slope, [low_slope, high_slope], rtol=2e-7)

    def test_the_approximate_gelu_has_no_overflow(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, slope = value_and_slope(
                lambda x: F.gelu(x, approximate="tanh"), [-1e30, 1e30], tg.float32
            )
        np.testing.assert_array_equal(y, np.float32([0, 1e30]))
        np.testing.assert_array_equal(slope, [0, 1])

    @pytest.mark.parametrize(
        ("name", "value", "slope"),
        [
            ("softplus", lambda e: np.log1p(e), lambda e: e / (1 + e)),
            ("logsigmoid", lambda e: np.log(e) - np.log1p(e), lambda e: 1 / (1 + e)),
            ("silu", lambda e: np.log(e) * e / (1 + e), None),
            (
                "mish",
                lambda e: np.log(e) * np.tanh(np.log1p(e)),
                lambda e: (
                    np.tanh(np.log1p(e)) + np.log(e) * e / (1 + e) / np.cosh(np.log1p(e)) ** 2
                ),
            ),
        ],
    )
    def test_small_results_are_right_relative_to_themselves(
        self, name: str, value: Any, slope: Any
    ) -> None:
        x = np.linspace(-80, 15, 191, dtype=np.float32)
        y, dy = value_and_slope(getattr(F, name), x, tg.float32)
        e = np.exp(x.astype(np.float64))
        # exp of float32 at -80 rounds to a few units of the last place, 6e-8 each
        np.testing.assert_allclose(y, value(e), rtol=1e-6)
        if slope is not None:  # where it passes through 0 it is right to float32's eps
            np.testing.assert_allclose(dy, slope(e), rtol=2e-6, atol=1e-9)


class TestKinks:
    @pytest.mark.torch
    @pytest.mark.parametrize(
        "name",
        "relu relu6 leaky_relu elu celu selu softplus softsign hardswish hardsigmoid hardtanh "
        "softshrink hardshrink".split(),
    )
    def test_have_the_subgradient_of_pytorch(self, name: str) -> None:
        torch = pytest.importorskip("torch")
        points = [-6.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 20.0]
        y, slope = value_and_slope(getattr(F, name), points)
        x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
        theirs = getattr(torch.nn.functional, name)(x)
        theirs.sum().backward()
        np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-12)
        # PyTorch's hardsigmoid has 1/6 in float32
        np.testing.assert_allclose(
            slope, x.grad.numpy(), rtol=1e-12 if name != "hardsigmoid" else 1e-7
        )

    def test_of_prelu_belongs_to_the_weighted_side(self) -> None:
        weight = tg.tensor([0.25], dtype=tg.float64)
        _, slope = value_and_slope(lambda x: F.prelu(x, weight), [0.0])
        assert slope == [0.25]


class TestHalfPrecision:
    @pytest.mark.parametrize("name", LIMITS)
    def test_rounds_once(self, name: str) -> None:
        x = np.linspace(-8, 8, 101).astype(np.float16)
        y, slope = value_and_slope(getattr(F, name), x, tg.float16)
        exact, exact_slope = value_and_slope(getattr(F, name), x.astype(np.float64))
        # half a unit of the last place is 2^-11; tanhshrink is two operations, and cancels near 0
        rtol, atol = (2**-10.9, 1e-6) if name != "tanhshrink" else (2**-9, 2**-11)
        np.testing.assert_allclose(y.astype(np.float64), exact, rtol=rtol, atol=atol)
        atol = 1e-6 if name not in ("tanh", "tanhshrink", "sigmoid") else 2**-10
        np.testing.assert_allclose(slope.astype(np.float64), exact_slope, rtol=rtol, atol=atol)


class TestSoftmax:
    @pytest.mark.parametrize("scale", [1e4, 1e30])
    def test_of_extreme_scores_is_certain(self, scale: float) -> None:
        x = tg.tensor([[-scale, scale, 0.0]], dtype=tg.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(F.softmax(x, 1).numpy(), [[0, 1, 0]])
            expected = np.float32([[-2 * scale, 0, -scale]])
            np.testing.assert_array_equal(F.log_softmax(x, 1).numpy(), expected)

    def test_of_ties_is_even(self) -> None:
        x = tg.full((2, 4), 1e30, dtype=tg.float32)
        np.testing.assert_array_equal(F.softmax(x, 1).numpy(), np.full((2, 4), 0.25))

    def test_gives_minus_infinity_no_probability(self) -> None:
        x = tg.tensor([[-np.inf, 0.0, 0.0]], dtype=tg.float64, requires_grad=True)
        y = F.softmax(x, 1)
        y.square().sum().backward()
        np.testing.assert_array_equal(y.detach().numpy(), [[0, 0.5, 0.5]])
        np.testing.assert_array_equal(x.grad.numpy(), [[0, 0, 0]])

    @pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
    def test_of_nothing_but_minus_infinity_is_nan(self, function: Any) -> None:
        x = tg.tensor([[-np.inf, -np.inf], [0.0, 0.0]])
        y = function(x, 1).numpy()
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()

    def test_computes_in_the_dtype_asked_for(self) -> None:
        x = tg.tensor([[1, 2, 3]])
        assert F.softmax(x, 1, dtype=tg.float64).dtype == tg.float64
        expected = F.softmin(x.double(), 1)
        assert F.softmin(tg.tensor([[1, 2, 3]], dtype=tg.uint8), 1, dtype=tg.float64).numpy() == (
            pytest.approx(expected.numpy(), rel=1e-15)
        )

    def test_refuses_to_guess_the_axis(self) -> None:
        with pytest.raises(ShapeError, match="expected dim"):
            F.softmax(tg.zeros(2, 3))
        with pytest.raises(ShapeError, match="expected dim"):
            nn.Softmax()
        with pytest.raises(ShapeError, match="within"):
            F.log_softmax(tg.zeros(2, 3), 2)

    def test_refuses_integers_without_a_dtype(self) -> None:
        with pytest.raises(DtypeError, match="give dtype="):
            F.softmax(tg.tensor([1, 2]), 0)


class TestArguments:
    @pytest.mark.parametrize(
        "name", [name for name in LIMITS if name not in ("relu", "tanh", "sigmoid")]
    )
    def test_must_be_floats(self, name: str) -> None:
        with pytest.raises(DtypeError, match="expected floats"):
            getattr(F, name)(tg.tensor([1, 2]))

    @pytest.mark.parametrize(
        "name",
        "relu relu6 leaky_relu elu celu selu silu mish hardtanh hardsigmoid hardswish".split(),
    )
    def test_inplace_is_accepted_and_has_no_effect(self, name: str) -> None:
        x = tg.tensor([-4.0, -0.5, 0.5, 8.0])
        y = getattr(F, name)(x, inplace=True)
        assert y.tolist() == getattr(F, name)(x).tolist() != x.tolist()
        assert x.tolist() == [-4.0, -0.5, 0.5, 8.0]

    def test_relu_keeps_integers_and_refuses_booleans(self) -> None:
        y = F.relu(tg.tensor([-1, 2], dtype=tg.int16))
        assert y.dtype == tg.int16
        assert y.tolist() == [0, 2]
        with pytest.raises(DtypeError, match="got bool"):
            F.relu(tg.tensor([True]))

    def test_out_of_range_are_named(self) -> None:
        x = tg.zeros(3)
        for call, message in [
            (lambda: F.gelu(x, approximate="erf"), "'none' or 'tanh'"),
            (lambda: F.celu(x, 0.0), "alpha other than 0"),
            (lambda: F.softplus(x, beta=0.0), "beta other than 0"),
            (lambda: F.hardtanh(x, 1.0, -1.0), "min_val ≤ max_val"),
            (lambda: F.softshrink(x, -1.0), "lambd ≥ 0"),
            (lambda: nn.PReLU(0), "num_parameters ≥ 1"),
        ]:
            with pytest.raises(ArgumentError, match=message):
                call()

    def test_of_the_wrong_shape_are_named(self) -> None:
        with pytest.raises(ShapeError, match="even size"):
            F.glu(tg.zeros(2, 3))
        with pytest.raises(ShapeError, match=r"\(1,\) or \(3,\)"):
            F.prelu(tg.zeros(2, 3), tg.zeros(2))
        with pytest.raises(DtypeError, match="weight in float32"):
            F.prelu(tg.zeros(2, 3), tg.zeros(3, dtype=tg.float64))


MODULES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in "Tanh Sigmoid LogSigmoid Softsign Tanhshrink".split()),
    *(
        (name, {"inplace": True})
        for name in "ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid".split()
    ),
    ("LeakyReLU", {"negative_slope": 0.2, "inplace": True}),
    ("PReLU", {}),
    ("PReLU", {"num_parameters": 4, "init": 0.1}),
    ("ELU", {"alpha": 0.7, "inplace": True}),
    ("CELU", {"alpha": 0.7, "inplace": True}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("Softplus", {"beta": 2.0, "threshold": 1.0}),
    ("Hardtanh", {"min_val": -0.5, "max_val": 0.7, "inplace": True}),
    ("Softshrink", {"lambd": 0.2}),
    ("Hardshrink", {"lambd": 0.2}),
    ("Threshold", {"threshold": 0.1, "value": 3.0}),
    ("Softmax", {"dim": 1}),
    ("LogSoftmax", {"dim": 0}),
    ("Softmin", {"dim": -1}),
    ("GLU", {}),
    ("GLU", {"dim": 1}),
]


class TestModules:
    @pytest.mark.torch
    @pytest.mark.parametrize(("name", "options"), MODULES, ids=str)
    def test_take_pytorchs_arguments_and_give_its_results(
        self, name: str, options: dict[str, Any]
    ) -> None:
        torch = pytest.importorskip("torch")
        values = np.random.default_rng(0).standard_normal((3, 4, 2)) * 2
        ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        x = tg.tensor(values)
        y = ours.double()(x)
        expected = theirs.double()(torch.tensor(values))
        # 1e-15 where 1 + tanh(x) cancels
        np.testing.assert_allclose(
            y.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-15
        )
        np.testing.assert_array_equal(x.numpy(), values)  # inplace has no effect

    def test_print_their_options(self) -> None:
        assert repr(nn.ReLU(inplace=True)) == "ReLU()"
        assert repr(nn.ELU(0.5)) == "ELU(alpha=0.5)"
        assert repr(nn.GELU("tanh")) == "GELU(approximate='tanh')"
        assert repr(nn.PReLU(4)) == "PReLU(num_parameters=4)"
        assert repr(nn.Softmax(1)) == "Softmax(dim=1)"

    def test_prelu_learns_its_slope(self) -> None:
        module = nn.PReLU(2)
        module(tg.tensor([[-1.0, 2.0], [-3.0, -5.0]])).sum().backward()
        assert module.weight.grad.tolist() == [-4.0, -5.0]


def test_the_slope_of_mish_at_numbers_of_any_size() -> None:
    x = tg.tensor([1e4, 1e17, 1e30], dtype=tg.float64, requires_grad=True)
    F.mish(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1, 1e-15)  # rounded a few times
