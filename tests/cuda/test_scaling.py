"""A scaler's kernels: the bits of their bodies, in place, and nothing waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels.scaling import KEPT, SCALED, THREADS

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn.amp import scale_rules

SIZES = (1, 3, 4, 5, 8, 31, 33, 1009, 4 * THREADS, 8 * THREADS + 1)


def run(name: str, *args: Any) -> Any:
    """What the kernel gives, on the host; it overwrites its arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*args)
        results = found.run(*args)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    assert all(result is args[place] for result, place in zip(results, found.writes, strict=True))
    return tuple(GPU.to_numpy(x) for x in results)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", SCALED)
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
def test_unscaled(bad: Any, dtype: str, offset: int) -> None:
    """Around packs and blocks; what is not finite is found wherever it is."""
    for n in SIZES:
        grad = np.random.default_rng(n).standard_normal(n + offset).astype(dtype_named(dtype))
        if bad is not None:
            grad[offset + (n * 7) // 9] = bad
        for scale, before in ((65536.0, False), (3.0, True), (2.0**-20, False)):
            here = grad[offset:], np.array(before), np.array(scale, np.float32)
            want, found = scale_rules.unscaled.reference(CPU, *here)
            there = GPU.asarray(grad.copy())[offset:], *map(GPU.asarray, here[1:])
            with thread_order(n % 4):
                got, seen = run("unscaled", *there)
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got.astype(float), want.astype(float))
            assert bool(seen) is bool(found) is (before or bad is not None)


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("tracker", [0, 1, 2, 7])
@pytest.mark.parametrize("scale", [65536.0, 1.0, 2.0**127, 3e38, 1e-38])
def test_the_next_scale(scale: float, tracker: int, found: bool) -> None:
    numbers = 2.0, 0.5, 3
    here = np.array(scale, np.float32), np.array(tracker, np.int32), np.array(found)
    with np.errstate(over="ignore"):
        want = scale_rules.next_scale.reference(CPU, *here, *numbers)
    got = run("next_scale", *map(GPU.asarray, here), *numbers)
    for value, other in zip(got, want, strict=True):
        assert value == other
    assert (got[0].dtype, got[1].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("dtype", KEPT)
def test_taken_back(dtype: str, found: bool) -> None:
    for n in SIZES:
        before, now = np.random.default_rng(n).standard_normal((2, n)).astype(dtype_named(dtype))
        now[0] = np.nan
        got = run("taken_back", *map(GPU.asarray, (now, before, np.array(found))))[0]
        want = before if found else now
        np.testing.assert_array_equal(got.astype(float), want.astype(float))


def test_what_is_left_to_the_bodies() -> None:
    unscaled, kept = GPU.kernels.get("unscaled"), GPU.kernels.get("taken_back")
    assert unscaled is not None
    assert kept is not None
    x, found = GPU.asarray(np.ones(8, np.float32)), GPU.asarray(np.array(False))
    scale = GPU.asarray(np.array(2, np.float32))
    assert unscaled.accepts(x, found, scale)
    assert kept.accepts(x, x, found)
    for other in (x.astype(np.float64), x[::2], x[:0]):
        assert not unscaled.accepts(other, found, scale)
    assert not kept.accepts(x, x.astype(np.float16), found)
    assert not kept.accepts(x[::2], x[::2], found)
    assert not kept.accepts(x, x, scale)
