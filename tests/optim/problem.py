"""A small problem that is not convex, the same for this library and for PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import optim

_random = np.random.default_rng(7)
START = [_random.standard_normal(shape) for shape in ((4, 3), (3,), (2, 4))]
X, Y = _random.standard_normal((24, 2)), _random.standard_normal((24, 3))


def loss_of(params: Any, x: Any, y: Any) -> Any:
    """The squared error of a network with one hidden layer."""
    weight, bias, first = params
    return (((x @ first).tanh() @ weight + bias - y) ** 2).mean()


class Training:
    """Parameters, data and an optimizer, of one library or the other."""

    params: list[Any]
    data: list[Any]
    optimizer: Any
    done = 0

    def loss(self, rows: slice = slice(None)) -> Any:
        """The loss on some rows of the data, with fresh gradients."""
        for p in self.params:
            p.grad = None
        loss = loss_of(self.params, *(x[rows] for x in self.data))
        loss.backward()
        return loss

    def steps(self, count: int) -> None:
        """Train on batches of 8: their noise keeps gradients from shrinking to mere rounding."""
        for _ in range(count):
            first = 8 * (self.done % 3)
            self.loss(slice(first, first + 8))
            self.optimizer.step()
            self.done += 1


class Trained(Training):
    """The problem's parameters with an optimizer over them."""

    def __init__(self, name: str, device: str = "cpu", dtype: Any = None, **options: Any) -> None:
        self.params = [tg.Parameter(x, device=device, dtype=dtype) for x in START]
        self.data = [tg.Tensor(x, device=device, dtype=dtype) for x in (X, Y)]
        chosen = self.params if options.pop("all", True) else [self.params[0], self.params[2]]
        self.optimizer = getattr(optim, name)(chosen, **options)

    def values(self) -> list[Any]:
        return [p.detach().cpu().numpy() for p in self.params]


class TrainedByTorch(Training):
    """The same by PyTorch."""

    def __init__(self, name: str, **options: Any) -> None:
        import torch

        self.params = [torch.nn.Parameter(torch.tensor(x)) for x in START]
        self.data = [torch.tensor(x) for x in (X, Y)]
        chosen = self.params if options.pop("all", True) else [self.params[0], self.params[2]]
        self.optimizer = getattr(torch.optim, name)(chosen, **options)

    def values(self) -> list[Any]:
        return [p.detach().numpy() for p in self.params]


def distance(a: Any, b: Any) -> float:
    """The greatest difference between the parameters of two."""
    return max(float(abs(x - y).max()) for x, y in zip(a.values(), b.values(), strict=True))
