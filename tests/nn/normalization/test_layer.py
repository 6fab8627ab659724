"""Layer norm: PyTorch's semantics, more exactly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.exact import standardized
from tinygrad_bn import nn
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn import functional as F

RNG = np.random.default_rng(0)


class TestLayerNorm:
    def test_normalizes_the_trailing_axes(self, device):
        x = RNG.normal(1e4, 1.0, (6, 3, 5)).astype(np.float32)
        y = nn.LayerNorm((3, 5), device=device)(tg.tensor(x, device=device))
        np.testing.assert_allclose(y.tolist(), standardized(x, (1, 2)), atol=2e-6)

    def test_refuses_other_trailing_axes(self):
        with pytest.raises(ShapeError, match=r"expected \(\*, 3, 5\)"):
            nn.LayerNorm((3, 5))(tg.zeros(4, 5, 3))
        with pytest.raises(ShapeError, match=r"weight of shape \(3,\)"):
            F.layer_norm(tg.zeros(2, 3), 3, tg.ones(2))

    def test_an_empty_batch_is_empty(self):
        x = tg.zeros(0, 3, requires_grad=True)
        layer = nn.LayerNorm(3)
        layer(x).sum().backward()
        assert x.grad.shape == (0, 3)
        assert layer.weight.grad.tolist() == [0.0] * 3
