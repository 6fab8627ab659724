"""What CuPy offers, as `record_api` wrote it down."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

API: dict[str, Any] = json.loads(Path(__file__).with_name("api.json").read_text())


def names(module: str) -> frozenset[str]:
    """The public names of ``"cupy"``, ``"cupyx"``, ``"cuda"`` or ``"ndarray"``."""
    return frozenset(API[module].split())


@cache
def signature(name: str, table: str = "signatures") -> inspect.Signature:
    """The parameters of a function of CuPy, or of a method (``table="methods"``)."""
    scope: dict[str, Any] = {}
    exec(f"def recorded{API[table][name]}: ...", scope)
    return inspect.signature(scope["recorded"])


@cache
def loops(name: str) -> tuple[tuple[str, str], ...]:
    """The dtype characters of an elementwise kernel, of inputs and output, in CuPy's order."""
    pairs = (loop.split("->") for loop in API["ufuncs"][name].split() if "V" not in loop)
    return tuple((inputs, output) for inputs, output in pairs)
