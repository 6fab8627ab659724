"""The parts of gpu.py: what a GPU can do, and how near to it this library and PyTorch come."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import cupy
import rivals

from on_gpu.timing import Pace, Timer

Report = Callable[[str], None]
DEVICE = "cuda"


class Budget:
    """So many seconds: what would begin later is named, and not measured."""

    def __init__(self, seconds: float, clock: Callable[[], float] = perf_counter) -> None:
        self.seconds, self.clock, self.begin = seconds, clock, clock()

    def spent(self) -> bool:
        return self.clock() - self.begin >= self.seconds


@dataclass(frozen=True)
class Bench:
    """What everything is measured with.

    Attributes
    ----------
    torch : PyTorch, or None where there is none to compare with.
    torch_device : where its tensors are.
    absent : rivals that are missing everywhere, and why.
    """

    timer: Timer
    pace: Pace
    report: Report
    torch: Any = None
    torch_device: str = DEVICE
    absent: dict[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=lambda: Budget(float("inf")))


def reason(error: BaseException) -> str:
    """What an absence is put down to: the error, on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}"


def forget(bench: Bench) -> None:
    """Give back the memory that this library and PyTorch keep, each for itself."""
    rivals.forget()
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    if bench.torch is not None:
        bench.torch.cuda.empty_cache()
