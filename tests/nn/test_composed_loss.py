"""Losses that are short formulas of other operations."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.oracle import assert_as_pytorch, drawn
from tinygrad_bn.errors import RangeError, ShapeError
from tinygrad_bn.nn import functional as F


@pytest.mark.torch
class TestPyTorchAgrees:
    def test_on_targets_that_are_no_sign(self) -> None:
        x, t = drawn(6), np.array([1.0, -1.0, 0.0, 0.0, 2.0, -3.0])
        assert_as_pytorch("hinge_embedding_loss", x, t, reduction="none")

    @pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4), (4, 1, 4), (4, 4, 1)], ids=str)
    def test_on_gaussians_with_a_variance_for_several(self, shape: tuple[int, ...]) -> None:
        # (4, 4) has a variance for each row of (4, 4, 4), and not for each of the last two axes
        var = np.abs(drawn(*shape, seed=1))
        for t in (drawn(4, 4, 4, seed=2), drawn(4, 1, seed=2)):
            assert_as_pytorch("gaussian_nll_loss", drawn(4, 4, 4), t, var=var, full=True)

    def test_on_gaussians_of_one_variance(self) -> None:
        assert_as_pytorch("gaussian_nll_loss", drawn(3, 4), drawn(3, 4, seed=1), var=0.3)

    def test_on_the_gradient_of_variances_below_eps(self) -> None:
        torch = pytest.importorskip("torch")
        grads = []
        for library, function in ((tg, F), (torch, torch.nn.functional)):
            var = library.tensor(np.array([0.0, 1e-9, 0.5])).requires_grad_()
            x, t = (library.tensor(a) for a in (drawn(3), drawn(3, seed=1)))
            function.gaussian_nll_loss(x, t, var, eps=1e-3).backward()
            grads.append(var.grad.numpy())
        np.testing.assert_allclose(*grads, rtol=1e-12)  # float64

    def test_on_the_similarity_with_a_vector_of_zeros(self) -> None:
        x = np.array([[0.0, 0.0], [1e-3, 0.0], [3.0, 4.0]])
        assert_as_pytorch("cosine_similarity", x, np.array([[1.0, 2.0]] * 3))


class TestVariances:
    def test_variances_of_another_shape_are_refused(self) -> None:
        x = tg.zeros(2, 3)
        for shape in [(3,), (1,), (2, 2), (1, 2, 3)]:
            with pytest.raises(ShapeError, match="variance"):
                F.gaussian_nll_loss(x, x, tg.ones(shape))
        with pytest.raises(ShapeError, match="target that broadcasts"):
            F.gaussian_nll_loss(x, tg.zeros(4, 2, 3), x)

    def test_negative_variances_are_refused(self) -> None:
        with pytest.raises(RangeError, match="variances ≥ 0"):
            F.gaussian_nll_loss(tg.zeros(2), tg.zeros(2), tg.tensor([1.0, -1.0]))
