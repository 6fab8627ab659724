"""Products by tiles beside those of NumPy's BLAS, float32 on memory that begins where a cache line
does, on one thread.

    python benchmarks/products.py

For batches of a layer, and for random sizes that tiles are asked to take: how many times as long
BLAS takes, of medians in turns. Writes results/products.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from machine import settle, write

settle(1)

import numpy as np
from compare import Pace, compare, ratio
from tinygrad_bn.backends.numba_kernels.tiled_products import TILED_PRODUCT

BATCHES = (16, 64, 256, 1024, 4096)
LAYERS = ((784, 256), (1024, 1024))
RANDOM = 100
PACE = Pace(rounds=5, warm=0.004, block=0.012)
LINE = 64


def matrix(rng: Any, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Normal numbers, by rows."""
    memory = np.empty(rows * columns + LINE, np.float32)
    start = -memory.ctypes.data % LINE // memory.itemsize
    x = memory[start : start + rows * columns].reshape(rows, columns)
    x[...] = rng.standard_normal(x.shape)
    return x


def of_layer(rng: Any, batch: int, inputs: int, outputs: int) -> Iterator[tuple[str, Any, Any]]:
    """The products of a layer whose weights lie by columns."""
    x, w, dy = (
        matrix(rng, *shape) for shape in ((batch, inputs), (inputs, outputs), (batch, outputs))
    )
    yield "x W", x, w
    yield "dy Wᵀ", dy, w.T
    yield "xᵀ dy", x.T, dy


def measured(rng: Any, a: Any, b: Any) -> dict[str, Any]:
    """What BLAS takes over what tiles take, and whether they are asked."""
    out = matrix(rng, a.shape[0], b.shape[1])
    function, operands = TILED_PRODUCT.into((out,), a, b)
    calls = {"blas": lambda: np.matmul(a, b, out=out), "tiles": lambda: function(*operands)}
    times = compare(calls, PACE).seconds
    speed = 2 * a.size * b.shape[1] / statistics.median(times["tiles"]) / 1e9
    found = {**ratio(times, "blas", "tiles"), "GFLOP/s": round(speed)}
    return {**found, "taken": TILED_PRODUCT.accepts(a, b)}


def main() -> None:
    if TILED_PRODUCT is None:
        raise SystemExit("expected OpenBLAS from NumPy's wheel on x86-64, got another BLAS")
    rng = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    for inputs, outputs in LAYERS:
        for batch in BATCHES:
            for product, a, b in of_layer(rng, batch, inputs, outputs):
                name = f"{product}, {inputs} × {outputs}, batch {batch}"
                rows[name] = row = measured(rng, a, b)
                print(f"{name:<36}{row['median']:6.2f}×{row['GFLOP/s']:>6} GFLOP/s", flush=True)
    ratios: list[float] = []
    while len(ratios) < RANDOM:
        batch, inputs, outputs = (int(n) for n in 16 * rng.integers(1, 64, 3))
        for _, a, b in of_layer(rng, batch, inputs, outputs):
            if TILED_PRODUCT.accepts(a, b):
                ratios.append(measured(rng, a, b)["median"])
    mean = round(statistics.geometric_mean(ratios), 3)
    print(f"{len(ratios)} random products that tiles take: {mean}×, least {min(ratios)}×")
    content = {"layers": rows, "random": {"count": len(ratios), "mean": mean, "each": ratios}}
    print("written:", write("products", content))


if __name__ == "__main__":
    main()
