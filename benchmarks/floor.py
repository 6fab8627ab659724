"""What a step cannot be quicker than, from what this machine's core does: products at the speed of
its BLAS, updates and norms at that of copying.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import NORM_BYTES, UPDATE_BYTES, Case
from compare import Times, significant

SIDE = 1024
"""Of the square matrices whose product is timed."""
LEAST = 1 << 16
"""How many numbers a timed copy takes at least: below it NumPy's call would be what is timed."""
PRODUCT, UPDATE, NORM = "a product", "a copy for the update", "a copy for the norms"


def copied(case: Case, optimizer: str) -> dict[str, int]:
    """How many numbers are copied: each copy touches as much memory as what it stands for."""
    arrays = {"adam": 4, "sgd": 3}[optimizer]
    return {
        UPDATE: max(LEAST, case.parameters * arrays // 2),
        NORM: max(LEAST, case.batch * max(case.hidden)),
    }


def references(case: Case, optimizer: str) -> dict[str, Callable[[], Any]]:
    """The calls that tell the speed of this core, timed in turns with the steps."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, SIDE, SIDE), dtype=np.float32)
    out = np.empty_like(a)
    calls: dict[str, Callable[[], Any]] = {PRODUCT: lambda: np.dot(a, b, out=out)}
    for name, size in copied(case, optimizer).items():
        source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
        calls[name] = lambda s=source, t=target: np.copyto(t, s)  # type: ignore[misc]
    return calls


def rates(times: Times, case: Case, optimizer: str) -> dict[str, float]:
    """FLOP/s of the product and bytes/s of the copies, each of which reads once and writes once."""
    found = {PRODUCT: 2 * SIDE**3 / statistics.median(times[PRODUCT])}
    for name, size in copied(case, optimizer).items():
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
