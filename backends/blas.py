"""The BLAS that NumPy brings, by the names of its own functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SYMBOL = "scipy_{}64_"
"""The names under which NumPy's wheels carry OpenBLAS with 64-bit integers."""


@cache
def library() -> ctypes.CDLL | None:
    """OpenBLAS of NumPy's wheel, which is loaded already; None where NumPy was built otherwise."""
    spec = find_spec("numpy")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas64_*")):
            return ctypes.CDLL(str(path))
    return None


@cache
def function(name: str) -> Any:
    """The function of this name; None where there is none."""
    return getattr(library(), SYMBOL.format(name), None)


@cache
def thread_count() -> Callable[[], int] | None:
    """What tells how many threads a product may take; None if NumPy's BLAS is another."""
    return function("openblas_get_num_threads")  # type: ignore[no-any-return]
