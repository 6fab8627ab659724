"""Filter response norm and its activation, against the formula."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)


def direct(x, eps=1e-6):
    """x / √(ν² + ε) by NumPy in float64."""
    x = np.asarray(x, np.float64)
    over = tuple(range(2, x.ndim))
    return x / np.sqrt((x**2).mean(over, keepdims=True) + eps)


def column(v, ndim):
    return np.asarray(v, np.float64).reshape(-1, *[1] * (ndim - 2))


SHAPES = [(4, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


class TestFilterResponseNorm:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("learnable_eps", [False, True])
    def test_is_the_formula(self, shape, learnable_eps, device):
        layer = nn.FilterResponseNorm(3, 1e-3, learnable_eps=learnable_eps, device=device).double()
        state = {"weight": RNG.normal(size=3), "bias": RNG.normal(size=3)}
        eps = 1e-3
        if learnable_eps:
            state["eps_l"] = np.array([-0.5])
            eps += 0.5
        layer.load_state_dict(state)
        x = RNG.normal(1, 2, shape)
        y = layer(tg.tensor(x, device=device))
        gamma, beta = (column(state[key], x.ndim) for key in ("weight", "bias"))
        expected = gamma * direct(x, eps) + beta
        np.testing.assert_allclose(y.tolist(), expected, rtol=1e-13, atol=1e-14)
        assert layer.eval()(tg.tensor(x, device=device)).tolist() == y.tolist()

    def test_of_vectors_with_a_learned_eps(self, device):
        layer = nn.FilterResponseNorm(3, learnable_eps=True, device=device)
        x = RNG.normal(0, 1e-2, (5, 3)).astype(np.float32)
        y = layer(tg.tensor(x, device=device))
        expected = x / np.sqrt(x.astype(np.float64) ** 2 + 1.01e-4)
        np.testing.assert_allclose(y.tolist(), expected, rtol=5e-7)  # a few roundings of float32

    def test_knows_nothing_of_other_samples_and_channels(self):
        layer = nn.FilterResponseNorm(3)
        x = RNG.normal(size=(4, 3, 6)).astype(np.float32)
        whole = layer(tg.tensor(x)).detach().numpy()
        for i in range(4):
            assert layer(tg.tensor(x[i : i + 1])).tolist() == whole[i : i + 1].tolist()
        x[1, 2, 3] = np.nan
        found = np.isnan(layer(tg.tensor(x)).detach().numpy())
        assert found[1, 2].all()
        assert found.sum() == 6

    def test_does_not_depend_on_the_scale(self):
        layer = nn.FilterResponseNorm(3, eps=1e-300).double()
        x = RNG.normal(size=(2, 3, 6))
        np.testing.assert_allclose(
            layer(tg.tensor(7 * x)).tolist(), layer(tg.tensor(x)).tolist(), rtol=1e-14
        )

    @pytest.mark.parametrize(
        ("options", "keys"),
        [
            ({}, ["weight", "bias"]),
            ({"bias": False}, ["weight"]),
            ({"affine": False}, []),
            ({"learnable_eps": True}, ["weight", "bias", "eps_l"]),
        ],
    )
    def test_what_is_learned(self, options, keys):
        layer = nn.FilterResponseNorm(3, **options)
        assert list(layer.state_dict()) == keys
        assert [name for name, _ in layer.named_parameters()] == keys
        layer(tg.randn(2, 3, 4, requires_grad=True)).square().sum().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())
        if keys:
            (group,) = tg.optim.param_groups(nn.Sequential(layer, nn.TLU(3)))
            assert group["weight_decay"] == 0

    def test_reset(self):
        layer = nn.FilterResponseNorm(2, learnable_eps=True)
        with tg.no_grad():
            for p in layer.parameters():
                p.fill_(5.0)
        layer.reset_parameters()
        assert (layer.weight.tolist(), layer.bias.tolist()) == ([1.0] * 2, [0.0] * 2)
        assert layer.eps_l.tolist() == pytest.approx([1e-4])

    def test_shows_its_options(self):
        text = "FilterResponseNorm(3, eps=1e-06, affine=True, learnable_eps=True, bias=True)"
        assert repr(nn.FilterResponseNorm(3, learnable_eps=True)) == text

    def test_empty_inputs(self):
        layer = nn.FilterResponseNorm(3, learnable_eps=True)
        for shape in ((0, 3, 4), (2, 3, 0), (0, 3)):
            x = tg.zeros(shape, requires_grad=True)
            layer(x).sum().backward()
            assert x.grad.shape == shape

    def test_copies_and_checkpointing(self):
        layer = nn.FilterResponseNorm(3, learnable_eps=True).double()
        x = tg.tensor(RNG.normal(size=(2, 3, 4)), requires_grad=True)
        twin = copy.deepcopy(layer)
        layer(x).square().sum().backward()
        checkpoint(twin, x).square().sum().backward()
        for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
            assert p.grad.tolist() == q.grad.tolist()


class TestExactness:
    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    @pytest.mark.parametrize("learnable_eps", [False, True])
    def test_at_extreme_scales(self, scale, learnable_eps, device):
        layer = nn.FilterResponseNorm(3, learnable_eps=learnable_eps, device=device)
        x = (RNG.normal(size=(2, 3, 64)) * scale).astype(np.float32)
        t = tg.tensor(x, device=device, requires_grad=True)
        y = layer(t)
        eps = 1e-6 + learnable_eps * float(np.float32(1e-4))
        np.testing.assert_allclose(y.tolist(), direct(x, eps), rtol=2e-6)
        y.backward(tg.tensor(np.sign(x), device=device))
        rstd = direct(x, eps) / x
        mean = (np.abs(x) * rstd).mean(2, keepdims=True)
        expected = rstd * (np.sign(x) - direct(x, eps) * mean)
        error = np.asarray(t.grad.tolist()) - expected
        assert np.linalg.norm(error / rstd) < 1e-6 * np.linalg.norm(expected / rstd)
        assert all(p.grad.isfinite().all() for p in layer.parameters())

    @pytest.mark.parametrize("offset", [1e4, -1e6])
    def test_far_from_zero(self, offset, device):
        x = RNG.normal(offset, 1, (2, 3, 64)).astype(np.float32)
        y = nn.FilterResponseNorm(3, device=device)(tg.tensor(x, device=device))
        np.testing.assert_allclose(y.tolist(), direct(x), rtol=2e-7)  # of 1/√ν² and of y

    def test_a_channel_of_zeros_gives_its_bias(self, device):
        layer = nn.FilterResponseNorm(2, device=device)
        layer.load_state_dict({"weight": np.ones(2), "bias": np.array([0.25, -3.0])})
        x = tg.zeros(3, 2, 5, device=device, requires_grad=True)
        y = layer(x)
        assert y.tolist() == [[[0.25] * 5, [-3.0] * 5]] * 3
        y.sum().backward()
        np.testing.assert_allclose(x.grad.tolist(), 1e3, rtol=1e-6)  # γ / √ε

    def test_sixteen_bits_have_statistics_in_more(self, device):
        layer = nn.FilterResponseNorm(3, learnable_eps=True, device=device).half()
        x = RNG.normal(0, 300, (2, 3, 64)).astype(np.float16)  # the squares are beyond float16
        y = layer(tg.tensor(x, device=device))
        assert y.dtype == tg.float16
        # half of float16's last digit at 4
        np.testing.assert_allclose(y.tolist(), direct(x), atol=2e-3)


class TestTLU:
    @pytest.mark.parametrize("shape", [(4, 3), *SHAPES])
    def test_is_the_maximum(self, shape, device):
        layer = nn.TLU(3, device=device).double()
        x = RNG.normal(size=shape)
        assert layer(tg.tensor(x, device=device)).tolist() == np.maximum(x, 0).tolist()
        tau = np.array([-0.5, 0.0, 0.7])
        layer.load_state_dict({"tau": tau})
        y = layer(tg.tensor(x, device=device))
        assert y.tolist() == np.maximum(x, column(tau, x.ndim)).tolist()

    def test_gradients(self, device):
        layer = nn.TLU(2, device=device).double()
        layer.load_state_dict({"tau": np.array([0.5, -1.0])})
        x = tg.tensor(
            [[[0.0, 1.0, 0.5], [-2.0, 0.0, 3.0]]],
            dtype=tg.float64,
            device=device,
            requires_grad=True,
        )
        layer(x).sum().backward()
        assert x.grad.tolist() == [[[0.0, 1.0, 0.5], [0.0, 1.0, 1.0]]]
        assert layer.tau.grad.tolist() == [1.5, 1.0]

    def test_keeps_the_dtype(self):
        assert nn.TLU(3)(tg.zeros(2, 3, dtype=tg.float16)).dtype == tg.float16
        assert nn.TLU(3).half()(tg.zeros(2, 3)).dtype == tg.float32

    def test_reset_and_looks(self):
        layer = nn.TLU(2)
        layer.load_state_dict({"tau": np.ones(2)})
        layer.reset_parameters()
        assert layer.tau.tolist() == [0.0] * 2
        assert repr(layer) == "TLU(2)"


class TestErrors:
    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 4, 3), (2, 3)])
    def test_other_shapes(self, shape):
        with pytest.raises(ShapeError, match=r"expected \(N, 3, \*S\) of rank 3 or more"):
            nn.FilterResponseNorm(3)(tg.zeros(shape))
        if shape != (2, 3):
            with pytest.raises(ShapeError, match=r"expected \(N, 3, \*S\)"):
                nn.FilterResponseNorm(3, learnable_eps=True)(tg.zeros(shape))
            with pytest.raises(ShapeError, match=r"expected \(N, 3, \*S\)"):
                nn.TLU(3)(tg.zeros(shape))

    def test_vectors_are_told_of_the_learned_eps(self):
        with pytest.raises(ShapeError, match="learnable_eps=True takes rank 2"):
            nn.FilterResponseNorm(3)(tg.zeros(2, 3))

    @pytest.mark.parametrize("eps", [0.0, -1.0, np.nan])
    def test_eps(self, eps):
        with pytest.raises(ArgumentError, match="expected eps > 0"):
            nn.FilterResponseNorm(3, eps)

    def test_integers_and_arrays(self):
        for layer in (nn.FilterResponseNorm(3), nn.TLU(3)):
            with pytest.raises(DtypeError, match="expected floats as input"):
                layer(tg.zeros((2, 3, 4), dtype=tg.int64))
            with pytest.raises(DtypeError, match="to be a tensor"):
                layer(np.zeros((2, 3, 4)))

    def test_other_devices(self, cuda):
        for layer in (nn.FilterResponseNorm(3), nn.TLU(3)):
            with pytest.raises(BackendError, match="on cuda:0, got one on cpu"):
                layer(tg.zeros(2, 3, 4, device=cuda))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("shape", "learnable_eps"),
    [((4, 3, 7), False), ((4, 3, 7), True), ((2, 3, 4, 5), True), ((8, 3), True)],
)
def test_trains_as_the_formula_in_pytorch(shape, learnable_eps):
    torch = pytest.importorskip("torch")
    norm, tlu = nn.FilterResponseNorm(3, 1e-2, learnable_eps=learnable_eps), nn.TLU(3)
    ours = nn.Sequential(norm, tlu).double()
    theirs = {
        key: torch.tensor(value.numpy(), requires_grad=True)
        for key, value in ours.state_dict().items()
    }
    options = {"lr": 0.02, "momentum": 0.9}
    optimizers = (
        tg.optim.SGD(ours.parameters(), **options),
        torch.optim.SGD(theirs.values(), **options),
    )

    def formula(x):
        over = tuple(range(2, x.ndim))
        eps = 1e-2 + (theirs["0.eps_l"].abs() if learnable_eps else 0)
        gamma, beta, tau = (
            theirs[key].reshape(-1, *[1] * (x.ndim - 2)) for key in ("0.weight", "0.bias", "1.tau")
        )
        square = (x * x).mean(over, keepdim=True) if over else x * x
        return torch.maximum(gamma * x * torch.rsqrt(square + eps) + beta, tau)

    for _ in range(50):
        x, dy = RNG.normal(0.3, 1, shape), RNG.normal(size=shape)
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), formula(b)
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
