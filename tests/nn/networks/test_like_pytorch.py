"""Twenty steps beside PyTorch in float64: outputs, gradients and running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.networks.architectures import NETWORKS, NORMS, batches, residual
from tinygrad_bn.nn.utils import weight_standardization

pytestmark = pytest.mark.torch
STEPS = 20
BOUND = {"rtol": 1e-6, "atol": 1e-6}
"""What is asked. Roundings of float64, which twenty steps amplify, stay a thousand times below."""


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def load(ours: Any, theirs: Any) -> None:
    """PyTorch's own state dict, once its keys are ours."""
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert list(state) == list(ours.state_dict())
    ours.load_state_dict(state)


def train(library: Any, model: Any, optimizer: Any) -> list[dict[str, np.ndarray[Any, Any]]]:
    """After each step the output, the gradients, and the state."""
    found = []
    for x, labels in batches(STEPS):
        optimizer.zero_grad()
        y = model(library.tensor(x))
        library.nn.functional.cross_entropy(y, library.tensor(labels)).backward()
        record = {"output": y} | {f"d {k}": p.grad for k, p in model.named_parameters()}
        record = {key: value.detach().numpy().copy() for key, value in record.items()}
        optimizer.step()
        record |= {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
        found.append(record)
    return found


def compare(torch: Any, ours: Any, theirs: Any) -> None:
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
    found = train(tg, ours, tg.optim.SGD(ours.parameters(), **options))
    expected = train(torch, theirs, torch.optim.SGD(theirs.parameters(), **options))
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert len(a) == len(b)
        for (key, value), other in zip(a.items(), b.values(), strict=True):
            np.testing.assert_allclose(value, other, **BOUND, err_msg=f"{key} at step {step}")
    x = batches(1)[0][0]
    y, z = ours.eval()(tg.tensor(x)), theirs.eval()(torch.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), **BOUND)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_train_alike(network, norm, torch):
    torch.manual_seed(0)
    ours, theirs = (NETWORKS[network](lib, NORMS[norm]).double() for lib in (tg, torch))
    load(ours, theirs)
    compare(torch, ours, theirs)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_with_standardized_weights(norm, torch):
    """The formula of Qiao et al., written for PyTorch as one of its parametrizations."""

    class Standardized(torch.nn.Module):
        def forward(self, w):
            var, mean = torch.var_mean(w, (1, 2, 3), correction=0, keepdim=True)
            return (w - mean) / torch.sqrt(var + 1e-5)

    torch.manual_seed(0)
    ours, theirs = (residual(library, NORMS[norm]).double() for library in (tg, torch))
    for module in ours.modules():
        if isinstance(module, tg.nn.Conv2d):
            weight_standardization(module)
    for module in [*theirs.modules()]:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.utils.parametrize.register_parametrization(module, "weight", Standardized())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    found, expected = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert [k.replace("weight_orig", "parametrizations.weight.original") for k in found] == [
        *expected
    ]
    compare(torch, ours, theirs)


def test_with_filter_response_norms(torch):
    """The formula of Singh and Krishnan, written for PyTorch; the threshold is learned, too."""

    class Filter(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm = torch.nn.Module()
            self.norm.weight = torch.nn.Parameter(torch.ones(channels))
            self.norm.bias = torch.nn.Parameter(torch.zeros(channels))
            self.limit = torch.nn.Module()
            self.limit.tau = torch.nn.Parameter(torch.zeros(channels))

        def forward(self, x):
            gamma, beta, tau = (
                p[:, None, None] for p in (self.norm.weight, self.norm.bias, self.limit.tau)
            )
            x_hat = x / torch.sqrt(x.square().mean((2, 3), keepdim=True) + 1e-6)
            return torch.maximum(gamma * x_hat + beta, tau)

    class Ours(tg.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm, self.limit = tg.nn.FilterResponseNorm(channels), tg.nn.TLU(channels)

        def forward(self, x):
            return self.limit(self.norm(x))

    torch.manual_seed(0)
    ours, theirs = (
        residual(library, lambda nn, channels, made=made: made(channels)).double()
        for library, made in ((tg, Ours), (torch, Filter))
    )
    load(ours, theirs)
    compare(torch, ours, theirs)
