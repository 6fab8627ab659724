"""Statistics where they are hard: offsets, too few elements, zeros, infinities."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def grad_of(y: tg.Tensor, x: tg.Tensor) -> np.ndarray:
    return tg.autograd.grad(y.sum(), x)[0].cpu().numpy()


class TestVariance:
    @pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
    def test_does_not_suffer_from_an_offset(self, offset: float, device: str) -> None:
        rng = np.random.default_rng(0)
        x = (offset + 1e-2 * rng.standard_normal((512, 3))).astype(np.float32)
        t = tg.tensor(x, device=device, requires_grad=True)
        y = t.var(0)
        wide = x.astype(np.float64)
        # 512 terms, accumulated at worst in float32
        np.testing.assert_allclose(y.detach().cpu().numpy(), wide.var(0, ddof=1), rtol=1e-6)
        expected = 2 * (wide - wide.mean(0)) / 511
        np.testing.assert_allclose(
            grad_of(y, t), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
        )

    def test_of_float16_does_not_underflow_under_the_root(self, device: str) -> None:
        x = np.array([1e-4, -1e-4, 2e-4, -2e-4], np.float16)  # whose variance is below 6e-8
        found = tg.tensor(x, device=device).std().item()
        assert found == pytest.approx(x.astype(np.float64).std(ddof=1), rel=2**-10)

    @pytest.mark.torch
    @pytest.mark.usefixtures("no_warnings")
    @pytest.mark.parametrize("values", [[], [2.0], [2.0, 3.0], [2.0, 2.0]])
    @pytest.mark.parametrize("correction", [0, 1, 2, 3.5])
    @pytest.mark.parametrize("name", ["var", "std"])
    def test_of_too_few_is_pytorchs(
        self, name: str, correction: float, values: list[float], device: str
    ) -> None:
        torch = pytest.importorskip("torch")
        x = tg.tensor(values, device=device, requires_grad=True)
        other = torch.tensor(values, requires_grad=True)
        found = getattr(x, name)(correction=correction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = getattr(other, name)(correction=correction)
        assert found.item() == pytest.approx(expected.item(), nan_ok=True)
        if len(values) > correction:
            expected.backward()
            np.testing.assert_allclose(grad_of(found, x), other.grad.numpy(), rtol=1e-6)

    def test_says_how_it_is_corrected_once(self, device: str) -> None:
        with pytest.raises(ArgumentError, match="unbiased or correction"):
            tg.ones(3, device=device).var(unbiased=False, correction=1)

    def test_of_whole_numbers_is_refused(self, device: str) -> None:
        with pytest.raises(DtypeError, match="int64"):
            tg.tensor([1, 2], device=device).var()

    def test_the_gradient_of_a_constants_deviation_is_zero(self, device: str) -> None:
        x = tg.full((4,), 3.0, device=device, requires_grad=True)
        assert grad_of(x.std(), x).tolist() == [0, 0, 0, 0]


class TestNorms:
    @pytest.mark.parametrize("p", [1, 1.5, 2, 3])
    def test_have_the_gradient_zero_at_the_origin_to_order_two(self, p: float, device: str) -> None:
        x = tg.zeros(3, device=device, requires_grad=True)
        (dx,) = tg.autograd.grad(tg.linalg.vector_norm(x, p), x, create_graph=True)
        assert dx.tolist() == [0, 0, 0]
        (d2x,) = tg.autograd.grad(dx.sum() + 0 * x.sum(), x)  # which exists, whatever dx depends on
        assert np.isfinite(d2x.cpu().numpy()).all()

    @pytest.mark.parametrize("p", [-2, -0.5])
    def test_of_negative_order_are_zero_flatly_where_an_element_is(self, p, device: str) -> None:
        x = tg.tensor([2.0, 0.0], device=device, requires_grad=True)
        y = tg.linalg.vector_norm(x, p)
        assert y.item() == 0
        assert grad_of(y, x).tolist() == [0, 0]

    @pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3)])
    @pytest.mark.parametrize("order", [1, math.inf])
    def test_of_matrices_without_elements_are_zero(self, order, shape, device: str) -> None:
        assert tg.linalg.norm(tg.zeros(shape, device=device), order).item() == 0

    def test_of_great_float32_do_not_overflow(self) -> None:
        assert tg.tensor([3e30, 4e30]).norm().item() == pytest.approx(5e30, rel=1e-7)

    def test_of_infinite_order_share_the_gradient_at_ties(self, device: str) -> None:
        x = tg.tensor([2.0, -2.0, 1.0], device=device, requires_grad=True)
        assert grad_of(tg.linalg.vector_norm(x, math.inf), x).tolist() == [0.5, -0.5, 0]

    def test_that_need_singular_values_are_refused(self, device: str) -> None:
        x = tg.ones(2, 2, device=device)
        for call in (lambda: x.norm("nuc"), lambda: tg.linalg.norm(x, 2)):
            with pytest.raises(ArgumentError, match="got"):
                call()

    def test_of_matrices_need_two_axes(self, device: str) -> None:
        with pytest.raises(ShapeError, match="one axis for a vector or two for a matrix"):
            tg.linalg.norm(tg.ones(2, 2, 2, device=device), 1)

    def test_of_whole_numbers_need_a_dtype(self, device: str) -> None:
        x = tg.tensor([3, 4], device=device)
        with pytest.raises(DtypeError, match="give dtype="):
            x.norm()
        assert x.norm(dtype=tg.float64).item() == 5


@pytest.mark.usefixtures("no_warnings")
class TestLogSumExp:
    def test_of_only_minus_infinity_is_that_and_has_no_gradient(self, device: str) -> None:
        x = tg.tensor([[-math.inf, -math.inf], [0.0, -math.inf]], device=device)
        y = x.requires_grad_().logsumexp(1)
        assert y.tolist() == [-math.inf, 0]
        assert grad_of(y, x).tolist() == [[0, 0], [1, 0]]

    def test_of_infinity_is_infinity(self, device: str) -> None:
        assert tg.tensor([1.0, math.inf], device=device).logsumexp(0).item() == math.inf

    def test_of_nan_is_nan(self, device: str) -> None:
        assert math.isnan(tg.tensor([1.0, math.nan], device=device).logsumexp(0).item())

    def test_does_not_overflow(self, device: str) -> None:
        x = tg.tensor([1e4, 1e4], dtype=tg.float16, device=device)
        assert x.logsumexp(0).item() == pytest.approx(1e4 + math.log(2), rel=2**-11)


class TestLogAddExp:
    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_shares_the_gradient_of_equal_infinities(self, value: float, device: str) -> None:
        a, b = (tg.full((), value, device=device, requires_grad=True) for _ in range(2))
        tg.logaddexp(a, b).backward()
        assert (a.grad.item(), b.grad.item()) == (0.5, 0.5)
