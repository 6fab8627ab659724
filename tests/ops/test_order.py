"""The greatest, the smallest and sorting: ties, NaN, nothing to choose from."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError, ShapeError

NAN = math.nan


def grad_of(y: tg.Tensor, x: tg.Tensor) -> list:
    return tg.autograd.grad(y.sum(), x)[0].tolist()


class TestTies:
    @pytest.mark.parametrize("name", ["amax", "max"])
    def test_share_the_gradient_evenly(self, name: str, device: str) -> None:
        x = tg.tensor([[1.0, 3.0, 3.0]], device=device, requires_grad=True)
        assert grad_of(getattr(x, name)(), x) == [[0, 0.5, 0.5]]

    def test_along_an_axis_the_first_gets_it(self, device: str) -> None:
        x = tg.tensor([[1.0, 3.0, 3.0]], device=device, requires_grad=True)
        y = x.max(1)
        assert y.indices.tolist() == [1]
        assert grad_of(y.values, x) == [[0, 1, 0]]

    def test_of_many_float16_are_counted_beyond_its_range(self, device: str) -> None:
        x = tg.zeros(70_000, dtype=tg.float16, device=device, requires_grad=True)
        dx = tg.autograd.grad(x.amax(), x)[0]
        assert dx[0].item() == np.float16(1 / 70_000)

    @pytest.mark.torch
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("name", ["bool", "uint8", "int64", "float16", "bfloat16", "float64"])
    def test_keep_their_order_when_sorted(self, name: str, descending: bool, device: str) -> None:
        torch = pytest.importorskip("torch")
        if name == "bfloat16":
            pytest.importorskip("ml_dtypes")
        x = np.random.default_rng(0).integers(0, 4, (50, 3))
        found = tg.tensor(x, dtype=getattr(tg, name), device=device).sort(0, descending)
        expected = (
            torch.tensor(x).to(getattr(torch, name)).sort(dim=0, descending=descending, stable=True)
        )
        np.testing.assert_array_equal(found.indices.cpu().numpy(), expected.indices.numpy())


class TestNaN:
    """NaN counts as the greatest in sorting, and is what every maximum and minimum gives."""

    def test_is_the_extreme_of_everything(self, device: str) -> None:
        x = tg.tensor([1.0, NAN, 3.0, NAN], device=device, requires_grad=True)
        for name in ("max", "min", "amax", "amin"):
            assert math.isnan(getattr(x, name)().item())
        assert x.argmax().item() == x.argmin().item() == 1
        assert grad_of(x.amax(), x) == [0, 0.5, 0, 0.5]

    @pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
    def test_is_sorted_last_or_first(self, name: str, device: str) -> None:
        if name == "bfloat16":
            pytest.importorskip("ml_dtypes")
        x = tg.tensor([1.0, NAN, -3.0, NAN, math.inf], dtype=getattr(tg, name), device=device)
        assert x.argsort().tolist() == [2, 0, 4, 1, 3]
        assert x.argsort(descending=True).tolist() == [1, 3, 4, 0, 2]
        assert x.topk(3).indices.tolist() == [1, 3, 4]
        assert x.topk(2, largest=False).indices.tolist() == [2, 0]


class TestNothing:
    @pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "argmax", "argmin"])
    def test_has_no_extreme(self, name: str, device: str) -> None:
        x = tg.zeros(3, 0, device=device)
        with pytest.raises(ShapeError, match=r"elements along the axes \(1,\), got shape \(3, 0\)"):
            getattr(x, name)(1)
        with pytest.raises(ShapeError, match="expected elements"):
            getattr(x, name)()

    def test_along_an_axis_that_has_elements_is_nothing(self, device: str) -> None:
        assert tg.zeros(3, 0, device=device).amax(0).shape == (0,)
        assert tg.zeros(3, 0, device=device).max(0).values.shape == (0,)


class TestResults:
    def test_have_names(self, device: str) -> None:
        values, indices = result = tg.tensor([2.0, 1.0], device=device).sort()
        assert result.values is values
        assert result.indices is indices
        assert indices.dtype == tg.int64
        assert not indices.requires_grad

    def test_of_two_tensors_are_the_elementwise_extreme(self, device: str) -> None:
        a, b = tg.tensor([1, 5], device=device), tg.tensor([3, 2], device=device)
        assert tg.max(a, b).tolist() == [3, 5]
        assert tg.min(a, b).tolist() == [1, 2]

    def test_of_more_than_there_are_is_refused(self, device: str) -> None:
        with pytest.raises(ArgumentError, match=r"k within \[0, 3\], got 4"):
            tg.ones(2, 3, device=device).topk(4)

    def test_of_argmax_over_all_keep_the_rank_if_asked(self, device: str) -> None:
        y = tg.tensor([[1, 2], [9, 3]], device=device).argmax(keepdim=True)
        assert y.tolist() == [[2]]
