"""A training step of a small ResNet, and its inference, beside PyTorch.

    python benchmarks/resnet.py [--blocks 1 3] [--batch 128] [--threads 1]

Three stages of 16, 32 and 64 channels with one basic block each (ResNet-8) or three (ResNet-20),
on images (3, 32, 32), with SGD with momentum: forward, cross-entropy, backward, update; eager, and
compiled. Inference is in evaluation mode without a graph: eager, and with the norms folded into the
convolutions. All run in one process in turns, on as many threads. What is told is the median over
the turns of the processor's time for the process, which on one thread is what a clock shows on a
machine that does nothing else. Writes results/resnet.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from machine import unpinned, write

unpinned()

import numpy as np
from threadpoolctl import threadpool_limits

import tinygrad_bn as tg

try:
    import torch
except ModuleNotFoundError:
    torch = None  # type: ignore[assignment]

TURNS = 15
WIDTHS = (16, 32, 64)
SHARE = "of PyTorch's time"

Calls = dict[str, Callable[[], Any]]


def block(library: Any, before: int, after: int, stride: int) -> Any:
    """A basic block; where shapes change, a convolution of points leads past it."""
    nn = library.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
            )
            self.shortcut = nn.Identity()
            if before != after:
                points = nn.Conv2d(before, after, 1, stride, bias=False)
                self.shortcut = nn.Sequential(points, nn.BatchNorm2d(after))

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    return Block()


def network(library: Any, blocks: int) -> Any:
    nn, layers, before = library.nn, [], WIDTHS[0]
    for after in WIDTHS:
        for i in range(blocks):
            layers.append(block(library, before, after, 2 if i == 0 and after > before else 1))
            before = after
    return nn.Sequential(
        nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 10),
    )


def stepping(library: Any, blocks: int, batch: int, compiled: bool = False) -> Any:
    """One training step; so slow a one that the loss does not collapse meanwhile."""
    rng = np.random.default_rng(0)
    x = library.tensor(rng.standard_normal((batch, 3, 32, 32), dtype=np.float32))
    labels = library.tensor(rng.integers(0, 10, batch))
    model = network(library, blocks)
    optimizer = library.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)

    def step(x: Any, labels: Any) -> None:
        optimizer.zero_grad()
        library.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    run = tg.compile(step) if compiled else step
    return lambda: run(x, labels)


def inferring(library: Any, blocks: int, batch: int, folded: bool = False) -> Any:
    """Scores by the running statistics."""
    rng = np.random.default_rng(0)
    x = library.tensor(rng.standard_normal((batch, 3, 32, 32), dtype=np.float32))
    model = network(library, blocks).eval()
    run = tg.nn.utils.fold_batch_norm(model) if folded else model

    def scores() -> None:
        with library.no_grad():
            run(x)

    return scores


def cases(blocks: int, batch: int) -> dict[str, Calls]:
    steps: Calls = {
        "eager": stepping(tg, blocks, batch),
        "compiled": stepping(tg, blocks, batch, compiled=True),
    }
    scores: Calls = {
        "eager": inferring(tg, blocks, batch),
        "folded": inferring(tg, blocks, batch, folded=True),
    }
    if torch:
        steps["torch"] = stepping(torch, blocks, batch)
        scores["torch"] = inferring(torch, blocks, batch)
    return {"training step": steps, "inference": scores}


def measured(calls: Calls) -> dict[str, list[float]]:
    """Milliseconds a call, in turns; a call before each brings the caches home, or compiles."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            call()
            start = time.process_time()
            call()
            if turn:
                times[name].append((time.process_time() - start) * 1e3)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and quartiles, and what of PyTorch's time ours is, in the median of the turns."""
    row: dict[str, Any] = {}
    for name, values in times.items():
        quartiles = [round(q, 1) for q in statistics.quantiles(values, n=4)[::2]]
        row[name] = {"median": round(statistics.median(values), 1), "quartiles": quartiles}
        if "torch" in times and name != "torch":
            ratios = [a / b for a, b in zip(values, times["torch"], strict=True)]
            row[name][SHARE] = round(statistics.median(ratios), 2)
    return row


def line(title: str, row: dict[str, Any]) -> str:
    cells = [f"{title:<26}"]
    for name, found in row.items():
        share = f" ({found[SHARE]}×)" if SHARE in found else ""
        cells.append(f"{name} {found['median']}{share}")
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 3], help="in each stage")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if torch:
        torch.set_num_threads(options.threads)
    else:
        print("PyTorch is not installed: its column is missing")
    rows: dict[str, Any] = {}
    print("ms of the processor, and what part that is of PyTorch's")
    with threadpool_limits(options.threads):
        for blocks in options.blocks:
            for name, calls in cases(blocks, options.batch).items():
                title = f"ResNet-{6 * blocks + 2}, {name}"
                rows[title] = summary(measured(calls))
                print(line(title, rows[title]), flush=True)
    written = {"threads": options.threads, "batch": options.batch, "milliseconds": rows}
    print("written:", write("resnet", written))


if __name__ == "__main__":
    main()
