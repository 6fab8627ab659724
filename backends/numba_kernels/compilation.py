"""How kernels are compiled: lazily, cached on disk where that is possible, and free of the
interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # a division by zero is infinite; and, unchecked, it vectorises
    "fastmath": {"contract"},  # a fused multiply-add rounds once less; sums keep their order
}


def compiled(function: F) -> F:
    """The function, compiled for the types of its first call, and for others when they come."""
    try:
        return numba.njit(cache=True, **OPTIONS)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder to keep the cache in can be written to
        return numba.njit(**OPTIONS)(function)  # type: ignore[no-any-return]
