"""A small training on a GPU, eager or compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn, optim

Batch = tuple[tg.Tensor, tg.Tensor]


def batches(count: int, n: int = 6, seed: int = 0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [
        (tg.tensor(rng.standard_normal((n, 5)).astype("f4")), tg.tensor(rng.integers(0, 3, n)))
        for _ in range(count)
    ]


class Learner:
    """A perceptron with batch norm and dropout, in training."""

    def __init__(self, compiled: bool, device: str = "cuda", **options: Any) -> None:
        tg.manual_seed(3)
        self.model = nn.Sequential(
            nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.25), nn.Linear(7, 3)
        ).to(device)
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-2)
        self.run = tg.compile(self.step, **options) if compiled else self.step

    def step(self, x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), t)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        kept = self.optimizer.state_dict()["state"].values()
        tensors = [*self.model.state_dict().values()]
        tensors += [x for entry in kept for x in entry.values() if isinstance(x, tg.Tensor)]
        return [x.tolist() for x in tensors]


def graphed(compiled: Any) -> Any:
    """The graphs behind the program that ran last."""
    return compiled.program._graphed
