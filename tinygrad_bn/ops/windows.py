"""How windows lie over the positions of an image: the geometry of convolution and pooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one shape over each of the last axes.

    Attributes
    ----------
    kernel : how many points a window has along each axis.
    stride : how far windows are apart.
    dilation : how far the points of a window are apart.
    padding : how many positions there are before and after those of the image.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs

    @property
    def points(self) -> int:
        """How many points a window has."""
        return math.prod(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """How many positions a window spans along each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def are_points(self) -> bool:
        """Whether there is one window for each position, which is that position."""
        unpadded = not any(n for pair in self.padding for n in pair)
        return unpadded and self.points == 1 and set(self.stride) <= {1}

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The size of an image with its padding."""
        return tuple(n + a + b for n, (a, b) in zip(size, self.padding, strict=True))

    def count(self, size: Sequence[int]) -> tuple[int, ...]:
        """How many windows an image of this size has along each axis."""
        room = zip(self.padded(size), self.reach, self.stride, strict=True)
        return tuple((n - reach) // step + 1 for n, reach, step in room)

    def offsets(self, count: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """For each point of a window, where that of all windows lies in the padded image."""
        for point in itertools.product(*map(range, self.kernel)):
            starts = (k * d for k, d in zip(point, self.dilation, strict=True))
            yield tuple(
                slice(start, start + step * (n - 1) + 1, step) if n else slice(0)
                for start, step, n in zip(starts, self.stride, count, strict=True)
            )

    @property
    def inner(self) -> tuple[slice, ...]:
        """Where the image lies in itself padded."""
        return tuple(slice(a, -b if b else None) for a, b in self.padding)


def numbers(name: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
    """One whole number for each axis, from such, or from one for all.

    Raises
    ------
    DtypeError, ShapeError, ArgumentError
        Naming what it is for; if there are not as many numbers as axes, or one is too small.
    """
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in given):
        raise DtypeError(f"expected whole numbers as {name}, got {value!r}")
    if len(given) not in (1, axes):
        raise ShapeError(f"expected 1 or {axes} numbers as {name}, got {value!r}")
    if min(given) < least:
        raise ArgumentError(f"expected {name} ≥ {least}, got {value!r}")
    return tuple(map(int, given)) * (axes // len(given))


def on_both_sides(padding: Sequence[int]) -> Pairs:
    """As much padding after as before."""
    return tuple((n, n) for n in padding)


def require_room(windows: Windows, size: Sequence[int]) -> None:
    """Refuse an image that has no window.

    Raises
    ------
    ShapeError
    """
    padded, reach = windows.padded(size), windows.reach
    if any(n < m for n, m in zip(padded, reach, strict=True)):
        raise ShapeError(
            f"expected windows that fit into the padded input, got windows of {reach} positions "
            f"and an input {tuple(size)}, with its padding {padded}"
        )
