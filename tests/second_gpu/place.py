"""What is put on the second GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.backend import Device
from tinygrad_bn.nn.utils import clip_grad_norm_

SECOND = "cuda:1"


def network(device: str) -> nn.Sequential:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4),
    ).to(device)  # fmt: skip


def batch(device: str) -> tuple[tg.Tensor, tg.Tensor]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 12)).astype("float32"), rng.integers(0, 4, 16)
    return tg.tensor(x, device=device), tg.tensor(y, device=device)


def step(model: Any, optimizer: Any, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def assert_there(tensors: Iterable[Any]) -> None:
    assert all(x.device == Device(SECOND) for x in tensors)
