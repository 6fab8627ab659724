"""A line search: a step length that satisfies the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad_bn.backend import Array

DECREASE, CURVATURE = 1e-4, 0.9
"""The constants c₁ and c₂ of the conditions."""
NARROWEST = 1e-9
"""The change of a parameter below which no better step is looked for."""


@dataclass(frozen=True, slots=True)
class Point:
    """The loss f, its gradient g and its slope along the direction, a step t away."""

    t: float
    f: float
    g: Array
    slope: float


def cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points, with their slopes, is least; kept within [low, high].

    Nocedal & Wright (2006), eq. 3.59. The middle, where the cubic has no minimum.
    """
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    denominator = b.slope - a.slope + 2 * d2
    if denominator == 0:
        return high
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / denominator)
    return min(max(t, low), high)


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    t: float,
    reach: float,
    *,
    max_evaluations: int,
) -> tuple[Point, int]:
    """A point with f ≤ f₀ + c₁ t f₀' and |f'| ≤ c₂ |f₀'|, or the best found; how many were tried.

    Parameters
    ----------
    evaluate : the point a step t away.
    start : the point at t = 0, where the slope is negative.
    t : the first step to try.
    reach : the greatest element of the direction.
    max_evaluations : how many points may be tried after the first.

    References
    ----------
    Nocedal & Wright (2006), algorithms 3.5 and 3.6.
    """
    new = evaluate(t)
    previous, tries = start, 0
    while tries < max_evaluations:
        if is_too_high(new, start) or (tries > 1 and new.f >= previous.f):
            return zoom(evaluate, start, [previous, new], reach, tries, max_evaluations)
        if is_flat(new, start):
            return new, tries + 1
        if new.slope >= 0:
            return zoom(evaluate, start, [previous, new], reach, tries, max_evaluations)
        t = cubic_minimum(previous, new, new.t + 0.01 * (new.t - previous.t), 10 * new.t)
        previous, new = new, evaluate(t)
        tries += 1
    return (start if start.f <= new.f else new), tries + 1


def is_too_high(point: Point, start: Point) -> bool:
    """Whether the loss has not decreased enough."""
    return point.f > start.f + DECREASE * point.t * start.slope


def is_flat(point: Point, start: Point) -> bool:
    """Whether the slope has decreased enough."""
    return abs(point.slope) <= -CURVATURE * start.slope


def zoom(
    evaluate: Callable[[float], Point],
    start: Point,
    bracket: list[Point],
    reach: float,
    tries: int,
    max_evaluations: int,
) -> tuple[Point, int]:
    """Narrow a bracket around a point that satisfies the conditions until one is found."""
    stuck = False
    low, high = sorted(bracket, key=lambda point: point.f)
    while tries < max_evaluations and abs(low.t - high.t) * reach >= NARROWEST:
        left, right = min(low.t, high.t), max(low.t, high.t)
        t = cubic_minimum(low, high, left, right)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:  # too near to an end to learn much
            if stuck or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        new = evaluate(t)
        tries += 1
        if is_too_high(new, start) or new.f >= low.f:
            low, high = sorted((low, new), key=lambda point: point.f)
            continue
        if is_flat(new, start):
            return new, tries + 1
        if new.slope * (high.t - low.t) >= 0:
            high = low
        low = new
    return low, tries + 1
