"""A whole fit, from data to a trained classifier, beside scikit-learn's `MLPClassifier`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import rivals
from agreement import Distance, Path, distance, require
from cases import Case
from compare import spread
from steps import Report, ahead

import tinygrad_bn as tg
from tinygrad_bn.data import DataLoader, TensorDataset
from tinygrad_bn.data.datasets import digits

SCIKIT = "scikit-learn MLPClassifier"
FIT, COMPILED = "tinygrad_bn fit", "tinygrad_bn compiled step"
SAME = Distance(loss=1e-9, movement=1e-6)
"""In float64, with the same ε → 0 in both: scikit-learn's is not multiplied by √(1 - β₂ᵗ)."""
TINY_EPS = 1e-14


@dataclass(frozen=True)
class Task:
    """What is learnt: x and y for training and for testing."""

    name: str
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    epochs: int
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 64


def tasks() -> list[Task]:
    """The digits that ship with the library, and as many numbers an image as MNIST's."""
    split = digits()
    train, test = (tuple(t.numpy() for t in part.tensors) for part in (split.train, split.test))
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 784))
    labels = rng.integers(0, 10, 12_000)
    images = 0.15 * centres[labels] + rng.standard_normal((12_000, 784))
    x = images.astype(np.float32)
    return [
        Task("digits: 1347 of 64 numbers, 20 epochs", train, test, 20),
        Task(
            "ten clouds: 10,000 of 784 numbers, 3 epochs",
            (x[:10_000], labels[:10_000]),
            (x[10_000:], labels[10_000:]),
            3,
        ),
    ]


def network(task: Task, classes: int = 10) -> Any:
    """The network of a task, without norms, which scikit-learn does not have."""
    widths = (task.train[0].shape[1], *task.hidden)
    layers: list[Any] = []
    for before, after in pairwise(widths):
        layers += [tg.nn.Linear(before, after), tg.nn.ReLU()]
    return tg.nn.Sequential(*layers, tg.nn.Linear(widths[-1], classes))


def loader(task: Task, shuffle: bool = True) -> Any:
    data = TensorDataset(*(tg.tensor(part) for part in task.train))
    return DataLoader(data, task.batch, shuffle=shuffle)


def by_fit(task: Task) -> Any:
    """`tinygrad_bn.fit`; the model."""
    model = network(task)
    optimizer = tg.optim.Adam(model.parameters())
    tg.fit(model, loader(task), tg.nn.functional.cross_entropy, optimizer, task.epochs)
    return model


def by_compiled_step(task: Task) -> Any:
    """The same with a compiled step; the model."""
    model = network(task)
    optimizer = tg.optim.Adam(model.parameters())

    @tg.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = tg.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    batches = loader(task)
    for _ in range(task.epochs):
        for x, y in batches:
            step(x, y)
    return model


def by_classifier(task: Task) -> Any:
    """scikit-learn's; the model."""
    from rivals.classifier import classifier, fitted

    return fitted(classifier(task.hidden, task.batch, task.epochs), *task.train)


def accuracy(model: Any, task: Task) -> float:
    """The part of the test data that a model names rightly."""
    x, y = task.test
    if isinstance(model, tg.nn.Module):
        with tg.no_grad():
            return float(np.mean(model(tg.tensor(x)).argmax(1).numpy() == y))
    return float(np.mean(model.predict(x) == y))


def apart(batch: int = 32) -> Distance:
    """How far one epoch of three batches, from equal weights in float64, takes the two apart."""
    from rivals.classifier import begun, classifier, fitted

    case = Case("small", (16, 32, 32, 4), batch, most=3)
    x, y = (np.concatenate(parts) for parts in zip(*case.batches(), strict=True))
    task = Task("three batches", (x, y), (x, y), 1, case.hidden, batch)
    model = network(task, case.widths[-1]).to(tg.float64)
    layers = [layer for layer in model if isinstance(layer, tg.nn.Linear)]
    first = arrays(layers)
    optimizer = tg.optim.Adam(model.parameters(), eps=TINY_EPS)
    batches = loader(task, shuffle=False)
    loss = tg.fit(model, batches, tg.nn.functional.cross_entropy, optimizer, 1)[0]["loss"]
    last = arrays(layers)
    theirs = classifier(case.hidden, batch, 1, shuffle=False, epsilon=TINY_EPS)
    theirs = fitted(begun(theirs, first, x, y), x, y)
    found = [(w.T, b) for w, b in zip(theirs.coefs_, theirs.intercepts_, strict=True)]
    ours = Path([loss], named(first), named(last))
    return distance(Path([theirs.loss_curve_[-1]], named(first), named(found)), ours)


def arrays(layers: list[Any]) -> list[tuple[Any, Any]]:
    return [
        (np.array(layer.weight.detach().numpy()), np.array(layer.bias.detach().numpy()))
        for layer in layers
    ]


def named(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    return {f"{i} {j}": x for i, pair in enumerate(pairs) for j, x in enumerate(pair)}


def measured(
    task: Task, forms: dict[str, Callable[[Task], Any]], repeats: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Seconds of whole fits, in turns after one that does not count, and what they learnt."""
    times: dict[str, list[float]] = {form: [] for form in forms}
    accuracies: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(repeats + 1):
        for form, fit in forms.items():
            began = clock()
            model = fit(task)
            if turn:
                times[form].append(clock() - began)
                accuracies[form].append(accuracy(model, task))
    row: dict[str, Any] = {
        "seconds": {form: spread(values) for form, values in times.items()},
        "test accuracy": {form: spread(values)["median"] for form, values in accuracies.items()},
    }
    ours = [form for form in forms if form != SCIKIT]
    row["best rival"] = SCIKIT if SCIKIT in forms else None
    row["ahead"] = ahead(times, {form: [SCIKIT] for form in ours} if SCIKIT in forms else {})
    return row


def measure(repeats: int, clock: Callable[[], float], report: Report) -> dict[str, Any]:
    """All tasks, after a check that both libraries take the same steps."""
    forms = {FIT: by_fit, COMPILED: by_compiled_step, SCIKIT: by_classifier}
    absent = rivals.missing(forms)
    content: dict[str, Any] = {"absent": absent}
    if absent:
        forms.pop(SCIKIT)
    else:
        content["agreement"] = asdict(require(SCIKIT, apart(), SAME))
    tg.manual_seed(0)
    content["tasks"] = rows = {}
    for task in tasks():
        rows[task.name] = row = measured(task, forms, repeats, clock)
        times = ", ".join(f"{form} {s['median']:.2f} s" for form, s in row["seconds"].items())
        report(f"{task.name}: {times}")
    return content
