"""Conditional batch norm: batch norm whose γ and β are a sample's own."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.relatives import KEYS, Relative, drawn, kept_of, state_of, values
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    RangeError,
    ShapeError,
)
from tinygrad_bn.nn.normalization import BatchNorm


def by_class(samples, device="cpu"):
    return tg.tensor(np.arange(samples) % 5, device=device)


def by_vector(samples, device="cpu", dtype=tg.float64):
    return tg.tensor(drawn(samples, 4, seed=7), dtype=dtype, device=device)


class TestOfClasses(Relative):
    keys = [*KEYS, "predictor.weight"]

    def make(self, **options):
        return nn.ConditionalBatchNorm(3, num_classes=5, **options)

    def required(self):
        return {"num_classes": 5}

    def condition(self, layer, x):
        batch = 1 if layer.axis == 0 else 0
        samples = x.shape[batch] if x.ndim > 1 else 1
        return by_class(samples, layer.running_mean.device)

    def call(self, layer, x, mask=None):
        return layer(x, self.condition(layer, x), mask)

    def expected(self, x, mask, eps):
        kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
        flat = np.moveaxis(x, 1, 2)[kept]
        return (x - flat.mean(0)[:, None]) / np.sqrt(flat.var(0) + eps)[:, None]


class TestOfVectors(TestOfClasses):
    keys = [*KEYS, "predictor.weight", "predictor.bias"]

    def make(self, **options):
        return nn.ConditionalBatchNorm(3, condition_features=4, **options)

    def required(self):
        return {"condition_features": 4}

    def condition(self, layer, x):
        samples = super().condition(layer, x).shape[0]
        return by_vector(samples, layer.running_mean.device, layer.predictor.weight.dtype)


SHAPES = [(6, 3), (6, 3, 4), (6, 3, 2, 2)]


class TestTheCondition:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("axis", [1, -1, 0])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_scales_and_shifts_its_sample(self, shape, axis, affine, device):
        layer = nn.ConditionalBatchNorm(
            3, num_classes=5, affine=affine, axis=axis, dtype=tg.float64, device=device
        )
        table, classes = drawn(5, 6), np.array([4, 0, 0, 3, 1, 2])
        gamma, beta = (drawn(3, seed=1), drawn(3, seed=2)) if affine else (np.ones(3), np.zeros(3))
        shared = {"weight": gamma, "bias": beta} if affine else {}
        layer.load_state_dict({**layer.state_dict(), **shared, "predictor.weight": table})
        x = drawn(*shape)
        over = (0, *range(2, x.ndim))
        ones = (1,) * (x.ndim - 2)
        scale = (gamma + table[classes, :3]).reshape(6, 3, *ones)
        shift = (beta + table[classes, 3:]).reshape(6, 3, *ones)
        expected = scale * standardized(x, over) + shift
        for mode in (True, False):
            if not mode:
                running = [values(layer.running_mean), values(layer.running_var)]
                mean, var = (v.reshape(3, *ones) for v in running)
                expected = scale * (x - mean) / np.sqrt(var + 1e-5) + shift
            given = tg.tensor(np.moveaxis(x, 1, axis), device=device)
            y = layer.train(mode)(given, tg.tensor(classes, device=device))
            np.testing.assert_allclose(np.moveaxis(values(y), axis, 1), expected, atol=1e-13)

    def test_is_mapped_linearly_or_by_a_hidden_layer(self, device):
        x, c = tg.tensor(drawn(6, 3, 4), device=device), by_vector(6, device)
        options = {"condition_features": 4, "dtype": tg.float64, "device": device}
        for hidden in (None, 8):
            layer = nn.ConditionalBatchNorm(3, hidden_features=hidden, **options)
            TestOfClasses().disturb(layer)
            state = {k: values(v) for k, v in layer.state_dict().items()}
            v = values(c)
            if hidden is None:
                delta = v @ state["predictor.weight"].T + state["predictor.bias"]
            else:
                v = np.maximum(v @ state["predictor.0.weight"].T + state["predictor.0.bias"], 0)
                delta = v @ state["predictor.2.weight"].T + state["predictor.2.bias"]
            scale, shift = state["weight"] + delta[:, :3], state["bias"] + delta[:, 3:]
            expected = scale[:, :, None] * standardized(values(x), (0, 2)) + shift[:, :, None]
            np.testing.assert_allclose(values(layer(x, c)), expected, atol=1e-13)

    @pytest.mark.parametrize("options", [{"num_classes": 5}, {"condition_features": 4}])
    def test_makes_no_difference_at_first(self, options, device):
        """But it can be learned: the gradient of what predicts is not 0."""
        layer = nn.ConditionalBatchNorm(3, **options, dtype=tg.float64, device=device)
        plain = BatchNorm(3, dtype=tg.float64, device=device)
        x = tg.tensor(drawn(6, 3, 4), device=device)
        c = by_class(6, device) if "num_classes" in options else by_vector(6, device)
        y = layer(x, c)
        np.testing.assert_allclose(values(y), values(plain(x)), atol=1e-15)
        (y**3).sum().backward()
        assert np.any(values(layer.predictor.weight.grad) != 0)

    def test_with_a_hidden_layer_makes_no_difference_at_first_either(self):
        layer = nn.ConditionalBatchNorm(
            3, condition_features=4, hidden_features=8, dtype=tg.float64
        )
        x = tg.tensor(drawn(6, 3, 4))
        for _ in range(2):
            y = layer(x, by_vector(6))
            np.testing.assert_allclose(values(y), standardized(values(x), (0, 2)), atol=1e-14)
            (y**3).sum().backward()
            last, first = layer.predictor[2], layer.predictor[0]
            assert np.any(values(last.weight.grad) != 0)
            assert np.any(values(first.weight) != 0)
            TestOfClasses().disturb(layer)
            layer.reset_parameters()
            layer.zero_grad()

    def test_has_gradients_of_three_orders(self, device):
        layer = nn.ConditionalBatchNorm(
            3, condition_features=4, dtype=tg.float64, device=device, track_running_stats=False
        )
        TestOfClasses().disturb(layer)
        x = tg.tensor(drawn(5, 3, 2), device=device, requires_grad=True)
        c = by_vector(5, device).requires_grad_()
        mask = tg.tensor(kept_of(5, 2), device=device)

        def function(x, c):
            return layer(x, c, mask)

        assert gradcheck(function, (x, c), atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            assert gradgradcheck(function, (x, c), order=order, atol=1e-6, rtol=1e-5)


@pytest.mark.torch
def test_gradients_are_those_of_pytorchs_composition(device):
    torch = pytest.importorskip("torch")
    layer = nn.ConditionalBatchNorm(3, num_classes=5, dtype=tg.float64, device=device)
    TestOfClasses().disturb(layer)
    theirs = torch.nn.BatchNorm1d(3, affine=False).double()
    x, classes = drawn(6, 3, 4), np.array([4, 0, 0, 3, 1, 2])
    a = tg.tensor(x, device=device, requires_grad=True)
    y = layer(a, tg.tensor(classes, device=device))
    b = torch.tensor(x, requires_grad=True)
    w, beta, table = (torch.tensor(values(p), requires_grad=True) for p in layer.parameters())
    delta = table[torch.tensor(classes)]
    z = theirs(b) * (w + delta[:, :3])[:, :, None] + (beta + delta[:, 3:])[:, :, None]
    (y**3).sum().backward()
    (z**3).sum().backward()
    for p, q in zip((a, *layer.parameters()), (b, w, beta, table), strict=True):
        np.testing.assert_allclose(values(p.grad), q.grad.numpy(), rtol=1e-11, atol=1e-11)
    for name in ("running_mean", "running_var"):
        expected = getattr(theirs, name).numpy()
        np.testing.assert_allclose(values(getattr(layer, name)), expected, rtol=1e-13)


class TestRefuses:
    @pytest.mark.parametrize(
        ("options", "condition", "error", "message"),
        [
            ({"num_classes": 5}, tg.zeros(3, dtype="int64"), ShapeError, r"\(4,\), a class"),
            ({"num_classes": 5}, tg.zeros(4, 1, dtype="int64"), ShapeError, r"\(4,\), a class"),
            ({"num_classes": 5}, tg.zeros(4), DtypeError, "whole numbers"),
            ({"num_classes": 5}, tg.full((4,), 5), RangeError, "5"),
            ({"num_classes": 5}, tg.full((4,), -1), RangeError, "-1"),
            ({"num_classes": 5}, [0, 1, 2, 3], DtypeError, "condition to be a tensor"),
            ({"condition_features": 4}, tg.zeros(4, 3), ShapeError, r"\(4, 4\), a vector"),
            ({"condition_features": 4}, tg.zeros(4), ShapeError, r"\(4, 4\), a vector"),
            ({"condition_features": 4}, tg.zeros(4, 4, dtype="int64"), DtypeError, "floats as co"),
        ],
        ids=str,
    )
    def test_conditions_before_anything_changes(self, options, condition, error, message):
        layer = nn.ConditionalBatchNorm(3, **options)
        with pytest.raises(error, match=message):
            layer(tg.randn(4, 3), condition)
        assert state_of(layer)["num_batches_tracked"] == 0

    def test_a_condition_on_another_device(self, cuda):
        layer = nn.ConditionalBatchNorm(3, num_classes=5, device=cuda)
        with pytest.raises(BackendError):
            layer(tg.randn(4, 3, device=cuda), by_class(4))
        assert state_of(layer)["num_batches_tracked"] == 0

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"num_classes": 5, "condition_features": 4},
            {"num_classes": 5, "hidden_features": 4},
        ],
    )
    def test_to_be_made_for_no_condition_or_two(self, options):
        with pytest.raises(ArgumentError, match="expected"):
            nn.ConditionalBatchNorm(3, **options)


def test_frozen_statistics_leave_the_condition_to_learn():
    layer = nn.ConditionalBatchNorm(3, num_classes=5).freeze(affine=False)
    layer(tg.randn(6, 3), by_class(6)).sum().backward()
    assert layer.predictor.weight.grad is not None
    assert layer.freeze(stats=False).predictor.weight.requires_grad is False
