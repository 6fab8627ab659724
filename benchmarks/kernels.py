"""What kernels save: against the reference bodies, and against PyTorch's best for the same.

    python benchmarks/kernels.py

Optimizers' steps, the cross-entropy and activations with their gradients, dropout, and a whole
training step of an MLP, each through the public interface, on one thread. All variants of a case
run in one process in turns; what is told is the median over the turns, its quartiles, and the ratio
of medians. Beside an optimizer's step NumPy copies the parameters: what a step moves in a second is
told as a part of what the copy moves. PyTorch's optimizers run fused where they can, else over
lists of tensors (foreach). Writes results/kernels.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from machine import unpinned, write

unpinned()

import numpy as np
from threadpoolctl import threadpool_limits

import tinygrad_bn as tg
from tinygrad_bn.backend import KERNEL_POINTS, get_backend

try:
    import torch
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]

TURNS, SECONDS = 21, 0.02
MLP = [(784, 256), (256,), (256,), (256,), (256, 256), (256,), (256,), (256,), (256, 10), (10,)]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "Adam": {},
    "AdamW": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {},
    "Lion": {},
    "LAMB": {},
    "LARS": {},
    "SGDScheduleFree": {},
    "AdamWScheduleFree": {},
}
PASSES = {"SGD": 5, "Adagrad": 5, "RMSprop": 5, "Lion": 5, "SGDScheduleFree": 5, "LAMB": 11}
"""How often a step reads or writes each parameter's four bytes; 7 times where not named."""
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}
NORMS = ("batch_", "row_", "whole_", "moving_")
"""How the names of the kernel points of norms begin."""
ACTIVATIONS = ("gelu", "elu", "silu", "mish", "softplus", "sigmoid", "softmax")

Calls = dict[str, Callable[[], Any]]


