"""EvoNorms against their formulas; statistics exact far from zero."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)
EPS = 1e-5
SHAPES = [(6, 4), (5, 4, 3), (3, 4, 2, 5), (2, 4, 2, 3, 2)]


def column(v, ndim):
    return np.asarray(v, np.float64).reshape(-1, *[1] * (ndim - 2))


def over_channels(x):
    return (0, *range(2, x.ndim))


def group_variance(x, groups):
    """The variance of each group of each sample, in a shape that broadcasts."""
    n, c = x.shape[:2]
    grouped = x.astype(np.float64).reshape(n, groups, -1)
    var = np.repeat(grouped.var(2), c // groups, axis=1)
    return var.reshape(n, c, *[1] * (x.ndim - 2))


def direct_b0(x, state, var=None, eps=EPS):
    """The formula of B0 by NumPy in float64; ``var`` is that of the batch if it is not given."""
    gamma, beta, v = (column(state[key], x.ndim) for key in ("weight", "bias", "v"))
    x = np.asarray(x, np.float64)
    batch = column(x.var(over_channels(x)) if var is None else var, x.ndim)
    instance = group_variance(x, x.shape[1])
    own = v * x + np.sqrt(instance + eps)
    return gamma * x / np.maximum(np.sqrt(batch + eps), own) + beta


def direct_s0(x, state, groups, eps=EPS):
    gamma, beta, v = (column(state[key], x.ndim) for key in ("weight", "bias", "v"))
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        active = x / (1 + np.exp(-v * x))
    return gamma * active / np.sqrt(group_variance(x, groups) + eps) + beta


def plain(channels):
    return {"weight": np.ones(channels), "bias": np.zeros(channels), "v": np.ones(channels)}


def drawn(channels):
    return {key: RNG.normal(size=channels) for key in ("weight", "bias", "v")}


class TestB0:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_is_the_formula_in_training(self, shape, device):
        layer = nn.EvoNormB0(4, device=device).double()
        state = drawn(4)
        layer.load_state_dict(state, strict=False)
        x = RNG.normal(1, 2, shape)
        y = layer(tg.tensor(x, device=device))
        np.testing.assert_allclose(y.tolist(), direct_b0(x, state), rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("correction", ["biased", "unbiased"])
    def test_its_running_variance(self, correction, device):
        layer = nn.EvoNormB0(
            4, momentum=0.25, running_var_correction=correction, device=device
        ).double()
        x = RNG.normal(1, 2, (5, 4, 3))
        layer(tg.tensor(x, device=device))
        var = 0.75 + 0.25 * x.var((0, 2), ddof=int(correction == "unbiased"))
        np.testing.assert_allclose(layer.running_var.tolist(), var, rtol=1e-14)
        assert layer.num_batches_tracked.item() == 1
        y = layer.eval()(tg.tensor(2 * x, device=device))
        expected = direct_b0(2 * x, plain(4), var)
        np.testing.assert_allclose(y.tolist(), expected, rtol=1e-12, atol=1e-13)
        assert layer.num_batches_tracked.item() == 1

    def test_without_momentum_averages_all_batches(self):
        layer = nn.EvoNormB0(2, momentum=None).double()
        batches = [RNG.normal(size=(6, 2, 3)) for _ in range(4)]
        for x in batches:
            layer(tg.tensor(x))
        expected = np.mean([x.var((0, 2)) for x in batches], axis=0)
        np.testing.assert_allclose(layer.running_var.tolist(), expected, rtol=1e-13)

    def test_without_a_running_variance_takes_the_batch_always(self):
        layer = nn.EvoNormB0(4, track_running_stats=False).double().eval()
        x = RNG.normal(1, 2, (5, 4, 3))
        found = layer(tg.tensor(x)).tolist()
        np.testing.assert_allclose(found, direct_b0(x, plain(4)), rtol=1e-12)
        assert list(layer.state_dict()) == ["weight", "bias", "v"]

    @pytest.mark.parametrize(
        ("options", "keys"),
        [
            ({}, ["weight", "bias", "v", "running_var", "num_batches_tracked"]),
            ({"bias": False}, ["weight", "v", "running_var", "num_batches_tracked"]),
            ({"affine": False}, ["v", "running_var", "num_batches_tracked"]),
            ({"nonlinear": False}, ["weight", "bias"]),
        ],
    )
    def test_its_state(self, options, keys):
        layer = nn.EvoNormB0(4, **options)
        assert list(layer.state_dict()) == keys
        layer(tg.randn(3, 4, 2)).square().sum().backward()
        assert all(p.grad.shape == (4,) for p in layer.parameters())

    def test_freezing_holds_the_variance(self):
        layer = nn.EvoNormB0(4).double().freeze()
        x = RNG.normal(1, 2, (5, 4, 3))
        found = layer(tg.tensor(x)).tolist()
        np.testing.assert_allclose(found, direct_b0(x, plain(4), np.ones(4)), rtol=1e-12)
        assert not any(p.requires_grad for p in layer.parameters())
        assert layer.num_batches_tracked.item() == 0
        assert layer.unfreeze().v.requires_grad

    def test_reset(self):
        layer = nn.EvoNormB0(2)
        layer(tg.randn(8, 2) + 5)
        with tg.no_grad():
            for p in layer.parameters():
                p.fill_(3.0)
        layer.reset_parameters()
        layer.reset_running_stats()
        values = [v.tolist() for v in layer.state_dict().values()]
        assert values == [[1.0] * 2, [0.0] * 2, [1.0] * 2, [1.0] * 2, 0]

    def test_a_single_value(self):
        layer = nn.EvoNormB0(3)
        with pytest.raises(ShapeError, match="more than one value"):
            layer(tg.zeros(1, 3))
        assert layer.num_batches_tracked.item() == 0
        x = tg.tensor([[1.0, 2.0, 3.0]])
        patient = nn.EvoNormB0(3, on_single="running")
        assert patient(x).tolist() == layer.eval()(x).tolist()

    def test_checkpointing_counts_a_batch_once(self):
        layer = nn.EvoNormB0(3).double()
        twin = copy.deepcopy(layer)
        x = tg.tensor(RNG.normal(size=(4, 3, 5)), requires_grad=True)
        layer(x).square().sum().backward()
        checkpoint(twin, x).square().sum().backward()
        for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
            assert p.grad.tolist() == q.grad.tolist()
        assert twin.num_batches_tracked.item() == 1
        assert twin.running_var.tolist() == layer.running_var.tolist()

    def test_survives_pickling(self):
        layer = nn.EvoNormB0(3)
        layer(tg.randn(4, 3, 2))
        twin = pickle.loads(pickle.dumps(layer)).eval()
        x = tg.randn(4, 3, 2)
        assert twin(x).tolist() == layer.eval()(x).tolist()


class TestS0:
    @pytest.mark.parametrize("groups", [1, 2, 4])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_is_the_formula(self, shape, groups, device):
        layer = nn.EvoNormS0(4, groups, device=device).double()
        state = drawn(4)
        layer.load_state_dict(state)
        x = RNG.normal(1, 2, shape)
        y = layer(tg.tensor(x, device=device))
        expected = direct_s0(x, state, groups)
        np.testing.assert_allclose(y.tolist(), expected, rtol=1e-12, atol=1e-13)
        assert layer.eval()(tg.tensor(x, device=device)).tolist() == y.tolist()

    @pytest.mark.parametrize(
        ("options", "keys"),
        [
            ({}, ["weight", "bias", "v"]),
            ({"bias": False}, ["weight", "v"]),
            ({"affine": False}, ["v"]),
            ({"nonlinear": False}, ["weight", "bias"]),
        ],
    )
    def test_its_state(self, options, keys):
        layer = nn.EvoNormS0(4, 2, **options)
        assert list(layer.state_dict()) == keys
        layer(tg.randn(3, 4, 2)).square().sum().backward()
        assert all(p.grad.shape == (4,) for p in layer.parameters())
        (group,) = tg.optim.param_groups(layer)
        assert group["weight_decay"] == 0

    def test_knows_nothing_of_other_samples(self):
        layer = nn.EvoNormS0(4, 2)
        x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
        whole = layer(tg.tensor(x)).detach().numpy()
        for i in range(3):
            assert layer(tg.tensor(x[i : i + 1])).tolist() == whole[i : i + 1].tolist()
        x[1, 0, 0] = np.nan
        found = np.isnan(layer(tg.tensor(x)).detach().numpy())
        assert found[1, :2].all()
        assert found.sum() == 10

    def test_reset(self):
        layer = nn.EvoNormS0(2, 1)
        layer.load_state_dict(drawn(2))
        layer.reset_parameters()
        assert [v.tolist() for v in layer.state_dict().values()] == [
            [1.0] * 2,
            [0.0] * 2,
            [1.0] * 2,
        ]


LAYERS = {
    "B0": lambda **options: nn.EvoNormB0(4, **options),
    "S0": lambda **options: nn.EvoNormS0(4, 2, **options),
}


def direct(name, x, state):
    return direct_b0(x, state) if name == "B0" else direct_s0(x, state, 2)


@pytest.mark.parametrize("name", LAYERS)
class TestBoth:
    def test_without_nonlinearity_are_affine(self, name, device):
        layer = LAYERS[name](nonlinear=False, device=device)
        layer.load_state_dict({"weight": np.arange(4.0), "bias": np.ones(4)})
        x = RNG.normal(size=(1, 4, 1)).astype(np.float32)
        y = layer(tg.tensor(x, device=device))
        assert y.tolist() == (x * np.float32(column(range(4), 3)) + 1).tolist()

    @pytest.mark.parametrize("shape", [(5, 4), (3, 4, 2)])
    def test_gradients_to_order_3(self, name, shape, device):
        layer = LAYERS[name](eps=1e-2, device=device).double()
        keys = ("weight", "bias", "v")
        arrays = [RNG.normal(size=shape), *drawn(4).values()]
        inputs = [tg.tensor(x, device=device, requires_grad=True) for x in arrays]

        def function(x, *vectors):
            vars(layer).update(zip(keys, vectors, strict=True))
            return layer(x)

        assert tg.autograd.gradcheck(function, inputs, atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            # differences of steps of 1e-6 leave 1e-10 of rounding, which third derivatives enlarge
            assert tg.autograd.gradgradcheck(function, inputs, order=order, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("nonlinear", [True, False])
    def test_keep_the_dtype(self, name, nonlinear):
        for layer in (LAYERS[name](nonlinear=nonlinear), LAYERS[name](nonlinear=nonlinear).half()):
            for dtype in (tg.float16, tg.float32, tg.float64):
                x = tg.tensor(RNG.normal(size=(3, 4, 2)), dtype=dtype, requires_grad=True)
                y = layer(x)
                assert y.dtype == dtype
                y.sum().backward()
                assert x.grad.dtype == dtype

    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (1e5, 1.0), (-1e6, 1.0), (0.0, 1e-30), (0.0, 1e30)]
    )
    def test_exact_far_from_zero_and_at_extreme_scales(self, name, offset, scale, device):
        """The sigmoid of v x is 0 or 1 so far away."""
        layer = LAYERS[name](device=device)
        x = RNG.normal(offset, scale, (8, 4, 16)).astype(np.float32)
        t = tg.tensor(x, device=device, requires_grad=True)
        y = layer(t)
        # a few roundings of float32 at 6e-8 each, and the sigmoid's
        expected = direct(name, x, plain(4))
        np.testing.assert_allclose(y.tolist(), expected, rtol=2e-6, atol=0)
        y.sum().backward()
        assert t.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in layer.parameters())

    def test_the_gradient_far_from_zero(self, name, device):
        x = RNG.normal(1e3, 1e-2, (8, 4, 16)).astype(np.float32)
        dy = RNG.normal(size=x.shape).astype(np.float32)
        grads = []
        for dtype in (np.float32, np.float64):
            t = tg.tensor(x.astype(dtype), device=device, requires_grad=True)
            layer = LAYERS[name](device=device)
            layer = layer.double() if dtype == np.float64 else layer
            layer(t).backward(tg.tensor(dy.astype(dtype), device=device))
            grads.append(np.asarray(t.grad.tolist()))
        error = np.linalg.norm(grads[0] - grads[1]) / np.linalg.norm(grads[1])
        assert error < 1e-6  # float32's rounding, 6e-8, with room for the sums

    def test_constant_channels_are_finite(self, name, device):
        layer = LAYERS[name](device=device)
        x = tg.full((3, 4, 5), 0.1, device=device, requires_grad=True)
        y = layer(x)
        np.testing.assert_allclose(
            y.tolist(), direct(name, np.full((3, 4, 5), np.float32(0.1)), plain(4)), rtol=1e-6
        )
        y.sum().backward()
        assert x.grad.isfinite().all()

    def test_sixteen_bits_have_statistics_in_more(self, name, device):
        layer = LAYERS[name](device=device).half()
        x = RNG.normal(0, 300, (4, 4, 16)).astype(np.float16)  # the squares are beyond float16
        y = layer(tg.tensor(x, device=device))
        # half of float16's last digit of numbers up to 4
        np.testing.assert_allclose(y.tolist(), direct(name, x, plain(4)), atol=2e-3)
        for buffer in layer.buffers():
            assert buffer.dtype in (tg.float32, tg.int64)
        assert LAYERS[name](dtype=tg.float16).v.dtype == tg.float16

    def test_empty_inputs(self, name):
        layer = LAYERS[name]().eval()
        for shape in ((0, 4, 3), (2, 4, 0), (0, 4)):
            x = tg.zeros(shape, requires_grad=True)
            layer(x).sum().backward()
            assert x.grad.shape == shape

    @pytest.mark.parametrize("nonlinear", [True, False])
    @pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 5, 4)])
    def test_refuse_other_shapes(self, name, nonlinear, shape):
        with pytest.raises(ShapeError, match=r"expected \(N, 4, \*S\)"):
            LAYERS[name](nonlinear=nonlinear)(tg.zeros(shape))

    def test_refuse_other_devices_and_dtypes(self, name, cuda):
        layer = LAYERS[name]()
        with pytest.raises(BackendError, match="on cuda:0, got one on cpu"):
            layer(tg.zeros(2, 4, 3, device=cuda))
        with pytest.raises(DtypeError, match="expected floats as input"):
            layer(tg.zeros((2, 4, 3), dtype=tg.int64))

    @pytest.mark.torch
    def test_train_as_the_formula_in_pytorch(self, name):
        torch = pytest.importorskip("torch")
        ours = LAYERS[name](eps=1e-3).double()
        theirs = {
            key: torch.tensor(value.detach().numpy(), requires_grad=True)
            for key, value in ours.named_parameters()
        }
        options = {"lr": 0.02, "momentum": 0.9}
        optimizers = (
            tg.optim.SGD(ours.parameters(), **options),
            torch.optim.SGD(theirs.values(), **options),
        )
        running = torch.ones(4, dtype=torch.float64)

        def formula(x, training):
            gamma, beta, v = (theirs[key].reshape(-1, 1, 1) for key in ("weight", "bias", "v"))
            if name == "S0":
                var = x.reshape(len(x), 2, -1).var(2, correction=0).repeat_interleave(2, 1)
                y = x * torch.sigmoid(v * x) / (var[:, :, None, None] + 1e-3).sqrt()
            else:
                batch = x.var((0, 2, 3), correction=0)
                if training:
                    running.lerp_(batch.detach(), 0.1)
                batch = batch if training else running
                instance = x.var((2, 3), correction=0, keepdim=True)
                own = v * x + (instance + 1e-3).sqrt()
                y = x / torch.maximum((batch + 1e-3).sqrt()[:, None, None], own)
            return gamma * y + beta

        for step in range(50):
            ours.train(step < 40)
            x, dy = RNG.normal(0.3, 1, (2, 3, 4, 5, 2))
            a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            y, z = ours(a), formula(b, step < 40)
            # float64's rounding, which fifty steps with momentum amplify
            np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-11)
            for optimizer in optimizers:
                optimizer.zero_grad()
            y.backward(tg.tensor(dy))
            z.backward(torch.tensor(dy))
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-11)
            for key, p in ours.named_parameters():
                np.testing.assert_allclose(p.grad.numpy(), theirs[key].grad.numpy(), atol=1e-11)
            for optimizer in optimizers:
                optimizer.step()


class TestErrors:
    def test_groups(self):
        with pytest.raises(ShapeError, match="3 groups divide, got 4"):
            nn.EvoNormS0(4, 3)
        with pytest.raises(ArgumentError, match="num_groups ≥ 1"):
            nn.EvoNormS0(4, 0)

    @pytest.mark.parametrize("eps", [0.0, -1.0, np.nan])
    def test_eps(self, eps):
        with pytest.raises(ArgumentError, match="expected eps > 0"):
            nn.EvoNormS0(4, 2, eps)
        layer = nn.EvoNormB0(4, eps)
        with pytest.raises(ArgumentError, match="expected eps > 0 in training"):
            layer(tg.zeros(2, 4))
        assert layer.num_batches_tracked.item() == 0

    def test_corrections(self):
        with pytest.raises(ArgumentError, match="'unbiased' or 'biased'"):
            nn.EvoNormB0(4, running_var_correction="none")
