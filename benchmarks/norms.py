"""Norms beside PyTorch's, as ``normalization.py`` measures them, as a part of run.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

import normalization
import rivals
from steps import Report
from threadpoolctl import threadpool_limits

LIBRARIES = (rivals.OURS, "torch")


def measure(turns: int, threads: int, report: Report) -> dict[str, Any]:
    """Every norm at every shape."""
    normalization.TURNS = turns
    absent = rivals.missing(LIBRARIES)
    libraries = [import_module(name) for name in LIBRARIES if name not in absent]
    rows: dict[str, Any] = {}
    with threadpool_limits(threads):
        for norm, shape in normalization.CASES:
            functions: dict[str, Callable[[], Any]] = {}
            for library in libraries:
                functions |= normalization.calls(library, norm, shape)
            repeats = max(1, normalization.ELEMENTS // prod(shape))
            title = f"{norm} {shape}"
            rows[title] = normalization.summary(normalization.measured(functions, repeats))
            report(normalization.line(title, rows[title]))
    return {"absent": absent, "microseconds": rows}
