"""Timing calls against each other: in blocks, in turns, in one process."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

SHORTEST = 2e-5
"""Seconds that a sample takes at least: quicker calls are timed several at once."""

Times = dict[str, list[float]]


@dataclass(frozen=True)
class Pace:
    """How long is measured.

    Attributes
    ----------
    rounds : how often each call has its turn.
    warm, block : seconds of a turn that are thrown away, and that count; both hold one call at
        least, and a block three.
    cpu : whether what is measured is the time that the process had the core, on a machine that it
        shares, and not the time that passed. The same for calls that do not wait.
    """

    rounds: int = 9
    warm: float = 0.02
    block: float = 0.06
    cpu: bool = False


QUICK = Pace(rounds=3, warm=0.01, block=0.03)


@dataclass
class Measured:
    """What comparing gave, a number a round.

    Attributes
    ----------
    seconds : for each name the median time of a call.
    cores : for each name how many cores the process kept busy. Well below one, something else had
        the core; above it, a call does not keep to one thread.
    """

    seconds: Times
    cores: Times


def compare(
    calls: Mapping[str, Callable[[], Any]],
    pace: Pace,
    wall: Callable[[], float] = perf_counter,
    busy: Callable[[], float] = process_time,
) -> Measured:
    """Time calls in turns, every other round in the opposite order.

    A turn begins with calls that are not counted, which bring caches and clock rates back to what
    this call is used to. What counts is the median within its block, so that an interruption does
    not.
    """
    clock = busy if pace.cpu else wall
    repeats = {name: repeats_of(call, clock) for name, call in calls.items()}
    found = Measured({name: [] for name in calls}, {name: [] for name in calls})
    order = list(calls)
    for _ in range(pace.rounds):
        for name in order:
            run_for(pace.warm, calls[name], clock)
            start, used = wall(), busy()
            found.seconds[name].append(block(calls[name], repeats[name], pace, clock))
            found.cores[name].append((busy() - used) / (wall() - start))
        order.reverse()
    return found


def repeats_of(call: Callable[[], Any], clock: Callable[[], float]) -> int:
    """How many calls make a sample; the first ones may compile, and do not count."""
    call()
    call()
    gc.collect()
    count, taken = run_for(0.005, call, clock)
    return max(1, round(SHORTEST * count / taken))


def run_for(
    seconds: float, call: Callable[[], Any], clock: Callable[[], float]
) -> tuple[int, float]:
    """Call for so long, at least once; how often, and how long it took."""
    start, count = clock(), 0
    while True:
        call()
        count += 1
        taken = clock() - start
        if taken >= seconds:
            return count, taken


def block(call: Callable[[], Any], repeats: int, pace: Pace, clock: Callable[[], float]) -> float:
    """The median of samples over a block."""
    samples: list[float] = []
    turns = range(repeats)
    start = clock()
    while True:
        began = clock()
        for _ in turns:
            call()
        ended = clock()
        samples.append((ended - began) / repeats)
        if ended - start >= pace.block and len(samples) >= 3:
            return statistics.median(samples)


def spread(values: list[float], digits: int = 3) -> dict[str, Any]:
    """Median and quartiles, to so many digits that count."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {
        "median": significant(median, digits),
        "quartiles": [significant(low, digits), significant(high, digits)],
    }


def significant(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def ratio(times: Times, of: str, to: str) -> dict[str, Any]:
    """How many times as long ``of`` takes as ``to``, round by round: both had the same minute."""
    return spread([a / b for a, b in zip(times[of], times[to], strict=True)])


def best(times: Times, names: list[str]) -> str | None:
    """Who of these is quickest; None if there is nobody."""
    return min(names, key=lambda name: statistics.median(times[name]), default=None)
