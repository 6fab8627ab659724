"""This library and PyTorch: the same lines serve both."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from cases import OPTIMIZERS, Arrays, Case

CLASSES = {"adam": "Adam", "sgd": "SGD"}


def perceptron(library: Any, case: Case, dtype: str, norm: bool = True) -> Any:
    """The network of a case, as all start from it."""
    nn, kind = library.nn, getattr(library, dtype)
    layers: list[Any] = []
    for before, after in pairwise(case.widths[:-1]):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after) if norm else nn.Identity()]
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(*case.widths[-2:])).to(kind)
    known = model.state_dict()
    model.load_state_dict(
        {**known, **{k: library.tensor(x) for k, x in case.weights().items() if k in known}}
    )
    return model


def tensors(library: Any, case: Case, dtype: str) -> list[tuple[Any, Any]]:
    """The batches of a case."""
    kind = getattr(library, dtype)
    return [(library.tensor(x, dtype=kind), library.tensor(y)) for x, y in case.batches()]


def step_of(library: Any, how: str, model: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
    """A training step as a user writes it, compiled as the library does it best: PyTorch compiles
    model and loss and calls its fused optimizer, this library compiles the whole step.
    """
    cross_entropy = library.nn.functional.cross_entropy

    def loss_of(x: Any, y: Any) -> Any:
        return cross_entropy(model(x), y)

    if library.__name__ == "torch" and how == "compiled":
        loss_of = library.compile(loss_of, dynamic=False)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss

    if library.__name__ != "torch" and how == "compiled":
        step = library.compile(step)
    return step


class Training:
    """A model, its optimizer and its batches."""

    def __init__(self, library: Any, how: str, case: Case, optimizer: str, dtype: str) -> None:
        self.model = perceptron(library, case, dtype)
        options: dict[str, Any] = dict(OPTIMIZERS[optimizer])
        if library.__name__ == "torch" and how != "eager":
            options["fused"] = True
        make = getattr(library.optim, CLASSES[optimizer])
        self.optimizer = make(self.model.parameters(), lr=1e-3, **options)
        self.batches = cycle(tensors(library, case, dtype))
        self._step = step_of(library, how, self.model, self.optimizer)

    def step(self) -> Any:
        return self._step(*next(self.batches))

    def learn(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def state(self) -> Arrays:
        return {
            name: np.array(x.numpy())
            for name, x in self.model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }


def training(name: str, how: str, case: Case, optimizer: str, dtype: str) -> Training:
    """A training of this library (``eager``, ``compiled``) or PyTorch (also ``fused``)."""
    return Training(import_module(name), how, case, optimizer, dtype)


def inference(name: str, how: str, case: Case) -> Callable[[], Any]:
    """The model's scores of the next batch; ``folded`` puts norms into the linear layers."""
    library = import_module(name)
    model = perceptron(library, case, "float32").eval().requires_grad_(False)
    if "folded" in how:
        model = folded(library, model)
    if "compiled" in how:
        model = library.compile(model, dynamic=False) if name == "torch" else library.compile(model)
    following = cycle([x for x, _ in tensors(library, case, "float32")])
    return lambda: model(next(following))


def folded(library: Any, model: Any) -> Any:
    """The model with its batch norms in the linear layers before them."""
    if library.__name__ != "torch":
        return library.nn.utils.fold_batch_norm(model)
    fuse = import_module("torch.nn.utils.fusion").fuse_linear_bn_eval
    layers: list[Any] = []
    for layer in model:
        if isinstance(layer, library.nn.BatchNorm1d):
            layers[-1] = fuse(layers[-1], layer)
        else:
            layers.append(layer)
    return library.nn.Sequential(*layers)