@contextmanager
def without_kernels(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Run the reference bodies of some kernel points."""
    kernels: Any = get_backend("numpy").kernels
    known = {name: kernels.get(name) for name in KERNEL_POINTS}
    kernels.update({name: None for name in known if chosen(name)})
    try:
        yield
    finally:
        kernels.update(known)


def by_reference(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        with tg.reference_kernels():
            call()

    return run


def measured(calls: Calls) -> dict[str, list[float]]:
    """Microseconds a call, in turns; a call beforehand brings the caches home, or compiles."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name] * 1e6)
    return times


def stepping(name: str, options: Mapping[str, Any], shapes: Any) -> Calls:
    """One step of an optimizer over parameters that have gradients."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    grads = [rng.standard_normal(shape).astype(np.float32) * 1e-3 for shape in shapes]
    params = [tg.Parameter(x) for x in values]
    ours = getattr(tg.optim, name)(params, lr=1e-5, **options)
    for p, g in zip(params, grads, strict=True):
        (p * tg.tensor(g)).sum().backward()  # which puts the gradient where the optimizer wants it
    source = np.concatenate([x.reshape(-1) for x in values])
    target = np.zeros_like(source)
    calls: Calls = {
        "kernel": ours.step,
        "reference": by_reference(ours.step),
        "copy": lambda: np.copyto(target, source),
    }
    if torch and hasattr(torch.optim, name):
        theirs = [torch.nn.Parameter(torch.tensor(x)) for x in values]
        for q, g in zip(theirs, grads, strict=True):
            q.grad = torch.tensor(g)
        form = {"fused": True} if name in FUSED else {"foreach": True}
        calls["torch"] = getattr(torch.optim, name)(theirs, lr=1e-5, **options, **form).step
    return calls


def classifying(n: int, classes: int) -> Calls:
    """The mean cross-entropy of n scores, and its gradient."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((n, classes)).astype(np.float32)
    labels = rng.integers(0, classes, n)

    def both(library: Any) -> Callable[[], None]:
        x, t = library.tensor(scores, requires_grad=True), library.tensor(labels)

        def run() -> None:
            library.nn.functional.cross_entropy(x, t).backward()
            x.grad = None

        return run

    calls = {"kernel": both(tg), "reference": by_reference(both(tg))}
    return {**calls, "torch": both(torch)} if torch else calls


def dropping(n: int) -> Calls:
    """Dropout of n activations, the mask's drawing included."""

    def forward(library: Any) -> Callable[[], Any]:
        x = library.ones(n)
        return lambda: library.nn.functional.dropout(x, 0.5, True)

    calls = {"kernel": forward(tg), "reference": by_reference(forward(tg))}
    return {**calls, "torch": forward(torch)} if torch else calls


def activating(name: str) -> Calls:
    """An activation of 1000 rows of 1000 numbers, and its gradient."""
    values = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
    options = {"dim": 1} if name == "softmax" else {}

    def both(library: Any) -> Callable[[], None]:
        x, dy = library.tensor(values, requires_grad=True), library.tensor(values)

        def run() -> None:
            getattr(library.nn.functional, name)(x, **options).backward(dy)
            x.grad = None

        return run

    calls = {"kernel": both(tg), "reference": by_reference(both(tg))}
    return {**calls, "torch": both(torch)} if torch else calls


def training(batch: int) -> Calls:
    """A step of Adam on the MLP 784-[256, 256]-10 with batch norm, without capturing it."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((batch, 784)).astype(np.float32)
    labels = rng.integers(0, 10, batch)

    def step(library: Any, **options: Any) -> Callable[[], None]:
        nn = library.nn
        layers = []
        for before, after in ((784, 256), (256, 256)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(256, 10))
        # so slow that the loss does not collapse while it is measured
        optimizer = library.optim.Adam(model.parameters(), lr=1e-7, **options)
        x, t = library.tensor(data), library.tensor(labels)

        def run() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), t).backward()
            optimizer.step()

        return run

    def beyond_norms(name: str) -> bool:
        return not name.startswith(NORMS)

    earlier = step(tg)

    def norms_only() -> None:
        with without_kernels(beyond_norms):
            earlier()

    calls = {"kernel": step(tg), "norms only": norms_only, "reference": by_reference(step(tg))}
    return {**calls, "torch": step(torch, fused=True)} if torch else calls


def cases() -> Iterator[tuple[str, Callable[[], Calls], int]]:
    """The name of each case, what makes its calls, and its passes over the parameters, or 0."""
    for name, options in OPTIMIZERS.items():
        for label, shapes in (("MLP", MLP), ("10M", [(10_000_000,)])):
            make = partial(stepping, name, options, shapes)
            yield f"{name}, {label}", make, PASSES.get(name, 7)
    for n, classes in ((64, 10), (1024, 10), (64, 1000), (1024, 1000), (128, 32000)):
        yield f"cross-entropy ({n}, {classes})", partial(classifying, n, classes), 0
    for n in (16_384, 1_000_000):
        yield f"dropout ({n})", partial(dropping, n), 0
    for name in ACTIVATIONS:
        yield f"{name} (1000, 1000)", partial(activating, name), 0
    for batch in (2, 64, 256):
        yield f"training step, batch {batch}", partial(training, batch), 0


def summary(times: dict[str, list[float]], passes: int) -> dict[str, Any]:
    """Median and quartiles of each variant, and for optimizers their speed as part of a copy's."""
    row: dict[str, Any] = {
        key: {
            "median": round(statistics.median(values), 2),
            "quartiles": [round(q, 2) for q in statistics.quantiles(values, n=4)[::2]],
        }
        for key, values in times.items()
    }
    if passes:  # a copy reads once and writes once
        speed = passes / 2 * row["copy"]["median"] / row["kernel"]["median"]
        row["speed of a copy"] = round(speed, 2)
    return row


def line(name: str, row: dict[str, Any]) -> str:
    """A row as it is printed."""
    kernel = row["kernel"]["median"]
    cells = [f"{name:<28}{kernel:>10.1f}{row.get('speed of a copy', ''):>12}"]
    for key in ("norms only", "reference", "torch"):
        if key in row:
            cells.append(f"{row[key]['median']:>11.1f} {row[key]['median'] / kernel:5.1f}×")
        else:
            cells.append(" " * 18)
    return "".join(cells)


def main() -> None:
    if torch:
        torch.set_num_threads(1)
    else:
        print("PyTorch is not installed: its column is missing")
    rows: dict[str, dict[str, Any]] = {}
    heads = "".join(f"{head:>18}" for head in ("norms only", "reference", "PyTorch"))
    print(f"{'µs':<28}{'kernel':>10}{'of a copy':>12}{heads}")
    with threadpool_limits(1):
        for name, make, passes in cases():
            rows[name] = summary(measured(make()), passes)
            print(line(name, rows[name]), flush=True)
    print("written:", write("kernels", {"microseconds a call": rows}))


if __name__ == "__main__":
    main()
