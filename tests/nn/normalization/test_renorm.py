"""Batch renormalization: batch norm, corrected towards the running statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.relatives import Relative, drawn, kept_of, state_of, values
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.normalization import BatchNorm

INF = float("inf")


class TestANewOne(Relative):
    """Whose bounds are still 1 and 0: it is batch norm."""

    def make(self, **options):
        return nn.BatchRenorm(3, **options)

    def expected(self, x, mask, eps):
        kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
        flat = np.moveaxis(x, 1, 2)[kept]
        return (x - flat.mean(0)[:, None]) / np.sqrt(flat.var(0) + eps)[:, None]


class TestACorrectedOne(Relative):
    """Whose bounds are wide: it is the promises of the family that are looked at."""

    def make(self, **options):
        return nn.BatchRenorm(3, r_max=3, d_max=5, **options)

    def expected(self, x, mask, eps):
        return corrected(x, mask, 3, 5, 0, 1, eps)[0]

    test_evaluates_as_it_trained_where_it_has_seen_nothing_else = None  # it trains by what was
    test_has_gradients_of_three_orders = None  # below, where r and d do not move
    test_a_constant_channel_gives_exactly_its_bias = None

    @pytest.mark.parametrize(("offset", "scale"), [(3.0, 2.0), (-1.0, 0.5), (0.5, 1e-3)])
    def test_is_exact_far_from_zero(self, offset, scale, route):
        """The running statistics, which it is compared to, are float32 themselves."""
        super().test_is_exact_far_from_zero(offset, scale, route)


def corrected(x, mask, r_max, d_max, mean, var, eps=1e-5):
    """x (N, C, S) by algorithm 1 of the paper, with running statistics (C,); r and d of it too."""
    kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
    flat = np.moveaxis(x, 1, 2)[kept]
    batch_mean, batch_std = flat.mean(0), np.sqrt(flat.var(0) + eps)
    std = np.sqrt(np.broadcast_to(var, batch_std.shape) + eps)
    r = np.clip(batch_std / std, 1 / r_max, r_max)
    d = np.clip((batch_mean - mean) / std, -d_max, d_max)
    x_hat = (x - batch_mean[:, None]) / batch_std[:, None]
    return x_hat * r[:, None] + d[:, None], r, d


class TestTheCorrection:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(("r_max", "d_max"), [(1.5, 0.3), (3, 5), (INF, INF), (1, 5), (3, 0)])
    def test_is_that_of_the_paper_step_by_step(self, r_max, d_max, masked, device):
        layer = nn.BatchRenorm(3, r_max=r_max, d_max=d_max, momentum=0.2).double().to(device)
        mean, var = np.zeros(3), np.ones(3)
        for step in range(6):
            x = drawn(6, 3, 2, seed=step)
            mask = kept_of(6, 2, seed=step) if masked else None
            given_mask = None if mask is None else tg.tensor(mask, device=device)
            y = layer(tg.tensor(x, device=device), given_mask)
            expected, _, _ = corrected(x, mask, r_max, d_max, mean, var)
            np.testing.assert_allclose(values(y), expected, rtol=1e-12, atol=1e-13)
            flat = np.moveaxis(x, 1, 2)[np.ones((6, 2), bool) if mask is None else mask]
            mean = 0.8 * mean + 0.2 * flat.mean(0)
            var = 0.8 * var + 0.2 * flat.var(0, ddof=1)
            np.testing.assert_allclose(values(layer.running_mean), mean, rtol=1e-13)
            np.testing.assert_allclose(values(layer.running_var), var, rtol=1e-13)

    def test_unbounded_makes_training_give_what_evaluation_gives(self, device):
        layer = nn.BatchRenorm(3, r_max=INF, d_max=INF, dtype=tg.float64, device=device)
        for seed in range(3):
            layer(tg.tensor(drawn(8, 3, seed=seed), device=device))
        x = tg.tensor(drawn(8, 3, seed=9), device=device)
        expected = values(layer.eval()(x))
        np.testing.assert_allclose(values(layer.train()(x)), expected, rtol=1e-12, atol=1e-13)

    def test_of_nothing_is_batch_norm_to_the_bit(self, device):
        options = {"dtype": tg.float32, "device": device, "momentum": 0.1}
        results = []
        for layer in (BatchNorm(3, **options), nn.BatchRenorm(3, r_max=1, d_max=0, **options)):
            for seed in range(3):
                x = drawn(8, 3, 5, seed=seed).astype(np.float32)
                a = tg.tensor(x, device=device, requires_grad=True)
                y = layer(a)
                (y**3).sum().backward()
            grads = [p.grad.tolist() for p in (a, *layer.parameters())]
            results.append((y.tolist(), grads, state_of(layer)))
        assert results[0] == results[1]

    @settings(max_examples=40, deadline=None)
    @given(
        r_max=st.floats(1, 10),
        d_max=st.floats(0, 10),
        offset=st.floats(-20, 20),
        scale=st.floats(1e-3, 1e3),
    )
    def test_never_leaves_its_bounds(self, r_max, d_max, offset, scale):
        layer = nn.BatchRenorm(3, r_max=r_max, d_max=d_max, dtype=tg.float64, affine=False)
        y = values(layer(tg.tensor((drawn(8, 3) + offset) * scale)))
        # the mean of the output is d and its deviation r, but for ε
        assert np.all(np.abs(y.mean(0)) <= d_max + 1e-12)
        assert np.all(y.std(0) <= r_max + 1e-12)

    def test_has_no_part_in_the_gradient(self, device):
        """γ r rstd (dy - mean(dy) - x̂ mean(dy x̂)), as if r and d were numbers."""
        layer = nn.BatchRenorm(3, r_max=2, d_max=1, dtype=tg.float64, device=device)
        gamma, beta = drawn(3), drawn(3, seed=1)
        layer.load_state_dict({**layer.state_dict(), "weight": gamma, "bias": beta})
        x, dy = drawn(8, 3, 2) * 1.5, drawn(8, 3, 2, seed=1)
        a = tg.tensor(x, device=device, requires_grad=True)
        layer(a).backward(tg.tensor(dy, device=device))
        x_hat = corrected(x, None, 1, 0, 0, 1)[0]
        y, r, d = corrected(x, None, 2, 1, 0, 1)
        rstd = 1 / np.sqrt(x.var((0, 2)) + 1e-5)
        through = dy.mean((0, 2))[:, None] + x_hat * (dy * x_hat).mean((0, 2))[:, None]
        expected = (gamma * r * rstd)[:, None] * (dy - through)
        np.testing.assert_allclose(values(a.grad), expected, atol=1e-12)
        np.testing.assert_allclose(values(layer.weight.grad), (dy * y).sum((0, 2)), atol=1e-11)
        np.testing.assert_allclose(values(layer.bias.grad), dy.sum((0, 2)), atol=1e-12)
        assert not np.allclose(r, 1)
        assert not np.allclose(d, 0)

    def test_at_its_bounds_has_gradients_of_three_orders(self, device):
        """There r and d do not move with the input, so that differences mean something."""
        layer = nn.BatchRenorm(3, r_max=1.1, d_max=0.1, dtype=tg.float64, device=device)
        with tg.no_grad():
            layer.weight.copy_(tg.tensor(drawn(3)))
            layer.running_mean.fill_(-30.0)
        x = tg.tensor(3 * drawn(5, 3, 2), device=device, requires_grad=True)

        def function(x):
            return copy.deepcopy(layer)(x)

        _, r, d = corrected(values(x), None, INF, INF, -30, 1)
        assert np.all(r > 1.2)
        assert np.all(d > 0.2)
        assert gradcheck(function, x, atol=1e-7, rtol=1e-6)
        for order in (2, 3):
            assert gradgradcheck(function, x, order=order, atol=1e-6, rtol=1e-5)


@pytest.mark.torch
def test_two_orders_of_gradients_are_those_of_pytorchs_detached_composition(device):
    torch = pytest.importorskip("torch")
    x, gamma, beta = drawn(6, 3, 2), drawn(3), drawn(3, seed=1)
    layer = nn.BatchRenorm(3, r_max=2, d_max=1, dtype=tg.float64, device=device)
    layer.load_state_dict({**layer.state_dict(), "weight": gamma, "bias": beta})
    a = tg.tensor(x, device=device, requires_grad=True)
    ours = [a, layer.weight, layer.bias]
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, gamma, beta)]
    b = theirs[0]
    mean, std = b.mean((0, 2)), (b.var((0, 2), correction=0) + 1e-5).sqrt()
    running = np.sqrt(1 + 1e-5)
    r = (std / running).clamp(0.5, 2).detach()
    d = (mean / running).clamp(-1, 1).detach()
    x_hat = (b - mean[:, None]) / std[:, None] * r[:, None] + d[:, None]
    z = theirs[1][:, None] * x_hat + theirs[2][:, None]
    first = tg.autograd.grad((layer(a) ** 3).sum(), ours, create_graph=True)
    expected = torch.autograd.grad((z**3).sum(), theirs, create_graph=True)
    for p, q in zip(first, expected, strict=True):
        np.testing.assert_allclose(values(p), q.detach().numpy(), rtol=1e-10, atol=1e-10)
    second = tg.autograd.grad(sum((p**2).sum() for p in first), ours)
    again = torch.autograd.grad(sum((q**2).sum() for q in expected), theirs)
    for p, q in zip(second, again, strict=True):
        np.testing.assert_allclose(values(p), q.numpy(), rtol=1e-9, atol=1e-8)


class TestBounds:
    def test_by_default_are_those_of_the_paper(self):
        layer = nn.BatchRenorm(2)
        for seen, r_max, d_max in [
            (0, 1, 0),
            (5000, 1, 0),
            (15000, 1 + 2 * 10 / 35, 2.5),
            (25000, 1 + 2 * 20 / 35, 5),
            (40000, 3, 5),
            (10**9, 3, 5),
        ]:
            layer.num_batches_tracked.fill_(seen)
            assert layer.bound("r_max").item() == pytest.approx(r_max, rel=1e-15)
            assert layer.bound("d_max").item() == pytest.approx(d_max, rel=1e-15)

    def test_go_on_where_a_state_dict_left_them(self, device):
        ramps = {"r_max": nn.RenormRamp(1, 3, 2, 6), "d_max": nn.RenormRamp(0, 5, 2, 6)}
        layer, fresh = (nn.BatchRenorm(3, device=device, **ramps) for _ in range(2))
        batches = [
            tg.tensor(drawn(8, 3, seed=i), dtype=tg.float32, device=device) for i in range(9)
        ]
        for x in batches[:4]:
            layer(x)
        fresh.load_state_dict(layer.state_dict())
        assert fresh.bound("r_max").item() == 2.0
        for x in batches[4:]:
            assert layer(x).tolist() == fresh(x).tolist()

    def test_may_be_set_at_any_time(self):
        layer = nn.BatchRenorm(3, dtype=tg.float64)
        x = drawn(8, 3, 1)
        layer.r_max, layer.d_max = 2.0, lambda seen: 0.5 + 0 * seen.double()
        np.testing.assert_allclose(
            values(layer(tg.tensor(x))), corrected(x, None, 2, 0.5, 0, 1)[0], atol=1e-13
        )
        assert "r_max=2.0" in repr(layer)

    @pytest.mark.parametrize(
        ("name", "bound"), [("r_max", 0.9), ("r_max", np.nan), ("d_max", -0.1), ("d_max", np.nan)]
    )
    def test_that_leave_nothing_are_refused(self, name, bound):
        with pytest.raises(ArgumentError, match=f"expected {name} ≥ ., or a function"):
            nn.BatchRenorm(3, **{name: bound})
        layer = nn.BatchRenorm(3)
        before = getattr(layer, name)
        with pytest.raises(ArgumentError, match=f"expected {name}"):
            setattr(layer, name, bound)
        assert getattr(layer, name) == before

    @pytest.mark.parametrize(("start", "stop"), [(5, 5), (6, 5), (-1, 5)])
    def test_of_no_time_are_refused(self, start, stop):
        with pytest.raises(ArgumentError, match="0 ≤ start < stop"):
            nn.RenormRamp(1, 3, start, stop)

    def test_that_nobody_counts_for_are_refused(self):
        layer = nn.BatchRenorm(3)
        layer.num_batches_tracked = None
        with pytest.raises(StateError, match="num_batches_tracked for r_max"):
            layer(tg.zeros(4, 3))

    def test_without_running_statistics_it_is_batch_norm(self):
        """As PyTorch's layers are, whose buffers somebody took away."""
        layer = nn.BatchRenorm(3, r_max=3, d_max=5, dtype=tg.float64)
        layer.running_mean = layer.running_var = None
        x = drawn(8, 3, 1)
        expected = corrected(x, None, 1, 0, 0, 1)[0]
        np.testing.assert_allclose(values(layer(tg.tensor(x))), expected, atol=1e-13)
