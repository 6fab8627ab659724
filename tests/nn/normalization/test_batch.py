"""Batch norm and layer norm: PyTorch's semantics, more exactly."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.exact import standardized
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

RNG = np.random.default_rng(0)


class TestBatchNorm1d:
    def test_normalizes_each_channel_in_training(self, device):
        x = RNG.normal(3, 2, (64, 5)).astype(np.float32)
        y = nn.BatchNorm1d(5, device=device)(tg.tensor(x, device=device))
        assert y.dtype == np.float32
        # one rounding of float32 of numbers up to 4
        np.testing.assert_allclose(y.cpu().tolist(), standardized(x, 0), atol=5e-7)

    def test_takes_positions_too(self):
        x = RNG.normal(size=(4, 3, 7))
        y = nn.BatchNorm1d(3, dtype=tg.float64)(tg.tensor(x))
        np.testing.assert_allclose(y.detach().numpy(), standardized(x, (0, 2)), atol=1e-14)

    def test_moves_its_running_statistics(self, device):
        layer = nn.BatchNorm1d(2, momentum=0.25, dtype=tg.float64, device=device)
        x = RNG.normal(1, 3, (10, 2))
        layer(tg.tensor(x, device=device))
        np.testing.assert_allclose(layer.running_mean.tolist(), 0.25 * x.mean(0), rtol=1e-14)
        np.testing.assert_allclose(
            layer.running_var.tolist(), 0.75 + 0.25 * x.var(0, ddof=1), rtol=1e-14
        )
        assert layer.num_batches_tracked.item() == 1

    def test_averages_all_batches_without_momentum(self):
        layer = nn.BatchNorm1d(2, momentum=None, dtype=tg.float64)
        batches = [RNG.normal(size=(6, 2)) for _ in range(4)]
        for x in batches:
            layer(tg.tensor(x))
        means = np.mean([x.mean(0) for x in batches], axis=0)
        np.testing.assert_allclose(layer.running_mean.numpy(), means, rtol=1e-13)

    def test_evaluates_by_its_running_statistics(self, device):
        layer = nn.BatchNorm1d(2, dtype=tg.float64, device=device).eval()
        layer.load_state_dict(
            {
                "weight": np.array([2.0, 3.0]),
                "bias": np.array([1.0, -1.0]),
                "running_mean": np.array([1.0, 2.0]),
                "running_var": np.array([4.0, 9.0]),
                "num_batches_tracked": np.array(7),
            }
        )
        y = layer(tg.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=tg.float64, device=device))
        expected = [[1.0, -1.0], [1 + 2 * 2 / np.sqrt(4 + 1e-5), -1 + 3 * 3 / np.sqrt(9 + 1e-5)]]
        np.testing.assert_allclose(y.tolist(), expected, rtol=1e-14)
        assert layer.num_batches_tracked.item() == 7

    def test_without_running_statistics_takes_the_batch_always(self):
        layer = nn.BatchNorm1d(3, track_running_stats=False, affine=False).eval()
        x = RNG.normal(5, 1, (20, 3)).astype(np.float32)
        np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), standardized(x, 0), atol=5e-7)
        assert list(layer.state_dict()) == []

    def test_has_the_keys_of_pytorch(self):
        keys = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        assert list(nn.BatchNorm1d(3).state_dict()) == keys

    @pytest.mark.parametrize("shape", [(4, 5), (4,), (2, 4, 1, 1), (3, 2, 4)])
    def test_refuses_other_shapes(self, shape):
        layer = nn.BatchNorm1d(4)
        with pytest.raises(ShapeError, match=r"expected \(N, 4, \*S\)"):
            layer(tg.zeros(shape))
        assert layer.num_batches_tracked.item() == 0

    @pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1)])
    def test_refuses_a_single_value_a_channel_before_anything_changes(self, shape):
        layer = nn.BatchNorm1d(4)
        with pytest.raises(ShapeError, match="more than one value"):
            layer(tg.zeros(shape))
        assert layer.num_batches_tracked.item() == 0
        assert layer.running_var.tolist() == [1.0] * 4
        assert layer.eval()(tg.zeros(shape)).shape == shape

    @pytest.mark.parametrize("shape", [(0, 4), (4, 4, 0), (0, 4, 3)])
    def test_nothing_gives_nothing_and_is_not_counted(self, shape, device):
        layer = nn.BatchNorm1d(4, device=device)
        x = tg.zeros(shape, device=device, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert layer.weight.grad.tolist() == layer.bias.grad.tolist() == [0.0] * 4
        assert layer.num_batches_tracked.item() == 0
        assert layer.running_var.tolist() == [1.0] * 4
        F.batch_norm(x, layer.running_mean, layer.running_var, training=True)
        assert layer.running_var.tolist() == [1.0] * 4

    def test_refuses_integers(self):
        with pytest.raises(DtypeError, match="expected floats as input, got int64"):
            nn.BatchNorm1d(2)(tg.zeros((3, 2), dtype=tg.int64))


class TestExactness:
    """What PyTorch loses to rounding is kept; the bounds are float32's rounding of the result."""

    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (1e4, 1.0), (1e5, 1.0), (-1e6, 1.0)]
    )
    def test_far_from_zero(self, offset, scale, device):
        x = RNG.normal(offset, scale, (256, 16)).astype(np.float32)
        y = F.batch_norm(tg.tensor(x, device=device), None, None, training=True)
        np.testing.assert_allclose(y.tolist(), standardized(x, 0), atol=2e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_at_extreme_scales(self, scale, device):
        x = (RNG.normal(size=(64, 4)) * scale).astype(np.float32)
        y = F.batch_norm(tg.tensor(x, device=device), None, None, training=True)
        np.testing.assert_allclose(y.tolist(), standardized(x, 0), rtol=2e-6, atol=2e-36)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_channel_gives_exactly_its_bias(self, dtype):
        x = tg.full((50, 1), 0.1, dtype=dtype)
        bias = tg.tensor([0.7], dtype=dtype)
        y = F.batch_norm(x, None, None, None, bias, training=True)
        assert (y == bias).all()

    def test_the_gradient_far_from_zero(self, device):
        values = RNG.normal(1e4, 1e-2, (128, 8)).astype(np.float32)
        dy = RNG.normal(size=values.shape).astype(np.float32)
        x = tg.tensor(values, device=device, requires_grad=True)
        F.batch_norm(x, None, None, training=True).backward(tg.tensor(dy, device=device))
        wide = tg.tensor(values.astype(np.float64), requires_grad=True)
        F.batch_norm(wide, None, None, training=True).backward(tg.tensor(dy.astype(np.float64)))
        expected = wide.grad.numpy()
        error = np.linalg.norm(np.asarray(x.grad.tolist()) - expected) / np.linalg.norm(expected)
        assert error < 1e-6  # float32's rounding, 6e-8, with room for the sums

    def test_sixteen_bits_keep_statistics_in_32(self, device):
        layer = nn.BatchNorm1d(3, dtype=tg.float16, device=device)
        assert layer.running_var.dtype == np.float32
        halved = nn.BatchNorm1d(3).half()
        assert (halved.weight.dtype, halved.running_var.dtype) == (np.float16, np.float32)
        x = tg.tensor(RNG.normal(100, 1e-1, (64, 3)), dtype=tg.float16, device=device)
        y = layer(x)
        assert y.dtype == np.float16
        expected = standardized(x.cpu().numpy(), 0)
        np.testing.assert_allclose(
            y.cpu().tolist(), expected, atol=2e-3
        )  # half of float16's last digit at 4

    def test_nan_stays_in_its_channel(self, device):
        layer = nn.BatchNorm1d(3, device=device)
        x = RNG.normal(size=(8, 3)).astype(np.float32)
        x[2, 1] = np.nan
        y = np.asarray(layer(tg.tensor(x, device=device)).tolist())
        assert np.isnan(y[:, 1]).all()
        assert np.isfinite(y[:, [0, 2]]).all()
        assert np.isfinite(np.asarray(layer.running_mean.tolist())[[0, 2]]).all()

    def test_the_gradients_sum_to_zero_over_the_batch(self):
        x = tg.tensor(RNG.normal(size=(32, 4)), requires_grad=True)
        y = F.batch_norm(x, None, None, training=True, eps=1e-300)
        y.backward(tg.tensor(RNG.normal(size=(32, 4))))
        dx = x.grad.numpy()
        np.testing.assert_allclose(dx.sum(0), 0, atol=1e-13)
        np.testing.assert_allclose((dx * y.detach().numpy()).sum(0), 0, atol=1e-13)

    @pytest.mark.parametrize("eps", [-1.0, 0.0, np.nan])
    def test_an_eps_that_is_not_positive_is_refused_before_the_batch_is_counted(self, eps):
        layer = nn.BatchNorm1d(3, eps=eps)
        with pytest.raises(ArgumentError, match="eps > 0 in training"):
            layer(tg.zeros(4, 3))
        assert layer.num_batches_tracked.item() == 0

    def test_an_eps_of_zero_will_do_in_evaluation(self):
        layer = nn.BatchNorm1d(3, eps=0.0).eval()
        assert layer(tg.ones(2, 3)).tolist() == [[1.0] * 3] * 2
        with pytest.raises(ArgumentError, match="eps ≥ 0, got -1"):
            F.batch_norm(tg.ones(2, 3), tg.zeros(3), tg.ones(3), eps=-1)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("BatchNorm1d", {}, (8, 4)),
        ("BatchNorm1d", {"momentum": None}, (8, 4, 3)),
        ("BatchNorm1d", {"momentum": 0.3, "eps": 1e-2}, (8, 4)),
        ("BatchNorm1d", {"affine": False}, (8, 4)),
        ("BatchNorm1d", {"bias": False}, (8, 4)),
        ("BatchNorm1d", {"track_running_stats": False}, (8, 4)),
        ("LayerNorm", {}, (8, 4)),
        ("LayerNorm", {"bias": False}, (8, 4)),
        ("LayerNorm", {"elementwise_affine": False, "eps": 1e-3}, (8, 4)),
    ],
)
@pytest.mark.torch
def test_fifty_steps_are_those_of_pytorch(name, options, shape):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(4 if name != "LayerNorm" else shape[1:], **options).double()
    ours = getattr(nn, name)(4 if name != "LayerNorm" else shape[1:], **options).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(1)
    for step in range(50):
        if step == 40:
            ours.eval()
            theirs.eval()
        x, dy = rng.normal(2, 3, shape), rng.normal(size=shape)
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-10)
        y.backward(tg.tensor(dy))
        z.backward(torch.tensor(dy))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-10)
        with tg.no_grad(), torch.no_grad():
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=1e-10)
                p.sub_(p.grad * 0.01)
                q.sub_(q.grad * 0.01)
                p.grad = q.grad = None
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    for key, value in ours.state_dict().items():
        np.testing.assert_allclose(value.numpy(), state[key], atol=1e-10, err_msg=key)


def test_functions_check_their_vectors():
    x = tg.zeros(4, 3)
    with pytest.raises(ShapeError, match=r"running_mean of shape \(3,\), got \(2,\)"):
        F.batch_norm(x, tg.zeros(2), tg.ones(3))
    with pytest.raises(ArgumentError, match="running_mean and running_var"):
        F.batch_norm(x, None, None)
    with pytest.raises(ShapeError, match="rank 2 or more"):
        F.batch_norm(tg.zeros(3), None, None, training=True)


def test_reset_forgets():
    layer = nn.BatchNorm1d(2)
    layer(tg.randn(8, 2) + 5)
    with tg.no_grad():
        layer.weight.fill_(3.0)
    layer.reset_running_stats()
    layer.reset_parameters()
    values = [v.tolist() for v in layer.state_dict().values()]
    assert values == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], 0]
