"""Norms of Keras and ONNX: the same numbers under other names."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.exact import standardized
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.normalization import (
    batch_norm_from_keras,
    batch_norm_from_onnx,
    layer_norm_from_keras,
)
from tinygrad_bn.nn.utils import fold_batch_norm

RNG = np.random.default_rng(0)
CONFIG = {
    "name": "batch_normalization",
    "trainable": True,
    "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}},
    "axis": -1,
    "momentum": 0.75,
    "epsilon": 0.01,
    "center": True,
    "scale": True,
    "beta_initializer": {"class_name": "Zeros"},
    "synchronized": False,
}
"""As Keras 3 has it."""


def vectors(count, channels=3):
    """γ, β, mean and variance, or the last of them."""
    values = RNG.normal(size=(4, channels))
    values[3] = values[3] ** 2 + 0.1
    return list(values[4 - count :])


class TestBatchNormFromKeras:
    @pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (2, 3, 2, 3)])
    def test_trains_and_evaluates_as_keras_documents_it(self, shape, device):
        gamma, beta, mean, var = vectors(4)
        layer = batch_norm_from_keras(CONFIG, [gamma, beta, mean, var], device=device)
        axes = tuple(range(len(shape) - 1))
        for _ in range(3):
            x = RNG.normal(1, 2, shape)
            y = layer(tg.tensor(x, device=device))
            expected = gamma * standardized(x, axes, eps=0.01) + beta
            np.testing.assert_allclose(y.tolist(), expected, atol=1e-13)
            # moving = moving * momentum + batch * (1 - momentum), of the biased variance
            mean = mean * 0.75 + x.mean(axes) * 0.25
            var = var * 0.75 + x.var(axes) * 0.25
        np.testing.assert_allclose(layer.running_mean.tolist(), mean, rtol=1e-13)
        np.testing.assert_allclose(layer.running_var.tolist(), var, rtol=1e-13)
        y = layer.eval()(tg.tensor(x, device=device))
        expected = gamma * (x - mean) / np.sqrt(var + 0.01) + beta
        np.testing.assert_allclose(y.tolist(), expected, atol=1e-13)

    @pytest.mark.parametrize("scale", [True, False])
    @pytest.mark.parametrize("center", [True, False])
    def test_parameters_are_those_that_it_has(self, scale, center):
        count = 2 + scale + center
        config = {"scale": scale, "center": center}
        weights = vectors(count)
        layer = batch_norm_from_keras(config, weights)
        assert [name for name, _ in layer.named_parameters()] == ["weight"] * scale + [
            "bias"
        ] * center
        x = RNG.normal(size=(5, 3))
        expected = standardized(x, 0, eps=1e-3)
        expected = expected * (weights[0] if scale else 1) + (weights[-3] if center else 0)
        np.testing.assert_allclose(layer(tg.tensor(x)).tolist(), expected, atol=1e-13)
        assert ("weight=False" in repr(layer)) is (center and not scale)

    def test_defaults_are_keras_defaults(self):
        layer = batch_norm_from_keras({}, vectors(4))
        assert (layer.axis, layer.eps, layer.running_var_correction) == (-1, 1e-3, "biased")
        assert layer.momentum == pytest.approx(0.01)
        assert layer.training

    def test_axes_in_a_list_and_other_axes(self):
        for axis in ([3], (3,), np.int64(3)):
            assert batch_norm_from_keras({"axis": axis}, vectors(4)).axis == 3
        x = tg.tensor(RNG.normal(size=(2, 3, 4)))
        y = batch_norm_from_keras({"axis": 1, "scale": False, "center": False}, vectors(2))(x)
        np.testing.assert_allclose(y.tolist(), standardized(x.numpy(), (0, 2), 1e-3), atol=1e-13)

    def test_the_fused_kernel_of_old_goes_on_unbiased(self):
        layer = batch_norm_from_keras({}, vectors(4), running_var_correction="unbiased")
        assert layer.running_var_correction == "unbiased"

    def test_what_is_not_trainable_is_frozen(self):
        layer = batch_norm_from_keras({"trainable": False}, vectors(4))
        before = layer.running_mean.tolist()
        layer.train()(tg.tensor(RNG.normal(size=(5, 3))))
        assert layer.running_mean.tolist() == before
        assert not layer.weight.requires_grad

    def test_keeps_the_digits_unless_asked(self):
        weights = [w.astype(np.float32) for w in vectors(4)]
        assert batch_norm_from_keras({}, weights).weight.dtype == np.float32
        assert batch_norm_from_keras({}, vectors(4)).running_var.dtype == np.float64
        layer = batch_norm_from_keras({}, vectors(4), dtype=tg.float16)
        assert (layer.weight.dtype, layer.running_var.dtype) == (np.float16, np.float32)

    def test_folds(self):
        linear = tg.nn.Linear(4, 3, dtype=tg.float64)
        model = tg.nn.Sequential(linear, batch_norm_from_keras({}, vectors(4))).eval()
        x = tg.tensor(RNG.normal(size=(2, 5, 4)))  # of any rank, since channels are last
        folded = fold_batch_norm(model)
        assert isinstance(folded[1], tg.nn.Identity)
        np.testing.assert_allclose(folded(x).tolist(), model(x).tolist(), atol=1e-13)

    @pytest.mark.parametrize(
        ("config", "weights", "error", "match"),
        [
            ({"axis": [1, 2]}, vectors(4), ArgumentError, r"one axis of channels, got \[1, 2\]"),
            ({"axis": None}, vectors(4), ArgumentError, "whole numbers as axis, got None"),
            ({"axis": "1"}, vectors(4), ArgumentError, "whole numbers as axis, got '1'"),
            ({"renorm": True}, vectors(4), ArgumentError, "use BatchRenorm"),
            ({"virtual_batch_size": 8}, vectors(4), ArgumentError, "use GhostBatchNorm"),
            ({"synchronized": True}, vectors(4), ArgumentError, "convert_sync_batch_norm"),
            ({}, vectors(3), ArgumentError, r"expected 4 arrays \(weight, bias, running_mean"),
            ({"scale": False}, vectors(4), ArgumentError, "expected 3 arrays"),
            ({}, [*vectors(3, 2), *vectors(1, 3)], StateError, r"expected shape \(2,\)"),
            ({}, [v[:, None] for v in vectors(4)], ArgumentError, "a mean for each channel"),
        ],
        ids=[
            "axes",
            "no axis",
            "no number",
            "renorm",
            "ghost",
            "sync",
            "few",
            "many",
            "lengths",
            "rank",
        ],
    )
    def test_refusals(self, config, weights, error, match):
        with pytest.raises(error, match=match):
            batch_norm_from_keras(config, weights)


class TestBatchNormFromOnnx:
    @pytest.mark.parametrize("training", [0, 1])
    @pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 2)])
    def test_computes_what_the_reference_does(self, training, shape):
        onnx = pytest.importorskip("onnx")
        evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
        attributes = {"epsilon": 0.03125, "momentum": 0.75, "training_mode": training}
        given = ["x", "scale", "B", "mean", "var"]
        outputs = ["y", "running_mean", "running_var"][: 3 if training else 1]
        node = onnx.helper.make_node("BatchNormalization", given, outputs, **attributes)
        values = [RNG.normal(size=shape), *vectors(4)]
        results = evaluator(node).run(None, dict(zip(given, values, strict=True)))

        read = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        layer = batch_norm_from_onnx(read, values[1:])
        assert layer.training is bool(training)
        y = layer(tg.tensor(values[0]))
        found = [y.detach(), layer.running_mean, layer.running_var]
        for a, b in zip(found, results, strict=False):
            np.testing.assert_allclose(a.numpy(), b, atol=1e-12)

    def test_defaults_are_onnx_defaults(self):
        layer = batch_norm_from_onnx({}, vectors(4))
        assert (layer.axis, layer.eps, layer.training) == (1, 1e-5, False)
        assert layer.momentum == pytest.approx(0.1)

    @pytest.mark.parametrize(
        ("attributes", "count", "match"),
        [
            ({"spatial": 0}, 4, "expected spatial=1"),
            ({"is_test": 1}, 4, r"got \['is_test'\]"),
            ({}, 3, "expected 4 arrays"),
        ],
    )
    def test_refusals(self, attributes, count, match):
        with pytest.raises(ArgumentError, match=match):
            batch_norm_from_onnx(attributes, vectors(count))


class TestLayerNormFromKeras:
    @pytest.mark.parametrize(("axis", "shape"), [(-1, (4,)), ([-1], (4,)), ([-2, -1], (3, 4))])
    def test_computes_the_formula(self, axis, shape):
        gamma, beta = RNG.normal(size=(2, *shape))
        layer = layer_norm_from_keras({"axis": axis, "epsilon": 0.1}, [gamma, beta])
        x = RNG.normal(size=(2, 3, 4))
        axes = tuple(range(3 - len(shape), 3))
        expected = gamma * standardized(x, axes, eps=0.1) + beta
        np.testing.assert_allclose(layer(tg.tensor(x)).tolist(), expected, atol=1e-13)

    def test_center_alone(self):
        layer = layer_norm_from_keras({"scale": False, "trainable": False}, [np.ones(4)])
        assert (layer.weight, layer.eps, layer.bias.requires_grad) == (None, 1e-3, False)

    @pytest.mark.parametrize(
        ("config", "weights", "match"),
        [
            ({"axis": 1}, [np.ones(3)] * 2, r"counted from the end, got \[1\]"),
            ({"axis": [-3, -1]}, [np.ones((3, 3))] * 2, "expected the last axes"),
            ({"axis": [-2, -1]}, [np.ones(3)] * 2, "expected weights along 2 axes"),
            ({"center": False, "scale": False}, [], "the shape is not known"),
            ({"rms_scaling": True}, [np.ones(3)], "use RMSNorm"),
        ],
        ids=["positive", "apart", "rank", "plain", "rms"],
    )
    def test_refusals(self, config, weights, match):
        with pytest.raises(ArgumentError, match=match):
            layer_norm_from_keras(config, weights)
