"""Mean-only batch norm: batch norm that leaves the scale alone."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.relatives import Relative, drawn, kept_of, values
from tinygrad_bn import nn


class TestMeanOnly(Relative):
    keys = ["bias", "running_mean", "num_batches_tracked"]
    divides = False

    def make(self, **options):
        return nn.MeanOnlyBatchNorm(3, **options)

    def expected(self, x, mask, eps):
        kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
        flat = np.moveaxis(x, 1, 2)[kept]
        return x - flat.mean(0)[:, None]

    def biased(self):
        return {}

    test_an_eps_of_zero_in_training = None  # there is no ε


def test_leaves_the_scale_alone():
    """And is linear: what is twice as far apart comes out twice as far apart."""
    x = drawn(16, 3, 2)
    layer = nn.MeanOnlyBatchNorm(3, dtype=tg.float64)
    once, twice = (values(layer(tg.tensor(factor * x))) for factor in (1, 2))
    np.testing.assert_allclose(once.mean((0, 2)), 0, atol=1e-15)
    np.testing.assert_allclose(once.std((0, 2)), x.std((0, 2)), rtol=1e-14)
    np.testing.assert_allclose(twice, 2 * once, atol=1e-14)


@pytest.mark.parametrize("masked", [False, True])
def test_centres_the_gradient(masked, device):
    """dx = dy - mean(dy), equation 12 of the paper."""
    x, dy, mask = drawn(8, 3, 2), drawn(8, 3, 2, seed=1), kept_of(8, 2)
    mask = mask if masked else np.ones_like(mask)
    layer = nn.MeanOnlyBatchNorm(3, dtype=tg.float64, device=device)
    a = tg.tensor(x, device=device, requires_grad=True)
    y = layer(a, tg.tensor(mask, device=device) if masked else None)
    y.backward(tg.tensor(dy, device=device))
    mean = dy.sum((0, 2))[:, None] / mask.sum()
    expected = dy - np.where(mask[:, None], mean, 0)
    np.testing.assert_allclose(values(a.grad), expected, atol=1e-14)
    np.testing.assert_allclose(values(layer.bias.grad), dy.sum((0, 2)), rtol=1e-13)
    np.testing.assert_allclose(values(a.grad).sum((0, 2)), 0, atol=1e-13)


def test_moves_its_running_mean_and_evaluates_by_it(device):
    layer = nn.MeanOnlyBatchNorm(3, momentum=0.25, dtype=tg.float64, device=device)
    mean = np.zeros(3)
    for seed in range(3):
        x = drawn(8, 3, 2, seed=seed)
        layer(tg.tensor(x, device=device))
        mean = 0.75 * mean + 0.25 * x.mean((0, 2))
    np.testing.assert_allclose(values(layer.running_mean), mean, rtol=1e-14)
    y = values(layer.eval()(tg.tensor(x, device=device)))
    np.testing.assert_allclose(y, x - mean[:, None], atol=1e-15)
    assert layer.running_var is None


@pytest.mark.torch
def test_trains_like_pytorchs_composition_beside_weight_norm():
    """As the paper means it to be used: three steps of the two together."""
    torch = pytest.importorskip("torch")
    ours = nn.Sequential(nn.Linear(4, 3, bias=False), nn.MeanOnlyBatchNorm(3), nn.Tanh()).double()
    theirs = torch.nn.Linear(4, 3, bias=False).double()
    nn.utils.weight_norm(ours[0])
    torch.nn.utils.parametrizations.weight_norm(theirs)
    weights = [values(p) for p in ours[0].parameters()]
    beta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for p, v in zip(theirs.parameters(), weights, strict=True):
            p.copy_(torch.tensor(v))
    for seed in range(3):
        x = drawn(8, 4, seed=seed)
        y, z = ours(tg.tensor(x)), theirs(torch.tensor(x))
        z = torch.tanh(z - z.mean(0) + beta)
        (y**2).sum().backward()
        (z**2).sum().backward()
        np.testing.assert_allclose(values(y), z.detach().numpy(), atol=1e-12)
        pairs = zip(ours.parameters(), (*theirs.parameters(), beta), strict=True)
        with tg.no_grad(), torch.no_grad():
            for p, q in pairs:
                np.testing.assert_allclose(values(p.grad), q.grad.numpy(), atol=1e-11)
                p.sub_(p.grad * 0.05)
                q.sub_(q.grad * 0.05)
                p.grad = q.grad = None


def test_without_a_bias_has_no_parameters():
    layer = nn.MeanOnlyBatchNorm(3, bias=False, dtype=tg.float64)
    assert list(layer.parameters()) == []
    x = drawn(8, 3)
    np.testing.assert_allclose(values(layer(tg.tensor(x))), x - x.mean(0), atol=1e-14)
    assert repr(layer) == "MeanOnlyBatchNorm(3, momentum=0.1, bias=False, track_running_stats=True)"
