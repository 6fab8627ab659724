"""That what is timed computes the same: a benchmark that compares unlike things is worthless.

All begin with the same weights and take the same steps on the same batches. In float64, on a small
network, every form must follow the first one to rounding. In float32, on the network that is timed,
it is the very call that is timed which must; there Adam makes a whole step of a gradient that is
nothing but rounding, which is what the bias before a norm has, and everything before a norm over
two samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import CASES, Arrays
from rivals import Training, training

STEPS = 3
RATES = {"adam": 1e-4, "sgd": 1e-2}
"""Learning rates that move the parameters by more than float32 rounds them."""
REFERENCE = "tinygrad_bn eager"


@dataclass(frozen=True)
class Distance:
    """How far a form is from the reference after a few steps.

    Attributes
    ----------
    loss : the largest relative difference of the losses.
    movement : how far apart parameters ended, in terms of how far they went, as norms of all of
        them together; the same of running statistics; and the larger of the two.
    """

    loss: float
    movement: float

    def __str__(self) -> str:
        return f"{self.loss:.0e} of the loss and {self.movement:.0e} of the movement"

    def within(self, other: Distance) -> bool:
        return self.loss <= other.loss and self.movement <= other.movement


EXACT = Distance(loss=1e-12, movement=1e-8)
"""In float64. Adam divides by √v + 1e-8, which makes 1e-16 of a gradient into 1e-8 of a step."""
SAME = {"adam": Distance(1e-3, 0.15), "sgd": Distance(1e-5, 5e-3)}
"""In float32. Found are up to 3e-4 and 0.05 with Adam, 1e-6 and 1e-3 with SGD, which moves by the
gradient itself. Steps of twice the length are apart by 1, unrelated ones by √2.
"""


class Disagreement(Exception):
    """A form computes something else than the reference."""


@dataclass(frozen=True)
class Path:
    """Where a few steps led."""

    losses: list[float]
    begin: Arrays
    end: Arrays


def walk(steps: Training, optimizer: str) -> Path:
    """Take a few steps."""
    steps.learn(RATES[optimizer])
    begin = steps.state()
    losses = [value(steps.step()) for _ in range(STEPS)]
    return Path(losses, begin, steps.state())


def value(loss: Any) -> float:
    return float(loss.detach() if hasattr(loss, "detach") else loss)


def distance(path: Path, reference: Path) -> Distance:
    """How far a path ends from another one that begins where it does."""
    if path.end.keys() != reference.end.keys():
        different = sorted(path.end.keys() ^ reference.end.keys())
        raise Disagreement(f"expected the same parameters and statistics, got {different}")
    losses = np.array([path.losses, reference.losses], np.float64)
    loss = np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[1]))
    statistics = {name for name in path.end if "running" in name}
    parts = [part for part in (path.end.keys() - statistics, statistics) if part]
    return Distance(float(loss), max(strayed(path, reference, part) for part in parts))


def strayed(path: Path, reference: Path, names: Iterable[str]) -> float:
    """How far the ends of some arrays are apart, in terms of how far they went."""
    apart, gone = 0.0, 0.0
    for name in names:
        end = reference.end[name]
        apart += float(np.sum(np.square(path.end[name] - end, dtype=np.float64)))
        gone += float(np.sum(np.square(end - reference.begin[name], dtype=np.float64)))
    return float(np.sqrt(apart / gone))


def require(form: str, found: Distance, bound: Distance) -> Distance:
    """Refuse a form that is further away."""
    if not found.within(bound):  # NaN is not, either
        raise Disagreement(f"expected {form} to differ by {bound} at most, got {found}")
    return found


class Exact:
    """The paths in float64 of each optimizer, each walked once."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Path] = {}

    def path(self, form: str, optimizer: str) -> Path:
        key = (form, optimizer)
        if key not in self.known:
            steps = training(form, CASES["tiny"], optimizer, "float64")
            self.known[key] = walk(steps, optimizer)
        return self.known[key]

    def check(self, form: str, optimizer: str) -> Distance:
        found = distance(self.path(form, optimizer), self.path(REFERENCE, optimizer))
        return require(form, found, EXACT)
