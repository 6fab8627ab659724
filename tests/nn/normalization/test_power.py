"""Power norm: against the paper's equations, in NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.relatives import Relative, drawn, kept_of, state_of, values
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, StateError
from tinygrad_bn.nn.utils import accumulate_statistics
from tinygrad_bn.utils.checkpoint import checkpoint

EPS = 1e-5
KEYS = ["weight", "bias", "running_mean_square", "running_nu", "num_batches_tracked"]


class TestANewOne(Relative):
    """Which is in its warm-up, and has the derivative for its gradient."""

    keys = KEYS

    def make(self, **options):
        return nn.PowerNorm(3, **options)

    def expected(self, x, mask, eps):
        kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
        square = (np.moveaxis(x, 1, 2)[kept] ** 2).mean(0)
        return x / np.sqrt(square + eps)[:, None]

    def biased(self):
        return {}

    test_a_constant_channel_gives_exactly_its_bias = None


class TestAWarmOne(Relative):
    """Which normalises by its running mean square."""

    keys = KEYS

    def make(self, **options):
        return nn.PowerNorm(3, warmup=0, **options)

    def expected(self, x, mask, eps):
        return x / np.sqrt(1 + eps)

    @pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e-30)])
    def test_is_exact_far_from_zero(self, offset, scale, route):
        super().test_is_exact_far_from_zero(offset, scale, route)

    def test_sixteen_bits_have_statistics_in_32(self, route):
        layer = self.make(dtype=tg.float16, device=route)
        assert layer.running_nu.dtype.name == "float32"
        x = tg.tensor(drawn(64, 3), dtype=tg.float16, device=route)
        np.testing.assert_allclose(values(layer(x)), values(x), rtol=1e-3)

    test_evaluates_as_it_trained_where_it_has_seen_nothing_else = None  # it trains by what was
    test_a_constant_channel_gives_exactly_its_bias = None
    test_is_finite_at_a_scale_whose_square_overflows = None  # whose mean square the state holds not
    test_has_gradients_of_three_orders = None  # its gradient is not the derivative


class Paper:
    """Algorithm 2 of the paper after a warm-up by batch statistics, one channel after another."""

    def __init__(self, channels, warmup, alpha_forward, alpha_backward):
        self.square, self.nu = [1.0] * channels, [0.0] * channels
        self.warmup, self.forward, self.backward = warmup, alpha_forward, alpha_backward
        self.step = 0

    def __call__(self, x, dy, gamma, beta, mask):
        """y, dx, dγ and dβ of x (N, C, S), with a mask (N, S)."""
        y, dx = np.zeros_like(x), np.zeros_like(x)
        dgamma, dbeta = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        self.step += 1
        for c in range(x.shape[1]):
            count = mask.sum()
            square = (x[:, c][mask] ** 2).sum() / count
            warm = self.step <= self.warmup
            psi = np.sqrt((square if warm else self.square[c]) + EPS)
            x_hat = x[:, c] / psi
            y[:, c] = gamma[c] * x_hat + beta[c]
            g = gamma[c] * dy[:, c]
            mean_g_x_hat = (g * x_hat).sum() / count
            mean_square = (x_hat[mask] ** 2).sum() / count
            nu = mean_g_x_hat if warm else self.nu[c]
            dx[:, c] = (g - np.where(mask, nu * x_hat, 0)) / psi
            dgamma[c], dbeta[c] = (dy[:, c] * x_hat).sum(), dy[:, c].sum()
            rate = 1 - self.backward
            self.nu[c] = self.nu[c] * (1 - rate * mean_square) + rate * mean_g_x_hat
            self.square[c] = self.forward * self.square[c] + (1 - self.forward) * square
        return y, dx, dgamma, dbeta


def warmed(device="cpu", **options):
    """A layer past its warm-up, whose ν is not 0."""
    layer = nn.PowerNorm(3, warmup=2, dtype=tg.float64, device=device, **options)
    with tg.no_grad():
        layer.weight.copy_(tg.tensor(drawn(3)))
    for seed in range(3):
        x = tg.tensor(drawn(6, 3, seed=seed), device=device)
        (layer(x) ** 2).sum().backward()
    layer.zero_grad()
    return layer


class TestThePaper:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("axis", [1, -1])
    def test_is_followed_step_by_step(self, axis, masked, device):
        layer = nn.PowerNorm(
            3,
            momentum=0.2,
            backward_momentum=0.3,
            warmup=3,
            axis=axis,
            dtype=tg.float64,
            device=device,
        )
        gamma, beta = drawn(3), drawn(3, seed=1)
        layer.load_state_dict({**layer.state_dict(), "weight": gamma, "bias": beta})
        paper = Paper(3, 3, 0.8, 0.7)
        for step in range(8):
            x, dy = drawn(5, 3, 4, seed=step), drawn(5, 3, 4, seed=100 + step)
            mask = kept_of(5, 4, seed=step) if masked else np.ones((5, 4), bool)
            a = tg.tensor(np.moveaxis(x, 1, axis), device=device, requires_grad=True)
            y = layer(a, tg.tensor(mask, device=device) if masked else None)
            y.backward(tg.tensor(np.moveaxis(dy, 1, axis), device=device))
            found = [np.moveaxis(values(v), axis, 1) for v in (y, a.grad)]
            found += [values(layer.weight.grad), values(layer.bias.grad)]
            for p, q in zip(found, paper(x, dy, gamma, beta, mask), strict=True):
                np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(values(layer.running_mean_square), paper.square, rtol=1e-13)
            np.testing.assert_allclose(values(layer.running_nu), paper.nu, rtol=1e-11)
            layer.zero_grad()

    def test_defines_a_gradient_that_is_not_the_derivative(self):
        """Else the page would warn of nothing: ν x̂ / ψ is what they differ by."""
        layer = warmed()
        nu, square = values(layer.running_nu), values(layer.running_mean_square)
        x = tg.tensor(drawn(6, 3, seed=9), requires_grad=True)
        dy = drawn(6, 3, seed=10)
        layer(x).backward(tg.tensor(dy))
        derivative = values(layer.weight) * dy / np.sqrt(square + EPS)
        difference = nu * values(x) / (square + EPS)
        np.testing.assert_allclose(values(x.grad), derivative - difference, atol=1e-13)
        assert np.abs(difference).max() > 1e-3

    def test_gives_gradients_of_gradients_that_are_those_of_its_formulas(self, device):
        layer = warmed(device)
        nu, square = values(layer.running_nu), values(layer.running_mean_square)
        x = tg.tensor(drawn(6, 3, seed=9), device=device, requires_grad=True)
        y = layer(x)
        (first,) = tg.autograd.grad((y**3).sum(), x, create_graph=True)
        (second,) = tg.autograd.grad((first**2).sum(), x)
        # y = γ x / ψ + β and dx = (γ 3 y² - ν x / ψ) / ψ, whose derivative by x is taken along
        # the paths of the formulas: through y by the formula again, and through x̂ outright
        psi, gamma = np.sqrt(square + EPS), values(layer.weight)
        u, v = values(x), values(y)
        dx = (gamma * 3 * v**2 - nu * u / psi) / psi
        np.testing.assert_allclose(values(first), dx, rtol=1e-12)
        through_y = 2 * dx * gamma / psi * 6 * v
        again = (gamma * through_y - nu * u / psi) / psi
        outright = -2 * dx * nu / psi**2
        np.testing.assert_allclose(values(second), again + outright, rtol=1e-10)


class TestNu:
    def test_moves_once_for_each_call_by_the_first_gradient_that_comes(self, device):
        layer = warmed(device)
        before = values(layer.running_nu)
        x = tg.tensor(drawn(6, 3, seed=9), device=device, requires_grad=True)
        y = layer(x)
        np.testing.assert_array_equal(values(layer.running_nu), before)
        (first,) = tg.autograd.grad((y**3).sum(), x, create_graph=True)
        moved = values(layer.running_nu)
        assert np.all(moved != before)
        tg.autograd.grad((first**2).sum(), x, retain_graph=True)
        y.sum().backward()
        np.testing.assert_array_equal(values(layer.running_nu), moved)

    def test_stays_where_nobody_wants_a_gradient(self):
        layer = warmed()
        before = values(layer.running_nu)
        with tg.no_grad():
            layer(tg.tensor(drawn(6, 3)))
        layer.eval()(tg.tensor(drawn(6, 3), requires_grad=True)).sum().backward()
        layer.train().freeze()(tg.tensor(drawn(6, 3), requires_grad=True)).sum().backward()
        np.testing.assert_array_equal(values(layer.running_nu), before)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_outlives_a_gradient_that_is_not_finite(self, value, device):
        layer = warmed(device)
        before = values(layer.running_nu)
        dy = drawn(6, 3)
        dy[2, 1] = value
        x = tg.tensor(drawn(6, 3), device=device, requires_grad=True)
        layer(x).backward(tg.tensor(dy, device=device))
        after = values(layer.running_nu)
        assert np.array_equal(after == before, [False, True, False])
        assert np.isfinite(values(x.grad)[:, [0, 2]]).all()

    def test_of_a_checkpointed_call_is_that_of_a_plain_one(self, device):
        """Also where several calls lie between a forward and its gradient."""
        results = []
        for run in (lambda f, x: f(x), checkpoint):
            layer = warmed(device)
            xs = [tg.tensor(drawn(6, 3, seed=s), device=device, requires_grad=True) for s in (5, 6)]
            ys = [run(layer, x) for x in xs]
            for y in ys:
                (y**3).sum().backward()
            grads = [v.grad.tolist() for v in (*xs, *layer.parameters())]
            results.append((grads, state_of(layer)))
        assert results[0] == results[1]

    def test_follows_micro_batches_where_the_mean_square_moves_once(self):
        layer = warmed()
        before = copy.deepcopy(layer)
        xs = [tg.tensor(drawn(n, 3, seed=n)) for n in (4, 7)]
        with accumulate_statistics(layer):
            for x in xs:
                (layer(x) ** 2).sum().backward()
        square = np.mean(np.concatenate([values(x) for x in xs]) ** 2, 0)
        expected = 0.9 * values(before.running_mean_square) + 0.1 * square
        np.testing.assert_allclose(values(layer.running_mean_square), expected, rtol=1e-13)
        assert layer.num_batches_tracked.item() == before.num_batches_tracked.item() + 1
        assert np.all(values(layer.running_nu) != values(before.running_nu))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backward_momentum": -0.1}, r"backward_momentum in \[0, 1\], got -0.1"),
        ({"backward_momentum": 1.5}, r"backward_momentum in \[0, 1\], got 1.5"),
        ({"backward_momentum": np.nan}, "backward_momentum"),
        ({"warmup": -1}, "warmup ≥ 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        nn.PowerNorm(3, **options)


@pytest.mark.parametrize("name", KEYS[2:])
def test_without_its_state_it_does_not_train(name):
    layer = nn.PowerNorm(3)
    setattr(layer, name, None)
    with pytest.raises(StateError, match="running_nu and num_batches_tracked, got None"):
        layer(tg.zeros(4, 3))


def test_the_warm_up_is_as_long_as_it_says_and_a_state_dict_goes_on():
    layer = nn.PowerNorm(3, warmup=2, dtype=tg.float64, affine=False)
    for step in range(4):
        x = tg.tensor(drawn(6, 3, seed=step))
        again = nn.PowerNorm(3, warmup=2, dtype=tg.float64, affine=False)
        again.load_state_dict(layer.state_dict())
        y = values(layer(x))
        np.testing.assert_array_equal(values(again(x)), y)
        normal = np.allclose((y**2).mean(0), 1, atol=1e-3)
        assert normal == (step < 2)
