"""Dropout: its masks, its scale, and gradients through it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError

KINDS = [nn.Dropout, nn.AlphaDropout]


class TestDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    def test_a_share_p_goes_and_the_rest_is_scaled(self, p):
        n = 100_000
        y = nn.Dropout(p, generator=tg.Generator().manual_seed(0))(tg.ones(n)).numpy()
        # 5 standard errors of a share
        assert abs((y == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
        assert y[y != 0] == pytest.approx(1 / (1 - p), rel=1e-6)  # one rounding in float32

    def test_every_call_draws_anew_and_the_seed_decides(self):
        x = tg.ones(100)
        m = nn.Dropout()
        tg.manual_seed(7)
        first, second = m(x).numpy(), m(x).numpy()
        assert not np.array_equal(first, second)
        tg.manual_seed(7)
        assert np.array_equal(m(x).numpy(), first)

    def test_an_own_generator_leaves_the_default_one_alone(self):
        tg.manual_seed(0)
        before = tg.get_rng_state().tolist()
        nn.Dropout(generator=tg.Generator())(tg.ones(4))
        assert tg.get_rng_state().tolist() == before

    def test_the_mask_is_the_same_on_every_device(self, cuda):
        masks = []
        for device in ("cpu", cuda):
            tg.manual_seed(3)
            masks.append(nn.Dropout(0.3)(tg.ones(7, 5, device=device)).cpu().numpy())
        assert np.array_equal(*masks)

    def test_gradients_of_every_order_see_the_same_mask(self):
        x = tg.randn(50, dtype=tg.float64, requires_grad=True)
        y = nn.Dropout(0.5)(x * x)
        kept = y.detach().numpy() != 0
        (first,) = tg.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = tg.autograd.grad(first.sum(), x)
        assert np.array_equal(first.detach().numpy(), np.where(kept, 4 * x.detach().numpy(), 0))
        assert np.array_equal(second.numpy(), np.where(kept, 4.0, 0))

    def test_takes_pytorchs_arguments(self):
        x = tg.ones(4)
        assert nn.functional.dropout(x, 1.0, True, True).tolist() == [0.0] * 4
        assert x.tolist() == [1.0] * 4
        assert nn.functional.alpha_dropout(x, 1.0) is x  # which, unlike dropout, must be asked for
        assert nn.functional.alpha_dropout(x, 1.0, True, inplace=True).tolist() == [0.0] * 4

    def test_keeps_the_dtype(self):
        for dtype in (tg.float16, tg.float32, tg.float64):
            assert nn.Dropout()(tg.ones(3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
class TestBothKinds:
    def test_the_identity_in_evaluation_and_for_p_0(self, kind):
        x = tg.ones(4)
        assert kind(0.5).eval()(x) is x
        assert kind(0)(x) is x

    def test_p_1_leaves_zeros(self, kind):
        x = tg.ones(4, requires_grad=True)
        y = kind(1)(x)
        y.sum().backward()
        assert y.tolist() == x.grad.tolist() == [0, 0, 0, 0]

    @pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
    def test_other_probabilities_are_refused(self, kind, p):
        with pytest.raises(ArgumentError, match=r"within \[0, 1\]"):
            kind(p)

    def test_integers_are_refused(self, kind):
        with pytest.raises(DtypeError, match="int64"):
            kind(0.5)(tg.ones(3, dtype=tg.int64))

    def test_representation(self, kind):
        assert repr(kind(0.25, inplace=True)) == f"{kind.__name__}(p=0.25)"


class TestAlphaDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5])
    def test_keeps_mean_and_variance(self, p):
        n = 200_000
        x = tg.randn(n, generator=tg.Generator().manual_seed(1))
        y = nn.AlphaDropout(p, generator=tg.Generator().manual_seed(2))(x).numpy()
        # the fourth moment is below 10: 5 standard errors of mean and variance
        assert abs(y.mean()) < 5 / math.sqrt(n)
        assert abs(y.var() - 1) < 5 * math.sqrt(10 / n)
