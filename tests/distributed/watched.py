"""Groups that a test gives up when they hang, instead of hanging itself."""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from tinygrad_bn import distributed
from tinygrad_bn.backend import backend_for

R = TypeVar("R")

PATIENCE = 60.0
"""Seconds: hundreds of times what any of these takes, on a machine that does much else."""


def watched(function: Callable[[], R]) -> R:
    """What the function returns or raises; a failure if it has done neither in time."""
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        faulthandler.dump_traceback(all_threads=True)
        raise AssertionError(f"still running after {PATIENCE} s; where is in the output above")
    if errors:
        raise errors[0]
    return results[0]


def spawn(fn: Callable[..., R], size: int, *args: Any, timeout: float = 2 * PATIENCE) -> list[R]:
    """`distributed.spawn`, watched; its own timeout never helps it out."""
    for device in ("cpu", "cuda"):  # loaded here: two ranks that are first at once would load two
        backend_for(device)
    return watched(lambda: distributed.spawn(fn, size, *args, timeout=timeout))
