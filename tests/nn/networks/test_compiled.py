"""Networks of images under tg.compile: what eager gives, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.networks.architectures import NETWORKS, NORMS, batches, residual
from tinygrad_bn import nn
from tinygrad_bn.nn.utils import weight_standardization


def standardized() -> nn.Module:
    model = residual(tg, NORMS["group"])
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight_standardization(module)
    return model  # type: ignore[no-any-return]


def filtered() -> nn.Module:
    def norm(nn: Any, channels: int) -> Any:
        return nn.Sequential(nn.FilterResponseNorm(channels), nn.TLU(channels))

    return residual(tg, norm)  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    f"{network}, {norm}": lambda network=network, norm=norm: NETWORKS[network](tg, NORMS[norm])
    for network in NETWORKS
    for norm in NORMS
} | {"residual, standardized": standardized, "residual, filter response": filtered}


def losses_and_state(make: Callable[[], nn.Module], compiled: bool) -> tuple[list[float], Any]:
    tg.manual_seed(0)
    model = make()
    optimizer = tg.optim.Adam(model.parameters(), lr=1e-2)

    def step(x: tg.Tensor, labels: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    run = tg.compile(step) if compiled else step
    losses = [run(tg.tensor(x), tg.tensor(t)).item() for x, t in batches(6, dtype=np.float32)]
    model.eval()
    with tg.no_grad():  # and a batch of another size, by the statistics of all
        x = tg.tensor(batches(1, n=3, dtype=np.float32)[0][0])
        y = tg.compile(model)(x) if compiled else model(x)
    return losses, [y.numpy(), *(v.detach().numpy().copy() for v in model.state_dict().values())]


@pytest.mark.parametrize("name", MODELS)
def test_is_eager(name: str) -> None:
    eager, compiled = (losses_and_state(MODELS[name], each) for each in (False, True))
    np.testing.assert_equal(compiled, eager)
    assert eager[0][0] != eager[0][-1]
