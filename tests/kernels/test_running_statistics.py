"""The kernel of running statistics against its body: the same bits, in the buffers' own memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops.moments import moving_moments, tracked_moments

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
RNG = np.random.default_rng(0)


def statistics(dtype: Any, size: int) -> tuple[Any, ...]:
    """Running mean and variance, and those of a batch."""
    running = RNG.standard_normal(size).astype(dtype), RNG.random(size).astype(dtype)
    return *running, RNG.standard_normal(size), 1e-12 * RNG.random(size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 67])
def test_moves_the_buffers_themselves_as_the_body_says(dtype: Any, size: int) -> None:
    mean, var, *batch = statistics(dtype, size)
    expected = moving_moments.reference(NUMPY, mean.copy(), var.copy(), *batch, 0.1, 67 / 66)
    moved = moving_moments(NUMPY, mean, var, *batch, 0.1, 67 / 66)
    assert moved[0] is mean
    assert moved[1] is var
    for got, value in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(got, value.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_the_batch_along(dtype: Any) -> None:
    count, (mean, var, *batch) = np.array(2**40), statistics(dtype, 67)
    given = count.copy(), mean.copy(), var.copy()
    expected = tracked_moments.reference(NUMPY, *given, *batch, 0.1, 67 / 66)
    moved = tracked_moments(NUMPY, count, mean, var, *batch, 0.1, 67 / 66)
    assert all(got is place for got, place in zip(moved, (count, mean, var), strict=True))
    for got, value in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(got, np.asarray(value).astype(got.dtype))


@pytest.mark.parametrize("count", [np.array(3, np.float32), np.array(3, np.int32)], ids=str)
def test_leaves_other_counts_to_the_body(count: Any) -> None:
    mean, var, *batch = statistics(np.float32, 5)
    moved = tracked_moments(NUMPY, count, mean, var, *batch, 0.1, 1.0)
    assert moved[0] == count + 1
    assert count == 3


@pytest.mark.parametrize(
    ("change", "rate"),
    [(lambda x: x, np.array(0.1)), (lambda x: x, 1), (lambda x: x.astype(np.float32), 0.1)],
    ids=["a rate in an array", "a whole number", "moments of float32"],
)
def test_leaves_the_rest_to_the_body(change: Any, rate: Any) -> None:
    mean, var, *batch = statistics(np.float32, 5)
    before = mean.copy()
    moving_moments(NUMPY, mean, var, *map(change, batch), rate, 1.0)
    np.testing.assert_array_equal(mean, before)


def test_buffers_with_gaps_are_left_to_the_body() -> None:
    mean, var, *batch = statistics(np.float64, 10)
    mean, var = mean[::2], var[::2]
    moved = moving_moments(NUMPY, mean, var, *(x[::2] for x in batch), 0.5, 1.0)
    np.testing.assert_array_equal(moved[0], mean * 0.5 + batch[0][::2] * 0.5)
