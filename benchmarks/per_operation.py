"""What an eager operation costs, forward and backward, beside PyTorch.

    python benchmarks/per_operation.py

A chain of 50 operations on 16 floats, so that the arithmetic counts for nothing: forward alone,
with the graph recorded, and forward with backward. Both libraries run in one process on one thread,
in turns; what is told is the median over the turns, and its spread. Writes
results/per_operation.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from machine import unpinned, write

unpinned()

import numpy as np
from threadpoolctl import threadpool_limits

import tinygrad_bn as tg

LENGTH, TURNS, REPEATS = 50, 31, 5

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda h, x: h + x,
    "add number": lambda h, x: h + 0.5,
    "mul": lambda h, x: h * x,
    "mul number": lambda h, x: h * 0.5,
    "div": lambda h, x: h / x,
    "exp": lambda h, x: h.exp(),
    "tanh": lambda h, x: h.tanh(),
    "sigmoid": lambda h, x: h.sigmoid(),
    "relu": lambda h, x: h.relu(),
    "reshape": lambda h, x: h.reshape(4, 4).reshape(16),
    "transpose": lambda h, x: h.reshape(4, 4).transpose(0, 1).reshape(16),
    "sum and expand": lambda h, x: h.sum().expand(16),
    "matmul": lambda h, x: (h.reshape(4, 4) @ x.reshape(4, 4)).reshape(16),
    "softmax": lambda h, x: h.softmax(0),
}


def chains(library: Any, operation: Callable[[Any, Any], Any]) -> dict[str, Callable[[], None]]:
    """The measured calls: a chain forward, and forward with backward."""
    values = np.full(16, 0.5, np.float32)
    leaf = library.tensor(values, requires_grad=True)
    ones = library.tensor(np.ones(16, np.float32))

    def forward() -> Any:
        h = leaf
        for _ in range(LENGTH):
            h = operation(h, leaf)
        return h

    def both() -> None:
        forward().backward(ones)
        leaf.grad = None

    return {"forward": forward, "both": both}


def measured(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Microseconds an operation for each call, in turns; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            call()  # after the other library's turn, the caches are its own
            start = time.perf_counter()
            for _ in range(REPEATS):
                call()
            if turn:
                times[name].append((time.perf_counter() - start) / REPEATS / LENGTH * 1e6)
    return times


def measure(turns: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All operations, in all libraries that are installed."""
    libraries: dict[str, Any] = {"tinygrad_bn": tg}
    absent: dict[str, str] = {}
    try:
        import torch

        torch.set_num_threads(1)
        libraries["torch"] = torch
    except ModuleNotFoundError:
        absent["torch"] = "not installed: pip install torch"
        report("missing: torch (not installed: pip install torch)")
    rows: dict[str, dict[str, Any]] = {}
    report(f"{'µs an operation':<18}{'forward':>28}{'forward and backward':>32}")
    with threadpool_limits(1):
        for name, operation in OPERATIONS.items():
            calls = {
                f"{library} {phase}": call
                for library, module in libraries.items()
                for phase, call in chains(module, operation).items()
            }
            rows[name] = {
                key: {
                    "median": round(statistics.median(values), 3),
                    "quartiles": [round(q, 3) for q in statistics.quantiles(values, n=4)[::2]],
                }
                for key, values in measured(calls, turns).items()
            }
            report(line(name, rows[name], list(libraries)))
    return {"absent": absent, "microseconds an operation": rows}


def line(name: str, row: dict[str, Any], libraries: list[str]) -> str:
    """A row as it is printed."""
    cells = []
    for phase in ("forward", "both"):
        medians = [row[f"{library} {phase}"]["median"] for library in libraries]
        text = " / ".join(f"{m:6.2f}" for m in medians)
        ratio = f"  {medians[1] / medians[0]:4.2f}×" if len(medians) > 1 else ""
        cells.append(text + ratio)
    return f"{name:<18}{cells[0]:>28}{cells[1]:>32}"


def main() -> None:
    print("written:", write("per_operation", measure(TURNS, print)))


if __name__ == "__main__":
    main()
