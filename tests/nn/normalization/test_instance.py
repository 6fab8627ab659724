"""Instance norm: PyTorch's semantics, its oddities among them, more exactly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.training import assert_trains_like_pytorch
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError, StateError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.utils.checkpoint import checkpoint

CASES = [("InstanceNorm1d", (5,)), ("InstanceNorm2d", (3, 4)), ("InstanceNorm3d", (2, 3, 2))]


class TestInstanceNorm:
    @pytest.mark.parametrize(("name", "space"), CASES)
    def test_normalizes_each_channel_of_each_sample(self, name, space, device):
        x = normal(4, 3, *space, mean=1e4)
        layer = getattr(nn, name)(3, device=device)
        for training in (True, False):
            y = layer.train(training)(tg.tensor(x, device=device))
            expected = standardized(x, tuple(range(2, x.ndim)))
            np.testing.assert_allclose(y.tolist(), expected, atol=2e-6)

    @pytest.mark.parametrize(("name", "space"), CASES)
    def test_takes_one_sample_without_an_axis_for_it(self, name, space, device):
        x = tg.tensor(normal(3, *space), device=device)
        alone = getattr(nn, name)(3, affine=True, track_running_stats=True, device=device)
        batched = getattr(nn, name)(3, affine=True, track_running_stats=True, device=device)
        assert alone(x).tolist() == batched(x.unsqueeze(0)).squeeze(0).tolist()
        assert alone.running_var.tolist() == batched.running_var.tolist() != [1.0] * 3
        assert alone.eval()(x).tolist() == batched.eval()(x.unsqueeze(0)).squeeze(0).tolist()

    @pytest.mark.parametrize(("correction", "ddof"), [("unbiased", 1), ("biased", 0)])
    def test_running_statistics_are_means_over_the_samples(self, correction, ddof, device):
        layer = nn.InstanceNorm1d(
            2,
            momentum=0.25,
            track_running_stats=True,
            running_var_correction=correction,
            dtype=tg.float64,
            device=device,
        )
        x = normal(6, 2, 4, mean=1.0, std=3.0, dtype=np.float64)
        layer(tg.tensor(x, device=device))
        mean, var = x.mean(2).mean(0), x.var(2, ddof=ddof).mean(0)
        np.testing.assert_allclose(layer.running_mean.tolist(), 0.25 * mean, rtol=1e-14)
        np.testing.assert_allclose(layer.running_var.tolist(), 0.75 + 0.25 * var, rtol=1e-14)

    def test_evaluates_by_its_running_statistics(self, device):
        layer = nn.InstanceNorm1d(2, track_running_stats=True, dtype=tg.float64, device=device)
        layer.load_state_dict(
            {
                "running_mean": np.array([1.0, 2.0]),
                "running_var": np.array([4.0, 9.0]),
                "num_batches_tracked": np.array(0),
            }
        )
        x = tg.tensor([[[3.0], [5.0]]], dtype=tg.float64, device=device)
        expected = [[[2 / np.sqrt(4 + 1e-5)], [3 / np.sqrt(9 + 1e-5)]]]
        np.testing.assert_allclose(layer.eval()(x).tolist(), expected, rtol=1e-15)

    def test_counts_no_batches_and_stands_still_without_momentum_as_pytorch(self):
        layer = nn.InstanceNorm1d(2, momentum=None, track_running_stats=True)
        layer(tg.randn(3, 2, 4) + 5)
        assert [v.tolist() for v in layer.state_dict().values()] == [[0.0] * 2, [1.0] * 2, 0]

    def test_has_the_keys_of_pytorch(self):
        statistics = ["running_mean", "running_var", "num_batches_tracked"]
        assert list(nn.InstanceNorm1d(3).state_dict()) == []
        assert list(nn.InstanceNorm1d(3, affine=True).state_dict()) == ["weight", "bias"]
        tracking = nn.InstanceNorm1d(3, affine=True, bias=False, track_running_stats=True)
        assert list(tracking.state_dict()) == ["weight", *statistics]
        with pytest.raises(StateError, match="running_mean"):
            nn.InstanceNorm1d(3).load_state_dict(tracking.state_dict())

    def test_frozen_statistics_normalize_in_training_too(self):
        layer = nn.InstanceNorm1d(2, track_running_stats=True).freeze()
        x = tg.randn(3, 2, 4)
        np.testing.assert_array_equal(layer(x).numpy(), layer.eval()(x).numpy())
        assert layer.running_var.tolist() == [1.0, 1.0]

    def test_a_checkpoint_moves_the_statistics_once(self):
        x = tg.tensor(normal(3, 2, 4), requires_grad=True)
        layers = [nn.InstanceNorm1d(2, track_running_stats=True) for _ in range(2)]
        checkpoint(layers[0], x).sum().backward()
        layers[1](x)
        assert layers[0].running_var.tolist() == layers[1].running_var.tolist() != [1.0, 1.0]

    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (-1e6, 1.0), (0.0, 1e30), (0.0, 1e-30)]
    )
    def test_at_any_offset_and_scale(self, offset, scale, device):
        x = normal(4, 3, 16, mean=offset, std=scale)
        y = F.instance_norm(tg.tensor(x, device=device))
        np.testing.assert_allclose(y.tolist(), standardized(x, 2), rtol=2e-6, atol=2e-31)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_channel_gives_exactly_its_bias(self, dtype, device):
        options = {"dtype": dtype, "device": device}
        bias = tg.tensor(normal(3), **options)
        y = F.instance_norm(tg.full((2, 3, 5), 0.1, **options), bias=bias)
        assert (y == bias.reshape(3, 1)).all()

    def test_nan_stays_in_its_channel_and_sample(self, device):
        x = normal(3, 2, 4)
        x[1, 1, 2] = np.nan
        layer = nn.InstanceNorm1d(2, track_running_stats=True, device=device)
        y = np.isnan(layer(tg.tensor(x, device=device)).tolist())
        assert y[1, 1].all()
        assert y.sum() == 4
        assert np.isnan(layer.running_mean.tolist()).tolist() == [False, True]

    def test_sixteen_bits_have_statistics_in_more(self, device):
        layer = nn.InstanceNorm1d(3, track_running_stats=True, dtype=tg.float16, device=device)
        x = tg.tensor(normal(4, 3, 9, mean=100, std=0.5), dtype=tg.float16, device=device)
        y = layer(x)
        assert (y.dtype, layer.running_var.dtype) == (np.float16, np.float32)
        # half of float16's last digit at 4
        np.testing.assert_allclose(y.tolist(), standardized(x.cpu().numpy(), 2), atol=2e-3)
        assert layer.half().running_var.dtype == np.float32
        assert layer.eval()(x).dtype == np.float16

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("InstanceNorm1d", (4,)),
            ("InstanceNorm1d", (2, 5, 3)),
            ("InstanceNorm1d", (2, 4, 3, 3)),
            ("InstanceNorm2d", (4, 3)),
            ("InstanceNorm2d", (5, 3, 3)),
            ("InstanceNorm3d", (2, 3, 4, 3, 3)),
        ],
    )
    def test_refuses_other_shapes(self, name, shape):
        expected = {"1d": "4, W", "2d": "4, H, W", "3d": "4, D, H, W"}[name[-2:]]
        with pytest.raises(ShapeError, match=rf"expected \(N, {expected}\) or \({expected}\), got"):
            getattr(nn, name)(4)(tg.zeros(shape))

    @pytest.mark.parametrize("shape", [(2, 3, 1), (3, 1)])
    def test_refuses_a_single_position_before_anything_changes(self, shape):
        layer = nn.InstanceNorm1d(3, track_running_stats=True)
        with pytest.raises(ShapeError, match="more than one position"):
            layer(tg.zeros(shape))
        assert layer.running_var.tolist() == [1.0] * 3
        assert layer.eval()(tg.zeros(shape)).shape == shape

    @pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3, 1)])
    def test_nothing_gives_nothing_and_teaches_nothing(self, shape, device):
        layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True, device=device)
        x = tg.zeros(shape, device=device, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert [p.grad.tolist() for p in layer.parameters()] == [[0.0] * 3] * 2
        assert (layer.running_mean.tolist(), layer.running_var.tolist()) == ([0.0] * 3, [1.0] * 3)

    def test_refuses_what_does_not_fit(self):
        x = tg.zeros(2, 3, 4)
        with pytest.raises(ShapeError, match=r"running_var of shape \(3,\), got \(2,\)"):
            F.instance_norm(x, tg.zeros(3), tg.ones(2))
        with pytest.raises(ShapeError, match="rank 2 or more"):
            F.instance_norm(tg.zeros(3))
        with pytest.raises(ArgumentError, match="running_mean and running_var, or use_input_stats"):
            F.instance_norm(x, use_input_stats=False)
        with pytest.raises(ArgumentError, match="'unbiased' or 'biased', got 'none'"):
            F.instance_norm(x, running_var_correction="none")
        with pytest.raises(BackendError, match="running_mean on cpu"):
            F.instance_norm(x, tg.zeros(3, device="cuda"), tg.ones(3, device="cuda"))
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            nn.InstanceNorm1d(3)(tg.zeros(2, 3, 4, dtype=tg.int64))

    def test_shows_how_it_was_made(self):
        shown = (
            "InstanceNorm2d(3, eps=1e-05, momentum=0.1, affine=False, track_running_stats=False, "
            "running_var_correction='unbiased')"
        )
        assert repr(nn.InstanceNorm2d(3)) == shown


@pytest.mark.torch
@pytest.mark.parametrize(("name", "space"), CASES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"affine": True},
        {"affine": True, "bias": False, "eps": 1e-2},
        {"track_running_stats": True},
        {"track_running_stats": True, "affine": True, "momentum": 0.3},
        {"track_running_stats": True, "momentum": None},
    ],
    ids=str,
)
def test_fifty_steps_are_those_of_pytorch(name, space, options):
    assert_trains_like_pytorch(name, (3,), options, (4, 3, *space))


@pytest.mark.torch
def test_fifty_steps_of_single_samples_are_those_of_pytorch():
    options = {"track_running_stats": True, "affine": True}
    assert_trains_like_pytorch("InstanceNorm1d", (3,), options, (3, 7))
