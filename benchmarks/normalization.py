"""What a norm costs, forward and with backward, beside PyTorch.

    python benchmarks/normalization.py

Eager calls of the functions in training, in float32, with γ and β, batch norm with running
statistics; forward without a graph, and forward with the gradients of input, γ and β. "alone" is
our operation on arrays, without the tape and running statistics: what kernels take of it. Both
libraries run in one process on one thread, in turns; what is told are medians over the turns, and
their quartiles. Writes results/normalization.json.
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

TURNS = 21
ELEMENTS = 2_000_000
"""How many a sample works through at least."""

NORMS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda F, x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, training=True),
    "layer_norm": lambda F, x, w, b, mean, var: F.layer_norm(x, x.shape[1:], w, b),
    "rms_norm": lambda F, x, w, b, mean, var: F.rms_norm(x, x.shape[1:], w),
    "group_norm": lambda F, x, w, b, mean, var: F.group_norm(x, 32, w, b),
    "instance_norm": lambda F, x, w, b, mean, var: F.instance_norm(x, None, None, w, b),
}
IMAGES = (32, 64, 56, 56)
CASES: list[tuple[str, tuple[int, ...]]] = [
    ("batch_norm", (64, 256)),
    ("batch_norm", (1024, 1024)),
    ("batch_norm", (8192, 1024)),
    ("batch_norm", (65536, 256)),
    ("batch_norm", IMAGES),
    ("layer_norm", (64, 256)),
    ("layer_norm", (4096, 1024)),
    ("rms_norm", (4096, 1024)),
    ("group_norm", IMAGES),
    ("instance_norm", IMAGES),
]


def calls(library: Any, norm: str, shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """The measured calls of one library."""
    rng = np.random.default_rng(0)
    x, dy = (library.tensor(v) for v in rng.standard_normal((2, *shape), dtype=np.float32))
    mean, bias = library.zeros(shape[1]), library.zeros(shape[1])
    var, weight = library.ones(shape[1]), library.ones(shape[1])
    leaves = (x, weight, bias)

    def run() -> Any:
        return NORMS[norm](library.nn.functional, x, weight, bias, mean, var)

    def forward() -> None:
        with library.no_grad():
            run()

    def both() -> None:
        run().backward(dy)
        for leaf in leaves:
            leaf.grad = None

    for leaf in leaves:
        leaf.requires_grad = True
    name = library.__name__
    found = {f"{name} forward": forward, f"{name} both": both}
    return found | (alone(run(), dy) if library is tg else {})


def alone(y: tg.Tensor, dy: tg.Tensor) -> dict[str, Callable[[], Any]]:
    """The operation that made y, on arrays."""
    node = y.creator
    assert node is not None
    assert node.inputs is not None
    inputs = [getattr(x, "array", x) for x in node.inputs]

    def forward() -> None:
        node.forward(*inputs, **node.attributes)

    def both() -> None:
        forward()
        node.backward(dy.array)

    return {"alone forward": forward, "alone both": both}


def measured(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Microseconds a call, in turns; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(TURNS + 1):
        for name, function in functions.items():
            function()  # after another one's turn, the caches are not its own
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            if turn:
                times[name].append((time.perf_counter() - start) / repeats * 1e6)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and quartiles, and how many times ours the time of PyTorch is."""
    row: dict[str, Any] = {
        name: {
            "median": round(statistics.median(values), 1),
            "quartiles": [round(q, 1) for q in statistics.quantiles(values, n=4)[::2]],
        }
        for name, values in times.items()
    }
    for phase in ("forward", "both") if "torch forward" in times else ():
        for ours in ("tinygrad_bn", "alone"):
            pairs = zip(times[f"torch {phase}"], times[f"{ours} {phase}"], strict=True)
            ratio = statistics.median(theirs / mine for theirs, mine in pairs)
            row[f"{ours} {phase}"]["PyTorch takes, times"] = round(ratio, 2)
    return row


def line(title: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = []
    for phase in ("forward", "both"):
        known = [f"{name} {phase}" for name in ("tinygrad_bn", "alone", "torch")]
        text = " / ".join(f"{row[name]['median']:.0f}" for name in known if name in row)
        ratios = [row[name].get("PyTorch takes, times") for name in known[:2]]
        if ratios[0] is not None:
            text += f"  {ratios[0]:.2f}× / {ratios[1]:.2f}×"
        cells.append(f"{text:>40}")
    return f"{title:<32}" + "".join(cells)


def main() -> None:
    libraries: list[Any] = [tg]
    try:
        import torch

        torch.set_num_threads(1)
        libraries.append(torch)
    except ModuleNotFoundError:
        print("PyTorch is not installed: its column is missing")
    rows: dict[str, Any] = {}
    print("µs a call: ours / ours alone / PyTorch, and how many times ours PyTorch takes")
    print(f"{'':<32}{'forward':>40}{'forward and backward':>40}")
    with threadpool_limits(1):
        for norm, shape in CASES:
            functions: dict[str, Callable[[], Any]] = {}
            for library in libraries:
                functions |= calls(library, norm, shape)
            size = int(np.prod(shape))
            title = f"{norm} {shape}"
            rows[title] = summary(measured(functions, max(1, ELEMENTS // size)))
            print(line(title, rows[title]), flush=True)
    print("written:", write("normalization", {"microseconds": rows}))


if __name__ == "__main__":
    main()
