"""What a step cannot be quicker than, from what this machine's core does: products at the speed of
its BLAS, updates and norms at that of scaling numbers in place. A copy would be slower than that:
it has to fetch the lines that it overwrites.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cases import ARRAYS, NORM_BYTES, UPDATE_BYTES, Case
from compare import Times, significant

SIDE = 1024
"""Of the square matrices whose product is timed; those of a wider network are as wide as it."""
LEAST = 1 << 16
"""How many numbers are scaled at least: below it NumPy's call would be what is timed."""
PRODUCT, UPDATE, NORM = "product", "scaling as much as an update", "scaling as much as a norm"


def scaled(case: Case, optimizer: str) -> dict[str, int]:
    """How many numbers are scaled: as many as what the time stands for keeps in memory, which are
    parameters, gradients and buffers, or the input and output of a norm.
    """
    return {
        UPDATE: max(LEAST, case.parameters * ARRAYS[optimizer]),
        NORM: max(LEAST, 2 * case.batch * max(case.hidden)),
    }


def side(case: Case) -> int:
    return max(SIDE, *case.widths)


def references(case: Case, optimizer: str) -> dict[str, Callable[[], Any]]:
    """The calls that tell the speed of this core, timed in turns with the steps."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, side(case), side(case)), dtype=np.float32)
    out = np.empty_like(a)
    calls: dict[str, Callable[[], Any]] = {PRODUCT: lambda: np.dot(a, b, out=out)}
    for name, size in scaled(case, optimizer).items():
        x = np.ones(size, np.float32)
        calls[name] = partial(np.multiply, x, np.float32(1), out=x)
    return calls


def rates(times: Times, case: Case, optimizer: str) -> dict[str, float]:
    """FLOP/s of the product, and bytes/s of scaling, which reads and writes four bytes a number."""
    found = {PRODUCT: 2 * side(case) ** 3 / statistics.median(times[PRODUCT])}
    for name, size in scaled(case, optimizer).items():
        found[name] = 8 * size / statistics.median(times[name])
    return {name: significant(rate, 4) for name, rate in found.items()}


def floor(case: Case, optimizer: str, rates: dict[str, float]) -> dict[str, float]:
    """Seconds of a step at these rates, and of its parts."""
    parts = {
        "products": case.flops / rates[PRODUCT],
        "update": UPDATE_BYTES[optimizer] * case.parameters / rates[UPDATE],
        "norms": NORM_BYTES * case.batch * sum(case.hidden) / rates[NORM],
    }
    found = {**parts, "total": sum(parts.values())}
    return {name: significant(value, 4) for name, value in found.items()}
