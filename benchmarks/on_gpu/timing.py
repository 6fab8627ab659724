"""Timing work of a GPU: calls one after another, without waiting between them, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compare import Times

Timer = Callable[[Callable[[], Any], int], float]
"""Calls something so many times, and says how many seconds a call took."""

WARM = 3
"""Calls before anything is timed, which may compile and choose algorithms."""


class Events:
    """CUDA's own clock: an event before the calls, and one after them.

    Where the GPU is the slower it tells the time of the kernels; where the host is, that of its
    calls. CuPy and PyTorch both work on the legacy default stream, so the same events serve both.
    """

    def __init__(self) -> None:
        import cupy

        self.elapsed = cupy.cuda.get_elapsed_time
        self.begin, self.end = cupy.cuda.Event(), cupy.cuda.Event()

    def __call__(self, call: Callable[[], Any], repeats: int) -> float:
        self.begin.record()
        for _ in range(repeats):
            call()
        self.end.record()
        self.end.synchronize()
        return float(self.elapsed(self.begin, self.end)) * 1e-3 / repeats


@dataclass(frozen=True)
class Pace:
    """How long is measured.

    Attributes
    ----------
    rounds : how often each call has its turn.
    sample : seconds that calls between two events take together, or one call if it takes longer.
    samples : how many of these a turn has; their median counts.
    """

    rounds: int = 7
    sample: float = 0.01
    samples: int = 3


QUICK = Pace(rounds=3, sample=0.003)


def compare(calls: Mapping[str, Callable[[], Any]], pace: Pace, timer: Timer) -> Times:
    """Time calls in turns, every other round in the opposite order: for each name the median of
    each turn, which begins with a sample that does not count.
    """
    repeats = {name: repeats_of(call, pace, timer) for name, call in calls.items()}
    found: Times = {name: [] for name in calls}
    order = list(calls)
    for _ in range(pace.rounds):
        for name in order:
            samples = [timer(calls[name], repeats[name]) for _ in range(pace.samples + 1)]
            found[name].append(statistics.median(samples[1:]))
        order.reverse()
    return found


def repeats_of(call: Callable[[], Any], pace: Pace, timer: Timer) -> int:
    """How many calls make a sample."""
    timer(call, WARM)
    once = timer(call, WARM)
    return max(1, min(10_000, round(pace.sample / max(once, 1e-9))))
