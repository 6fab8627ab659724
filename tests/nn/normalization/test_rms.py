"""RMS norm: PyTorch's semantics, more exactly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tests.nn.normalization.training import assert_trains_like_pytorch
from tests.two_backends import dtype_named
from tinygrad_bn import nn
from tinygrad_bn.errors import DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

EPS32, EPS64 = 2.0**-23, 2.0**-52


def exact(x, axes, eps):
    x = np.asarray(x, np.float64)
    return x / np.sqrt(np.mean(x**2, axis=axes, keepdims=True) + eps)


class TestRMSNorm:
    def test_divides_by_the_root_of_the_mean_square(self, device):
        x, w = normal(4, 3, 5, mean=2.0), normal(3, 5)
        layer = nn.RMSNorm((3, 5), device=device)
        layer.load_state_dict({"weight": w})
        y = layer(tg.tensor(x, device=device))
        # two roundings of float32 of numbers up to 8
        np.testing.assert_allclose(y.tolist(), exact(x, (1, 2), EPS32) * w, atol=1e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
    def test_at_any_scale(self, scale, device):
        x = normal(16, 20, std=scale)
        y = F.rms_norm(tg.tensor(x, device=device), 20)
        np.testing.assert_allclose(y.tolist(), exact(x, 1, EPS32), rtol=1e-6)

    @pytest.mark.parametrize(
        ("dtype", "eps"),
        [("float16", EPS32), ("bfloat16", EPS32), ("float32", EPS32), ("float64", EPS64)],
    )
    def test_its_own_epsilon_is_that_of_pytorch(self, dtype, eps, device):
        size = 2.0**-11 if eps == EPS32 else 2.0**-26
        x = tg.full((1, 4), size, dtype=dtype_named(dtype), device=device)
        y = F.rms_norm(x, 4)
        expected = size / np.sqrt(size**2 + eps)
        # one rounding; ε of another dtype would give 0.8 % less at the least
        assert y.tolist()[0] == pytest.approx([expected] * 4, rel=float(tg.finfo(x.dtype).eps))

    @pytest.mark.torch
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_pytorch_has_that_epsilon(self, dtype):
        torch = pytest.importorskip("torch")
        x = torch.full((1, 4), 2.0**-11, dtype=getattr(torch, dtype))
        y = F.rms_norm(tg.full((1, 4), 2.0**-11, dtype=dtype_named(dtype)), 4)
        expected = torch.nn.functional.rms_norm(x, (4,)).double().tolist()
        np.testing.assert_allclose(y.double().tolist(), expected, rtol=torch.finfo(x.dtype).eps)

    def test_nan_stays_in_its_sample(self, device):
        x = normal(3, 4)
        x[1, 2] = np.nan
        y = F.rms_norm(tg.tensor(x, device=device), 4).tolist()
        assert np.isnan(y[1]).all()
        assert np.isfinite([y[0], y[2]]).all()

    def test_zeros_stay_zeros(self, device):
        x = tg.zeros(2, 3, device=device, requires_grad=True)
        y = F.rms_norm(x, 3, eps=1e-6)
        y.sum().backward()
        assert y.tolist() == [[0.0] * 3] * 2
        np.testing.assert_allclose(x.grad.tolist(), 1e3, rtol=1e-6)  # dy / √ε

    def test_sixteen_bits_do_not_overflow(self, device):
        x = tg.tensor(normal(4, 32, std=1e4), dtype=tg.float16, device=device)
        y = nn.RMSNorm(32, dtype=tg.float16, device=device)(x)
        assert y.dtype == np.float16
        expected = exact(x.cpu().numpy(), 1, EPS32)
        np.testing.assert_allclose(y.tolist(), expected, atol=2e-3)  # half a last digit at 4

    def test_has_no_bias(self):
        assert list(nn.RMSNorm(3).state_dict()) == ["weight"]
        assert list(nn.RMSNorm(3, elementwise_affine=False).state_dict()) == []

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(ShapeError, match=r"expected \(\*, 3\)"):
            nn.RMSNorm(3)(tg.zeros(3, 4))
        with pytest.raises(ShapeError, match=r"weight of shape \(3,\)"):
            F.rms_norm(tg.zeros(2, 3), 3, tg.ones(4))
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            F.rms_norm(tg.zeros(2, 3, dtype=tg.int64), 3)

    @pytest.mark.parametrize(("shape", "size"), [((0, 3), 3), ((4, 0), 0)])
    def test_nothing_gives_nothing(self, shape, size, device):
        x = tg.zeros(shape, device=device, requires_grad=True)
        layer = nn.RMSNorm(size, device=device)
        layer(x).sum().backward()
        assert x.grad.shape == shape
        assert not layer.weight.grad.sum()

    def test_shows_how_it_was_made(self):
        assert repr(nn.RMSNorm(3)) == "RMSNorm((3,), eps=None, elementwise_affine=True)"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (8, 4)),
        ({"eps": 1e-2}, (3, 2, 4)),
        ({"elementwise_affine": False}, (8, 4)),
    ],
    ids=str,
)
def test_fifty_steps_are_those_of_pytorch(options, shape):
    assert_trains_like_pytorch("RMSNorm", (shape[-1:],), options, shape)
