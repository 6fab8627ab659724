"""Linear, bilinear and shape-changing layers."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import DtypeError, ShapeError


def normal(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape)


class TestLinear:
    @pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
    def test_is_x_times_the_transposed_weight_plus_bias(self, shape):
        m, x = nn.Linear(3, 2, dtype=tg.float64), normal(*shape)
        w, b = m.weight.detach().numpy(), m.bias.detach().numpy()
        # three products a sum; BLAS may order them differently by shape
        np.testing.assert_allclose(m(tg.tensor(x)).detach().numpy(), x @ w.T + b, atol=1e-15)

    def test_without_bias(self):
        m = nn.Linear(3, 2, bias=False)
        assert m.bias is None
        assert list(m.state_dict()) == ["weight"]
        assert m(tg.zeros(1, 3)).tolist() == [[0, 0]]
        assert repr(m) == "Linear(in_features=3, out_features=2, bias=False)"

    def test_starts_uniform_within_one_over_the_root_of_in_features(self):
        m = nn.Linear(64, 500)
        for param in (m.weight, m.bias):
            x = param.detach().numpy() * math.sqrt(64)
            assert np.abs(x).max() <= 1
            assert abs(x.std() - math.sqrt(1 / 3)) < 5 / math.sqrt(5 * x.size)  # 5 standard errors

    def test_the_seed_decides(self):
        weights = []
        for _ in range(2):
            tg.manual_seed(3)
            weights.append(nn.Linear(3, 2).weight.detach().numpy())
        assert np.array_equal(*weights)

    def test_the_dtype_is_as_asked(self):
        m = nn.Linear(3, 2, dtype=tg.float64, device="cpu")
        assert m.weight.dtype == m.bias.dtype == tg.float64

    def test_other_sizes_are_named(self):
        with pytest.raises(ShapeError, match=r"in_features = 3.*\(5, 4\)"):
            nn.Linear(3, 2)(tg.zeros(5, 4))
        with pytest.raises(ShapeError):
            nn.Linear(3, 2)(tg.tensor(1.0))
        with pytest.raises(ShapeError):
            nn.Linear(-1, 2)

    def test_other_dtypes_are_named(self):
        for dtype in (tg.float64, tg.int64):
            with pytest.raises(DtypeError, match=f"float32, got {dtype}"):
                nn.Linear(3, 2)(tg.zeros(5, 3, dtype=dtype))

    def test_no_features_give_the_bias(self):
        m = nn.Linear(0, 2)
        assert np.array_equal(m(tg.zeros(4, 0)).detach().numpy(), np.tile(m.bias.detach(), (4, 1)))


class TestBilinear:
    def test_is_the_form_of_every_weight(self):
        m = nn.Bilinear(3, 4, 5, dtype=tg.float64)
        a, b = normal(2, 6, 3), normal(2, 6, 4)
        expected = np.einsum("...i,kij,...j->...k", a, m.weight.detach().numpy(), b)
        y = m(tg.tensor(a), tg.tensor(b)).detach().numpy()
        np.testing.assert_allclose(y, expected + m.bias.detach().numpy(), atol=1e-14)  # 12 products
        assert repr(m) == "Bilinear(in1_features=3, in2_features=4, out_features=5, bias=True)"

    def test_its_gradients(self):
        w = tg.tensor(normal(2, 3, 4), requires_grad=True)
        a, b = (tg.tensor(normal(2, n), requires_grad=True) for n in (3, 4))
        bias = tg.tensor(normal(2), requires_grad=True)
        assert gradcheck(nn.functional.bilinear, (a, b, w, bias))
        assert gradgradcheck(nn.functional.bilinear, (a, b, w, bias))

    def test_other_sizes_are_named(self):
        m = nn.Bilinear(3, 4, 5)
        for a, b in [((2, 3), (2, 3)), ((2, 3), (1, 4)), ((), (4,))]:
            with pytest.raises(ShapeError, match=r"\(\*, 3\) and \(\*, 4\)"):
                m(tg.zeros(a), tg.zeros(b))

    def test_starts_within_one_over_the_root_of_in1_features(self):
        m = nn.Bilinear(16, 4, 5)
        assert max(p.abs().detach().numpy().max() for p in m.parameters()) <= 0.25

    @pytest.mark.torch
    def test_agrees_with_pytorch(self):
        torch = pytest.importorskip("torch")
        theirs, ours = torch.nn.Bilinear(3, 4, 5).double(), nn.Bilinear(3, 4, 5).double()
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        a, b = normal(6, 3), normal(6, 4)
        y, z = ours(tg.tensor(a), tg.tensor(b)), theirs(torch.tensor(a), torch.tensor(b))
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-14)


class TestShapes:
    def test_flatten_and_unflatten(self):
        x = tg.zeros(2, 3, 4, 5)
        assert nn.Flatten()(x).shape == (2, 60)
        assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
        assert nn.Unflatten(1, (3, -1))(nn.Flatten()(x)).shape == (2, 3, 20)
        assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
        assert repr(nn.Unflatten(1, [2, 3])) == "Unflatten(dim=1, unflattened_size=(2, 3))"

    def test_identity_takes_any_arguments(self):
        x = tg.zeros(2)
        assert nn.Identity(54, option=True)(x) is x


def test_copies_lie_in_memory_as_what_they_are_copies_of(device) -> None:
    """Products with few rows are slower otherwise."""
    layer = nn.Linear(7, 5, device=device)
    again = copy.deepcopy(layer)
    assert again.weight.array.strides == layer.weight.array.strides
    assert again.weight.tolist() == layer.weight.tolist()
    assert not layer.weight.backend.overlap(again.weight.array, layer.weight.array)
