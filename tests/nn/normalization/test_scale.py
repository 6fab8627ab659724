"""Scale norm: vectors of one learned length."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.optim import param_groups


class TestScaleNorm:
    @pytest.mark.parametrize("scale", [1.0, 1e30])
    def test_gives_vectors_of_length_g(self, scale, device):
        layer = nn.ScaleNorm(6, device=device)
        x = normal(4, 5, 6, std=scale)
        y = np.array(layer(tg.tensor(x, device=device)).tolist())
        # g, the quotient and the product are rounded to float32
        np.testing.assert_allclose(np.linalg.norm(y, axis=-1), math.sqrt(6), rtol=3e-7)
        np.testing.assert_allclose(
            y / math.sqrt(6), x / np.linalg.norm(np.float64(x), axis=-1)[..., None], rtol=3e-7
        )

    @pytest.mark.parametrize("dtype", [tg.float16, tg.float32], ids=str)
    def test_sixteen_bits_are_rounded_once(self, dtype, device):
        layer = nn.ScaleNorm(6, device=device, dtype=dtype)
        x = tg.tensor(normal(200, 6), device=device, dtype=tg.float16, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        twin = nn.ScaleNorm(6, device=device)
        with tg.no_grad():
            twin.weight.fill_(layer.weight.item())
        exact = twin(x.detach().float())
        exact.sum().backward()
        assert y.dtype == x.grad.dtype == np.float16
        assert y.tolist() == exact.to(tg.float16).tolist()
        assert layer.weight.grad.item() == twin.weight.grad.to(dtype).item()

    def test_is_rms_norm_to_begin_with(self):
        x = tg.tensor(normal(4, 8, dtype=np.float64))
        # 1e-7, since √8 was float32 once
        y, z = nn.ScaleNorm(8).double()(x), nn.RMSNorm(8, eps=0.0).double()(x)
        np.testing.assert_allclose(
            y.detach().numpy(), z.detach().numpy(), rtol=1e-7
        )  # √8 was float32

    def test_g_is_one_number_and_learned(self):
        layer = nn.ScaleNorm(3)
        assert {key: value.shape for key, value in layer.state_dict().items()} == {"weight": ()}
        assert layer.weight.item() == pytest.approx(math.sqrt(3))
        layer(tg.tensor([[0.0, 3.0, 4.0]])).sum().backward()
        assert layer.weight.grad.item() == pytest.approx(1.4)
        with tg.no_grad():
            layer.weight.fill_(5.0)
        layer.reset_parameters()
        assert layer.weight.item() == pytest.approx(math.sqrt(3))

    def test_weight_decay_spares_g(self):
        (group,) = param_groups(nn.ScaleNorm(3))
        assert group["weight_decay"] == 0

    def test_its_gradients_are_right_to_the_second_order(self):
        layer = nn.ScaleNorm(4).double()
        x = tg.tensor(normal(3, 4, dtype=np.float64), requires_grad=True)
        assert gradcheck(layer, (x,))
        assert gradgradcheck(layer, (x,))

    def test_zero_stays_zero_and_nan_stays_in_its_vector(self, device):
        x = tg.tensor([[0.0, 0.0], [math.nan, 1.0], [3.0, 4.0]], device=device)
        y = nn.ScaleNorm(2, device=device)(x).tolist()
        assert y[0] == [0.0, 0.0]
        assert np.isnan(y[1]).all()
        assert y[2] == pytest.approx([0.6 * math.sqrt(2), 0.8 * math.sqrt(2)])

    def test_a_vector_shorter_than_epsilon_is_divided_by_it(self):
        y = nn.ScaleNorm(4, eps=1.0)(tg.tensor([[0.1, 0.2, 0.0, 0.0]]))
        assert y.tolist()[0] == pytest.approx([0.2, 0.4, 0, 0])

    def test_sixteen_bits_do_not_overflow(self, device):
        layer = nn.ScaleNorm(2, dtype=tg.float16, device=device)
        y = layer(tg.tensor([[30000.0, 40000.0]], dtype=tg.float16, device=device))
        assert y.dtype == np.float16
        # three roundings
        assert y.tolist()[0] == pytest.approx([0.6 * math.sqrt(2), 0.8 * math.sqrt(2)], rel=2e-3)

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
    def test_nothing_gives_nothing(self, shape, device):
        layer = nn.ScaleNorm(3, device=device)
        x = tg.zeros(shape, device=device, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == shape
        assert layer.weight.grad.item() == 0

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(ShapeError, match=r"expected \(\*, 3\), got \(3, 4\)"):
            nn.ScaleNorm(3)(tg.zeros(3, 4))
        with pytest.raises(ShapeError, match=r"expected \(\*, 3\), got \(\)"):
            nn.ScaleNorm(3)(tg.zeros(()))
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            nn.ScaleNorm(3)(tg.zeros(2, 3, dtype=tg.int64))
        with pytest.raises(ArgumentError, match="eps ≥ 0"):
            nn.ScaleNorm(3, eps=-1.0)(tg.zeros(2, 3))

    def test_shows_how_it_was_made(self):
        assert repr(nn.ScaleNorm(3)) == "ScaleNorm(3, eps=1e-05)"
