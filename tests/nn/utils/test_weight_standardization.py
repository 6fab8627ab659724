"""Weights with mean 0 and variance 1 for each output."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.reparametrized import (
    LAYERS,
    assert_checkpoints,
    assert_close,
    assert_survives,
    layer_of,
)
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ModuleError, ShapeError
from tinygrad_bn.nn.utils import (
    remove_weight_standardization,
    weight_norm,
    weight_standardization,
)

RNG = np.random.default_rng(0)

CASES = [("Linear", 0), ("Linear", 1), ("Linear", -1), ("Bilinear", 0), ("Bilinear", 1)]


def direct(weight, dim=0, eps=1e-5):
    """(w - mean) / √(var + ε) by NumPy in float64."""
    weight = np.asarray(weight, np.float64)
    others = tuple(set(range(weight.ndim)) - {dim % weight.ndim})
    mean, var = (f(others, keepdims=True) for f in (weight.mean, weight.var))
    return (weight - mean) / np.sqrt(var + eps)


class TestWeightStandardization:
    @pytest.mark.parametrize(("name", "dim"), CASES)
    def test_is_the_formula(self, name, dim, device):
        module = layer_of(nn, name)
        weight = module.weight.detach().numpy()
        assert weight_standardization(module.to(device), dim=dim, eps=1e-3) is module
        found = module.weight.detach().cpu().numpy()
        np.testing.assert_allclose(found, direct(weight, dim, 1e-3), atol=1e-14)

    @pytest.mark.parametrize("dim", [0, 1])
    def test_with_a_gain_it_keeps_the_variance_of_activations(self, dim):
        module = weight_standardization(layer_of(nn, "Linear"), dim=dim, eps=1e-12, gain=1.5)
        weight = module.weight.detach().numpy()
        np.testing.assert_allclose((weight**2).sum(1 - dim), 1.5**2, rtol=1e-9)

    def test_a_gain_after_relu(self):
        tg.manual_seed(0)
        gain = math.sqrt(2 / (1 - 1 / math.pi))
        module = weight_standardization(nn.Linear(400, 300, bias=False), gain=gain)
        y = module(tg.randn(500, 400).relu())
        assert y.var().item() == pytest.approx(1, rel=0.02)  # of 150000 values, 1 % apart a row

    def test_the_parameter_is_the_same_object_under_another_key(self):
        module = nn.Linear(3, 2)
        old = module.weight
        weight_standardization(module)
        assert module.weight_orig is old
        assert list(module.state_dict()) == ["bias", "weight_orig"]

    def test_a_removed_one_keeps_its_weight(self):
        module = weight_standardization(nn.Linear(3, 2))
        before = module.weight.tolist()
        assert remove_weight_standardization(module) is module
        assert list(module.state_dict()) == ["bias", "weight"]
        assert isinstance(module.weight, nn.Parameter)
        assert module.weight.tolist() == before

    def test_loads_states_of_plain_layers_and_of_parametrizations(self):
        plain = nn.Sequential(nn.Linear(3, 2))
        ours = nn.Sequential(weight_standardization(nn.Linear(3, 2)))
        ours.load_state_dict(plain.state_dict())
        assert ours[0].weight_orig.tolist() == plain[0].weight.tolist()
        state = {"0.bias": np.zeros(2), "0.parametrizations.weight.original": np.ones((2, 3))}
        ours.load_state_dict(state)
        assert ours[0].weight_orig.tolist() == [[1.0] * 3] * 2

    @pytest.mark.parametrize("gain", [None, 1.3])
    def test_gradients_to_order_3(self, gain, device):
        module = weight_standardization(nn.Linear(3, 2, device=device), eps=1e-2, gain=gain)
        w = tg.tensor(RNG.normal(size=(2, 3)), device=device, requires_grad=True)

        def weight(w):
            twin = nn.Module()
            twin.weight_orig = w
            return module._derived["weight"](twin)

        assert tg.autograd.gradcheck(weight, [w], atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            # differences of steps of 1e-6 leave 1e-10 of rounding, which third derivatives enlarge
            assert tg.autograd.gradgradcheck(weight, [w], order=order, atol=1e-6, rtol=1e-5)

    @pytest.mark.torch
    @pytest.mark.parametrize("gain", [None, 1.3])
    def test_trains_as_the_formula_in_pytorch(self, gain):
        torch = pytest.importorskip("torch")
        ours = weight_standardization(layer_of(nn, "Linear"), gain=gain)
        w, bias = (
            torch.tensor(ours.state_dict()[key].numpy(), requires_grad=True)
            for key in ("weight_orig", "bias")
        )
        optimizers = (
            tg.optim.SGD(ours.parameters(), lr=0.05, momentum=0.9),
            torch.optim.SGD([bias, w], lr=0.05, momentum=0.9),
        )
        scale = 1.0 if gain is None else gain / math.sqrt(5)
        for _ in range(50):
            x = RNG.normal(size=(6, 5))
            y = ours(tg.tensor(x))
            var, mean = torch.var_mean(w, 1, correction=0, keepdim=True)
            weight = (w - mean) / (var + 1e-5).sqrt() * scale
            z = torch.nn.functional.linear(torch.tensor(x), weight, bias)
            assert_close(y, z)
            for loss, optimizer in zip((y, z), optimizers, strict=True):
                optimizer.zero_grad()
                loss.tanh().square().sum().backward()
            assert_close(ours.weight_orig.grad, w.grad)
            for optimizer in optimizers:
                optimizer.step()


class TestExactness:
    @pytest.mark.parametrize("offset", [1e3, -1e6])
    def test_far_from_zero(self, offset, device):
        weight = (offset + RNG.normal(size=(4, 300))).astype(np.float32)
        module = nn.Linear(300, 4, device=device)
        with tg.no_grad():
            module.weight.overwrite(tg.tensor(weight, device=device).array)
        weight_standardization(module)
        # float32's rounding of numbers up to 4
        np.testing.assert_allclose(module.weight.tolist(), direct(weight), atol=5e-7)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_at_extreme_scales(self, scale):
        weight = (RNG.normal(size=(4, 30)) * scale).astype(np.float32)
        module = nn.Linear(30, 4)
        module.load_state_dict({"weight": weight, "bias": np.zeros(4)})
        weight_standardization(module)
        np.testing.assert_allclose(module.weight.tolist(), direct(weight), rtol=1e-6, atol=2e-36)

    def test_weights_that_are_alike_become_exactly_0(self, device):
        module = nn.Linear(7, 2, device=device)
        with tg.no_grad():
            module.weight.fill_(0.1)
        weight_standardization(module)
        assert module.weight.tolist() == [[0.0] * 7] * 2
        module(tg.ones(7, device=device)).sum().backward()
        assert module.weight_orig.grad.isfinite().all()

    def test_sixteen_bits(self):
        weight = RNG.normal(100, 1, (4, 30)).astype(np.float16)
        module = nn.Linear(30, 4).half()
        module.load_state_dict({"weight": weight, "bias": np.zeros(4)})
        weight_standardization(module)
        assert module.weight.dtype == tg.float16
        # half of float16's last digit at 4
        np.testing.assert_allclose(module.weight.tolist(), direct(weight), atol=2e-3)


class TestSurvival:
    def test_copies_pickles_states_and_casts(self):
        module = weight_standardization(layer_of(nn, "Linear"), gain=2.0)
        x = tg.tensor(LAYERS["Linear"][1](np.random.default_rng(0))[0])
        with (
            tg.no_grad()
        ):  # scaled and shifted weights standardise to the same; their biases differ
            module.bias.fill_(0.5)
        assert_survives(module, x)

    def test_checkpointing(self):
        assert_checkpoints(weight_standardization)

    @pytest.mark.parametrize("late", [False, True])
    def test_optimizers_train_whether_made_before_or_after(self, late):
        module = nn.Linear(3, 2)
        if late:
            weight_standardization(module)
        optimizer = tg.optim.Adam(module.parameters(), lr=0.1)
        if not late:
            weight_standardization(module)
        before = module.weight.tolist()
        module(tg.randn(4, 3)).square().sum().backward()
        optimizer.step()
        assert module.weight.tolist() != before
        decaying, _ = tg.optim.param_groups(module)
        assert decaying["params"] == [module.weight_orig]


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"eps": 0.0}, ArgumentError, "eps > 0, got 0"),
            ({"eps": -1.0}, ArgumentError, "eps > 0, got -1"),
            ({"dim": 2}, ShapeError, "an axis 2 in the weight"),
            ({"dim": None}, DtypeError, "whole number as dim"),
            ({"name": "bias"}, ShapeError, "two weights or more for each output"),
            ({"name": "nothing"}, ModuleError, "got 'nothing'"),
        ],
    )
    def test_bad_arguments_change_nothing(self, options, error, message):
        module = nn.Linear(3, 2)
        with pytest.raises(error, match=message):
            weight_standardization(module, **options)
        assert list(module.state_dict()) == ["weight", "bias"]

    def test_twice_on_one_name(self):
        module = weight_standardization(nn.Linear(3, 2))
        for second in (weight_standardization, weight_norm):
            with pytest.raises(ArgumentError, match="under weight_standardization already"):
                second(module)

    def test_removing_what_is_not_there(self):
        for module in (nn.Linear(3, 2), weight_norm(nn.Linear(3, 2))):
            with pytest.raises(ArgumentError, match="weight_standardization on 'weight', got none"):
                remove_weight_standardization(module)
