"""Which positions each window of a pooling has along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.mixing import Table
from tinygrad_bn.ops.windows import numbers

Spans = tuple[range, ...]
"""The positions of each window along one axis, in order; at least one."""


@lru_cache(maxsize=256)
def spans_of_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool
) -> Spans:
    """The positions of windows that are inside; with ``ceil``, also of a last one that begins there
    but ends beyond the padding.

    Raises
    ------
    ShapeError
        If there is no window, or one without any position.
    """
    reach = dilation * (kernel - 1) + 1
    room = size + 2 * padding - reach
    count = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    if size < 1 or count < 1:
        raise ShapeError(
            f"expected windows that fit into the padded input, got windows of {reach} positions "
            f"and {size} with padding {padding}"
        )
    starts = [i * stride - padding for i in range(count)]
    spans = tuple(
        range(first + max(-(first // dilation), 0) * dilation, min(first + reach, size), dilation)
        for first in starts
    )
    if not all(spans):
        raise ShapeError(
            f"expected a position in every window, got one of {reach} in the padding {padding}"
        )
    return spans


@lru_cache(maxsize=256)
def spans_of_parts(size: int, parts: int) -> Spans:
    """The positions of so many windows that together cover an axis, which overlap as they must."""
    return tuple(range(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts))


@lru_cache(maxsize=256)
def means_of_windows(
    size: int, kernel: int, stride: int, padding: int, ceil: bool, count_padding: bool
) -> Table:
    """The mean over each window, of which padding is part if it is to be counted."""
    rows = []
    for i, span in enumerate(spans_of_windows(size, kernel, stride, padding, 1, ceil)):
        first = i * stride - padding
        count = min(first + kernel, size + padding) - first if count_padding else len(span)
        rows.append(tuple((place, 1 / count) for place in span))
    return Table(rows, size)


@lru_cache(maxsize=256)
def sums_of_windows(
    size: int, kernel: int, stride: int, padding: int, ceil: bool, divisor: int
) -> Table:
    """The sum over each window, by a number."""
    spans = spans_of_windows(size, kernel, stride, padding, 1, ceil)
    return Table([tuple((place, 1 / divisor) for place in span) for span in spans], size)


@lru_cache(maxsize=256)
def means_of_parts(size: int, parts: int) -> Table:
    """The mean over each of so many windows that cover an axis."""
    spans = spans_of_parts(size, parts)
    return Table([tuple((place, 1 / len(span)) for place in span) for span in spans], size)


def parts_asked_for(output_size: Any, size: Sequence[int]) -> tuple[int, ...]:
    """How many parts of each axis there are to be; None for as many as positions."""
    axes = len(size)
    if not min(size):
        raise ShapeError(f"expected positions to pool, got {tuple(size)}")
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * axes
    if len(given) != axes:
        raise ShapeError(f"expected 1 or {axes} numbers as output_size, got {output_size!r}")
    filled = [n if wanted is None else wanted for wanted, n in zip(given, size, strict=True)]
    return numbers("output_size", filled, axes, 1)


def require_padding(padding: Sequence[int], kernel: Sequence[int]) -> None:
    """Refuse padding of more than half a window.

    Raises
    ------
    ArgumentError
    """
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ArgumentError(f"expected padding of at most half of {kernel}, got {padding}")
