"""Where element-by-element operations leave what is smooth: kinks, NaN, zeros, whole numbers."""

from __future__ import annotations

import math

import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError, DtypeError


class TestQuotients:
    @pytest.mark.parametrize("mode", ["floor", "trunc"])
    def test_rounded_have_the_gradient_zero_also_over_zero(self, mode: str, device: str) -> None:
        a = tg.tensor([3.0, -3.0, 1.0], device=device, requires_grad=True)
        b = tg.tensor([2.0, 2.0, 0.0], device=device, requires_grad=True)
        y = tg.div(a, b, rounding_mode=mode)
        assert y.tolist() == [1, -2 if mode == "floor" else -1, math.inf]
        assert [g.tolist() for g in tg.autograd.grad(y.sum(), [a, b])] == [[0, 0, 0]] * 2

    def test_of_numbers_by_tensors(self, device: str) -> None:
        assert (7 // tg.tensor([2.0, -2.0], device=device)).tolist() == [3, -4]

    def test_counted_by_a_remainder_are_those_it_was_taken_with(self, device: str) -> None:
        a = tg.tensor(1.0, dtype=tg.float64, device=device)
        b = tg.tensor(0.1, dtype=tg.float64, device=device, requires_grad=True)
        y = tg.remainder(a, b)  # a / b rounds to 10, but b is greater than a tenth: 9 times
        (db,) = tg.autograd.grad(y, b)
        assert db.item() == -9
        assert y.item() == pytest.approx(1 - 9 * 0.1)


class TestBounds:
    @pytest.mark.parametrize("call", [tg.clamp_min, tg.clamp_max])
    def test_that_are_nan_give_nan(self, call, device: str) -> None:
        x, bound = tg.tensor([1.0, 1.0], device=device), tg.tensor([math.nan, 1.0], device=device)
        found = call(x, bound)
        assert math.isnan(found[0].item())
        assert found[1].item() == 1


class TestPowers:
    def test_below_zero_of_whole_numbers_are_refused(self) -> None:
        two = tg.tensor([2])
        for exponent in (-1, tg.tensor([-1])):
            with pytest.raises(ArgumentError, match="expected"):
                two**exponent


class TestAngles:
    def test_have_the_gradient_zero_at_the_origin(self, device: str) -> None:
        x, y = (tg.zeros(1, device=device, requires_grad=True) for _ in range(2))
        assert [g.item() for g in tg.autograd.grad(tg.atan2(y, x), [x, y])] == [0, 0]

    def test_of_two_numbers_are_refused(self) -> None:
        with pytest.raises(DtypeError, match="expected a tensor"):
            tg.atan2(1.0, 2.0)


class TestCloseness:
    def test_of_infinities_is_equality_and_of_nan_is_asked_for(self, device: str) -> None:
        a = tg.tensor([math.inf, math.inf, 1.0, math.nan], device=device)
        b = tg.tensor([math.inf, -math.inf, math.inf, math.nan], device=device)
        assert tg.isclose(a, b).tolist() == [True, False, False, False]
        assert tg.isclose(a, b, equal_nan=True).tolist() == [True, False, False, True]

    def test_is_relative_to_the_second(self) -> None:
        assert tg.allclose(tg.tensor([1.0]), tg.tensor([1.1]), rtol=0.095, atol=0)
        assert not tg.allclose(tg.tensor([1.1]), tg.tensor([1.0]), rtol=0.095, atol=0)

    def test_of_different_dtypes_is_refused(self) -> None:
        with pytest.raises(DtypeError, match="expected one dtype"):
            tg.isclose(tg.tensor([1]), tg.tensor([1.0]))

    def test_of_different_shapes_is_no_equality(self) -> None:
        assert not tg.equal(tg.zeros(2), tg.zeros(3))


class TestRounding:
    @pytest.mark.parametrize(("decimals", "expected"), [(1, 123.5), (0, 123.0), (-2, 100.0)])
    def test_to_decimals(self, decimals: int, expected: float) -> None:
        assert tg.tensor(123.456, dtype=tg.float64).round(decimals=decimals).item() == expected

    def test_whole_numbers_to_decimals_is_refused(self) -> None:
        with pytest.raises(DtypeError, match="expected floats"):
            tg.round(tg.tensor([12]), decimals=-1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("dtype", "number"), [("int64", 10**40), ("int32", 2**40), ("uint8", -1), ("uint8", 300)]
    )
    def test_of_numbers_that_the_integers_do_not_hold(self, dtype: str, number: int) -> None:
        x = tg.tensor([1], dtype=getattr(tg, dtype))
        for refused in (lambda: x + number, lambda: number * x, lambda: x - number):
            with pytest.raises(ArgumentError, match=f"{dtype}|int too large"):
                refused()
        assert (x < number).item() is (number > 1)  # a comparison has an answer

    def test_of_a_difference_of_booleans(self) -> None:
        x = tg.tensor([True])
        with pytest.raises(DtypeError, match="Sub can take"):
            x - x


class TestMoving:
    def test_takes_pytorchs_flags(self, device: str) -> None:
        x = tg.ones(2)
        assert x.to(device, non_blocking=True).device == tg.device(device)
        assert x.to("cpu", tg.float32, True) is x
        assert x.to("cpu", tg.float32, False, True) is not x
        assert x.to("cpu", copy=True) is not x

    def test_to_a_gpu_by_number_or_by_name(self, cuda: str) -> None:
        x = tg.ones(2)
        assert x.cuda().device == x.cuda(0).device == x.cuda(cuda, non_blocking=True).device
