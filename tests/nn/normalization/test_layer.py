"""Layer norm: PyTorch's semantics, more exactly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.training import assert_trains_like_pytorch
from tinygrad_bn import nn
from tinygrad_bn.errors import BackendError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F


class TestLayerNorm:
    def test_normalizes_the_trailing_axes(self, device):
        x = normal(6, 3, 5, mean=1e4)
        y = nn.LayerNorm((3, 5), device=device)(tg.tensor(x, device=device))
        np.testing.assert_allclose(y.tolist(), standardized(x, (1, 2)), atol=2e-6)

    def test_scales_and_shifts_each_element(self, device):
        x, w, b = normal(4, 2, 3), normal(2, 3), normal(3, 2).T
        tensors = [tg.tensor(v, device=device) for v in (x, w, b)]
        y = F.layer_norm(tensors[0], (2, 3), *tensors[1:])
        np.testing.assert_allclose(y.tolist(), standardized(x, (1, 2)) * w + b, atol=1e-6)

    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (-1e6, 1.0), (0.0, 1e30), (0.0, 1e-30)]
    )
    def test_at_any_offset_and_scale(self, offset, scale, device):
        x = normal(32, 20, mean=offset, std=scale)
        y = F.layer_norm(tg.tensor(x, device=device), 20)
        # 2e-6 is the promise; at 1e-30 ε makes y tiny, and the error is relative
        np.testing.assert_allclose(y.tolist(), standardized(x, 1), rtol=2e-6, atol=2e-6 * 1e-25)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_sample_gives_exactly_its_bias(self, dtype, device):
        options = {"dtype": dtype, "device": device}
        bias = tg.tensor(normal(7), **options)
        y = F.layer_norm(tg.full((3, 7), 0.1, **options), 7, None, bias)
        assert (y == bias).all()

    def test_nan_and_infinity_stay_in_their_sample(self, device):
        x = normal(5, 4)
        x[1, 2], x[3, 0] = np.nan, np.inf
        a = tg.tensor(x, device=device, requires_grad=True)
        y = F.layer_norm(a, 4)
        y.backward(tg.tensor(normal(4, 5).T.copy(), device=device))
        for values in (y.tolist(), a.grad.tolist()):
            assert np.isnan(values)[[1, 3]].all()
            assert np.isfinite(values)[[0, 2, 4]].all()

    def test_sixteen_bits_are_normalized_in_sixty_four(self, device):
        layer = nn.LayerNorm(64, dtype=tg.float16, device=device)
        x = tg.tensor(normal(8, 64, mean=100, std=0.5), dtype=tg.float16, device=device)
        y = layer(x)
        assert y.dtype == np.float16
        expected = standardized(x.cpu().numpy(), 1)
        # half of float16's last digit at 4
        np.testing.assert_allclose(y.tolist(), expected, atol=2e-3)

    def test_refuses_other_trailing_axes(self):
        with pytest.raises(ShapeError, match=r"expected \(\*, 3, 5\)"):
            nn.LayerNorm((3, 5))(tg.zeros(4, 5, 3))
        with pytest.raises(ShapeError, match=r"expected \(\*, 2, 3\).*got \(3,\)"):
            F.layer_norm(tg.zeros(3), (2, 3))
        with pytest.raises(ShapeError, match="at least one axis"):
            F.layer_norm(tg.zeros(2, 3), ())

    def test_refuses_parameters_that_do_not_fit(self):
        x = tg.zeros(2, 3)
        with pytest.raises(ShapeError, match=r"weight of shape \(3,\), got \(2,\)"):
            F.layer_norm(x, 3, tg.ones(2))
        with pytest.raises(ShapeError, match=r"bias of shape \(3,\), got \(1, 3\)"):
            F.layer_norm(x, 3, None, tg.ones(1, 3))
        with pytest.raises(DtypeError, match="floats as bias, got int64"):
            F.layer_norm(x, 3, None, tg.zeros(3, dtype=tg.int64))
        with pytest.raises(BackendError, match="on cpu"):
            F.layer_norm(x, 3, tg.ones(3, device="cuda"))

    def test_refuses_integers(self):
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            nn.LayerNorm(3)(tg.zeros(2, 3, dtype=tg.int64))

    @pytest.mark.parametrize(("shape", "size"), [((0, 3), 3), ((2, 0, 3), (0, 3)), ((4, 0), 0)])
    def test_nothing_gives_nothing(self, shape, size, device):
        x = tg.zeros(shape, device=device, requires_grad=True)
        layer = nn.LayerNorm(size, device=device)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert not any(p.grad.sum() for p in layer.parameters())

    def test_an_epsilon_below_zero_is_that_of_pytorch(self):
        x = normal(4, 9, std=3.0, dtype=np.float64)
        y = F.layer_norm(tg.tensor(x), 9, eps=-0.5)
        np.testing.assert_allclose(y.numpy(), standardized(x, 1, eps=-0.5), rtol=1e-13)

    def test_shows_how_it_was_made(self):
        shown = "LayerNorm((2, 3), eps=0.001, elementwise_affine=True)"
        assert repr(nn.LayerNorm([2, 3], eps=1e-3)) == shown


@pytest.mark.torch
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (8, 4)),
        ({"bias": False}, (8, 4)),
        ({"elementwise_affine": False, "eps": 1e-3}, (8, 4)),
        ({"eps": 0.1}, (3, 2, 4)),
    ],
    ids=str,
)
def test_fifty_steps_are_those_of_pytorch(options, shape):
    assert_trains_like_pytorch("LayerNorm", (shape[-1:],), options, shape)
