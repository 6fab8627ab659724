"""Reparametrized weights of convolutions, whose outputs are an axis of several, as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.nn.utils import spectral_norm, weight_norm, weight_standardization

KINDS = ["Conv1d", "Conv2d", "ConvTranspose2d"]


def drawn(*shape):
    return np.random.default_rng(list(shape)).standard_normal(shape)


def two(kind):
    """The same layer of both libraries, and an input."""
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, kind)(4, 6, 3, padding=1).double()
    ours = getattr(nn, kind)(4, 6, 3, padding=1, dtype=tg.float64)
    ours.load_state_dict({k: v.detach().numpy() for k, v in theirs.state_dict().items()})
    return torch, ours, theirs, drawn(2, 4, *([5] * int(kind[-2])))


def compare(torch, ours, theirs, x, pairs):
    """Values, and gradients of parameters by their names."""
    y, z = ours(tg.tensor(x)), theirs(torch.tensor(x))
    dy = drawn(*z.shape)
    y.backward(tg.tensor(dy))
    z.backward(torch.tensor(dy))
    found, expected = dict(ours.named_parameters()), dict(theirs.named_parameters())
    arrays = [(y.detach(), z.detach())]
    arrays += [(found[a].grad, expected[b].grad) for a, b in pairs.items()]
    for a, b in arrays:
        # float64, sums of some hundred products
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-11)


@pytest.mark.torch
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("kind", KINDS)
def test_weight_norm(kind, dim):
    torch, ours, theirs, x = two(kind)
    theirs = torch.nn.utils.weight_norm(theirs, dim=dim)
    pairs = {name: name for name in ("weight_g", "weight_v", "bias")}
    compare(torch, weight_norm(ours, dim=dim), theirs, x, pairs)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norm_takes_the_axis_of_outputs(kind):
    """From the same vectors, in evaluation, where none of them moves."""
    torch, ours, theirs, x = two(kind)
    theirs = torch.nn.utils.spectral_norm(theirs).eval()
    ours = spectral_norm(ours).eval()
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    for name in ("weight_u", "weight_v"):
        assert getattr(ours, name).shape == state[name].shape
        getattr(ours, name).overwrite(tg.tensor(state[name]).array)
    pairs = {"weight_orig": "weight_orig", "bias": "bias"}
    compare(torch, ours, theirs, x, pairs)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d"])
def test_standardized_weights_have_mean_0_and_variance_1_over_their_fan_in(kind, device):
    layer = weight_standardization(getattr(nn, kind)(4, 6, 3, device=device), eps=1e-12)
    w = layer.weight.detach().cpu().numpy().reshape(6, -1)
    np.testing.assert_allclose(w.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(w.var(axis=1), 1, rtol=1e-5)  # float32
