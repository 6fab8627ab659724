"""500 compiled steps in float32 on MNIST beside eager ones in float64, from the same weights.

    TINYGRAD_BN_DATA=... python benchmarks/loss_curves.py

A 784-[256, 256]-10 with batch norm, batches of 64. Prints how far the losses are apart, of single
steps and of means of 50, and writes results/loss_curves.json. ReLU's curves part where an
activation near zero falls on the other side of it; those of smooth activations do not.
"""

from __future__ import annotations

from typing import Any

from machine import unpinned, write

unpinned()

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.data import datasets

STEPS, BATCH, SPAN = 500, 64, 50
OPTIMIZERS = {
    "SGD, lr 0.01, momentum 0.9": lambda params: optim.SGD(params, lr=0.01, momentum=0.9),
    "Adam, lr 0.001": lambda params: optim.Adam(params, lr=1e-3),
}


def losses(activation: Any, optimizer: Any, batches: Any, dtype: Any, compiled: bool) -> Any:
    """The loss of every step."""
    tg.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (784, 256):
        layers += [nn.Linear(width, 256), nn.BatchNorm1d(256), activation()]
    model = nn.Sequential(*layers, nn.Linear(256, 10)).to(dtype)
    rule = optimizer(model.parameters())

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        rule.zero_grad()
        loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        rule.step()
        return loss

    run = tg.compile(step) if compiled else step
    return np.array([run(x.to(dtype), t).item() for x, t in batches])


def main() -> None:
    train = datasets.mnist().train
    x, t = (part.numpy() for part in train.tensors)
    x = (x - x.mean()) / x.std()
    chosen = [np.random.default_rng(i).integers(0, len(x), BATCH) for i in range(STEPS)]
    batches = [(tg.tensor(x[i]), tg.tensor(t[i])) for i in chosen]
    rows = {}
    for activation in (nn.ReLU, nn.Sigmoid, nn.Tanh):
        for name, optimizer in OPTIMIZERS.items():
            narrow = losses(activation, optimizer, batches, tg.float32, True)
            wide = losses(activation, optimizer, batches, tg.float64, False)
            apart = np.abs(narrow - wide)
            smooth = np.abs((narrow - wide).reshape(-1, SPAN).mean(1))
            row = rows[f"{activation.__name__}, {name}"] = {
                "greatest difference": float(apart.max()),
                "median difference": float(np.median(apart)),
                f"greatest difference of means of {SPAN}": float(smooth.max()),
                "last loss": float(wide[-SPAN:].mean()),
            }
            print(activation.__name__, name, *(f"{value:.1e}" for value in row.values()))
    write("loss_curves", {"rows": rows})


if __name__ == "__main__":
    main()
