"""Lengths and biases chosen by a batch: mean 0 and variance 1 before every activation."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.reparametrized import LAYERS, layer_of
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn.utils import init_weight_norm, spectral_norm, weight_norm

RNG = np.random.default_rng(0)


def recorded(model):
    seen = []
    for module in model.modules():
        if "weight" in module._derived:
            module.register_forward_hook(lambda m, args, y: seen.append(y.detach()))
    return seen


def made(device="cpu"):
    tg.manual_seed(0)
    return nn.Sequential(
        weight_norm(nn.Linear(6, 16, device=device)),
        nn.ReLU(),
        weight_norm(nn.Linear(16, 8, device=device)),
        nn.Tanh(),
        weight_norm(nn.Linear(8, 3, device=device)),
    )


def test_pre_activations_have_mean_0_and_variance_1(device):
    model = made(device)
    x = tg.tensor(RNG.normal(3, 5, (200, 6)).astype(np.float32), device=device)
    assert init_weight_norm(model, x) is model
    seen = recorded(model)
    model(x)
    assert len(seen) == 3
    for y in seen:
        values = np.asarray(y.tolist())
        # float32 sums of a few to a few dozen terms, over 200 samples
        np.testing.assert_allclose(values.mean(0), 0, atol=2e-6)
        np.testing.assert_allclose(values.std(0), 1, rtol=2e-6)


def test_is_equation_6():
    module = weight_norm(nn.Linear(3, 2).double())
    v = module.weight_v.detach().numpy().copy()
    x = RNG.normal(2, 3, (50, 3))
    init_weight_norm(module, tg.tensor(x))
    t = x @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    np.testing.assert_allclose(module.weight_g.tolist(), 1 / t.std(0)[:, None], rtol=1e-13)
    np.testing.assert_allclose(module.bias.tolist(), -t.mean(0) / t.std(0), rtol=1e-12)
    assert module.weight_v.tolist() == v.tolist()


def test_without_a_bias_only_the_variance():
    module = weight_norm(nn.Linear(3, 2, bias=False).double())
    x = tg.tensor(RNG.normal(2, 3, (50, 3)))
    y = init_weight_norm(module, x)(x).detach().numpy()
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-13)
    assert abs(y.mean(0)).min() > 0.01


def test_positions_count_too():
    module = weight_norm(nn.Linear(3, 2).double())
    x = tg.tensor(RNG.normal(2, 3, (5, 7, 3)))
    y = init_weight_norm(module, x)(x).detach().numpy()
    np.testing.assert_allclose(y.std((0, 1)), 1, rtol=1e-13)


class Pointwise(nn.Module):
    """A convolution with kernels of a single pixel."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(tg.randn(out_channels, in_channels, 1, 1, dtype=tg.float64))
        self.bias = nn.Parameter(tg.zeros(out_channels, dtype=tg.float64))

    def forward(self, x):
        y = tg.einsum("nchw,kc->nkhw", x, self.weight[:, :, 0, 0])
        return y + self.bias.reshape(-1, 1, 1)


def test_layers_with_channels():
    module = weight_norm(Pointwise(3, 4))
    assert module.weight_g.shape == (4, 1, 1, 1)
    x = tg.tensor(RNG.normal(2, 3, (5, 3, 2, 6)))
    y = init_weight_norm(module, x)(x).detach().numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-14)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, rtol=1e-13)


def test_several_arguments():
    module = weight_norm(layer_of(nn, "Bilinear"))
    batch = tuple(tg.tensor(x) for x in LAYERS["Bilinear"][1](RNG))
    y = init_weight_norm(module, batch)(*batch).detach().numpy()
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-12)


def test_an_output_that_does_not_vary_counts_as_of_variance_1():
    module = weight_norm(nn.Linear(2, 1).double())
    init_weight_norm(module, tg.ones(4, 2, dtype=tg.float64))
    assert module.weight_g.tolist() == [[1.0]]
    assert module(tg.ones(2, dtype=tg.float64)).tolist() == pytest.approx([0.0], abs=1e-15)


def test_at_extreme_scales():
    module = weight_norm(nn.Linear(3, 2))
    for scale in (1e-30, 1e30):
        x = tg.tensor((RNG.normal(1, 1, (50, 3)) * scale).astype(np.float32))
        y = init_weight_norm(module, x)(x).tolist()
        np.testing.assert_allclose(np.std(y, 0), 1, rtol=2e-6)


def test_leaves_state_and_graph_alone():
    norm = nn.BatchNorm1d(4)
    spectral = spectral_norm(nn.Linear(4, 2))
    model = nn.Sequential(weight_norm(nn.Linear(3, 4)), norm, spectral)
    before = {k: v.tolist() for k, v in model.state_dict().items() if k[0] != "0"}
    init_weight_norm(model, tg.randn(20, 3))
    assert before == {k: v.tolist() for k, v in model.state_dict().items() if k[0] != "0"}
    assert model[0]._hooks.after == []
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def test_a_layer_called_twice_is_initialised_by_the_first_call():
    module = weight_norm(nn.Linear(3, 3).double())
    x = tg.tensor(RNG.normal(2, 3, (50, 3)))
    init_weight_norm(nn.Sequential(module, nn.Tanh(), module), x)
    np.testing.assert_allclose(module(x).detach().numpy().std(0), 1, rtol=1e-12)


def test_what_is_not_reached_or_no_layer_of_outputs_keeps_its_values():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = weight_norm(nn.Linear(3, 2))
            self.unused = weight_norm(nn.Linear(3, 2))
            self.words = weight_norm(nn.Embedding(4, 2))

        def forward(self, x):
            return self.used(x) + self.words(tg.tensor(0))

    model = Half()
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    init_weight_norm(model, tg.randn(9, 3))
    changed = {k for k, v in model.state_dict().items() if v.tolist() != before[k]}
    assert changed == {"used.weight_g", "used.bias"}


def test_a_model_that_fails_is_as_it_was():
    model = made()
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    with pytest.raises(ShapeError):
        init_weight_norm(model, tg.randn(9, 5))
    model[4] = nn.Linear(9, 3)
    del before["4.weight_g"], before["4.weight_v"], before["4.bias"]
    with pytest.raises(ShapeError):
        init_weight_norm(model, tg.randn(9, 6))
    assert {k: model.state_dict()[k].tolist() for k in before} == before
    assert model[0]._hooks.after == []


def test_errors():
    with pytest.raises(ArgumentError, match="layers under weight_norm in the model, got none"):
        init_weight_norm(nn.Linear(3, 2), tg.ones(1, 3))
    for dim, count in ((None, 1), (1, 3)):
        model = nn.Sequential(weight_norm(nn.Linear(3, 2), dim=dim))
        with pytest.raises(ArgumentError, match=f"each of the 2 outputs of '0', got {count}"):
            init_weight_norm(model, tg.ones(1, 3))
    model = nn.Sequential(weight_norm(weight_norm(nn.Linear(3, 2)), "bias"))
    with pytest.raises(ArgumentError, match="a bias of '0' to set"):
        init_weight_norm(model, tg.ones(1, 3))
    with pytest.raises(DtypeError, match="expected a module"):
        init_weight_norm(tg.ones(1), tg.ones(1))
