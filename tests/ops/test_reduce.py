"""Reductions: dtypes, empty axes, accumulation, and products with zeros."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import DtypeError, ShapeError


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class TestDtypes:
    @pytest.mark.parametrize("dtype", [tg.bool, tg.uint8, tg.int32, tg.int64])
    @pytest.mark.parametrize("name", ["sum", "prod"])
    def test_of_whole_numbers_are_int64(self, name: str, dtype: object, device: str) -> None:
        y = getattr(tg.tensor([1, 1, 0], dtype=dtype, device=device), name)()
        assert y.dtype == tg.int64

    def test_may_be_given(self, device: str) -> None:
        x = tg.tensor([2, 3], device=device)
        assert x.sum(dtype=tg.float64).dtype == tg.float64
        assert x.mean(dtype=tg.float32).item() == 2.5
        assert x.cumsum(0, dtype=tg.float32).dtype == tg.float32

    def test_a_mean_of_whole_numbers_needs_one(self, device: str) -> None:
        with pytest.raises(DtypeError, match="int64; give dtype="):
            tg.tensor([1, 2], device=device).mean()


@pytest.mark.usefixtures("no_warnings")
class TestNothing:
    def test_sums_to_zero(self, device: str) -> None:
        assert tg.zeros(0, device=device).sum().item() == 0

    def test_multiplies_to_one(self, device: str) -> None:
        assert tg.zeros(2, 0, device=device).prod(1).tolist() == [1, 1]

    def test_has_no_mean(self, device: str) -> None:
        assert math.isnan(tg.zeros(0, device=device).mean().item())
        assert tg.zeros(0, 3, device=device).mean(1).shape == (0,)


class TestAxes:
    def test_out_of_range_are_refused(self, device: str) -> None:
        with pytest.raises(ShapeError, match=r"within \[-2, 2\), got 2"):
            tg.zeros(2, 3, device=device).sum(2)

    def test_given_twice_are_refused(self, device: str) -> None:
        with pytest.raises(ShapeError, match="each axis once"):
            tg.zeros(2, 3, device=device).mean((0, -2))

    def test_none_given_means_all(self, device: str) -> None:
        assert tg.ones(2, 3, device=device).sum(()).shape == ()


class TestAccumulation:
    @pytest.mark.parametrize("name", ["sum", "mean"])
    def test_of_many_float32_down_a_column_loses_nothing(self, name: str) -> None:
        """Added one by one in float32, a million tenths are off by a percent."""
        x = np.full((1_000_000, 2), 0.1, np.float32)
        found = getattr(tg.tensor(x), name)(0).numpy()
        # rounded once, to half a unit in the last place
        np.testing.assert_allclose(found, getattr(x, name)(0, dtype=np.float64), rtol=6e-8)

    def test_of_many_float16_does_not_overflow_on_the_way(self, device: str) -> None:
        x = tg.full((4096,), 32.0, dtype=tg.float16, device=device)
        assert x.mean().item() == 32

    def test_of_a_running_product_of_bytes_of_mantissa_rounds_once(self, device: str) -> None:
        x = np.full(40, 1.1, np.float16)
        found = tg.tensor(x, device=device).cumprod(0)
        exact = np.cumprod(x.astype(np.float64))
        # half a unit of float16 in the last place
        np.testing.assert_allclose(found.cpu().numpy(), exact, rtol=2**-11)


class TestProducts:
    def test_with_one_zero_have_a_gradient_there_alone(self, device: str) -> None:
        x = tg.tensor([2.0, 0.0, 3.0], device=device, requires_grad=True)
        x.prod().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [0, 6, 0]

    def test_with_two_zeros_have_a_second_derivative_between_them(self, device: str) -> None:
        x = tg.tensor([0.0, 5.0, 0.0], device=device, requires_grad=True)
        (dx,) = tg.autograd.grad(x.prod(), x, create_graph=True)
        assert dx.tolist() == [0, 0, 0]
        (d2x,) = tg.autograd.grad(dx[0], x)
        assert d2x.tolist() == [0, 0, 5]


class TestTruth:
    def test_of_nothing(self, device: str) -> None:
        x = tg.zeros(0, device=device)
        assert x.all().item() is True
        assert x.any().item() is False

    def test_is_boolean_and_without_a_gradient(self, device: str) -> None:
        y = tg.ones(2, device=device, requires_grad=True).all()
        assert y.dtype == tg.bool
        assert not y.requires_grad
