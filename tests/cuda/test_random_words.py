"""Random words and dropout: the bits of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels.compilation import TYPES as FLOATS

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn import philox
from tinygrad_bn.ops import dense

SIZES = (1, 2, 3, 4, 5, 31, 32, 33, 1021, 1023, 1024, 1025, 4099)
STREAMS = (
    (0, 0, 0),
    (42, 7, 0),
    (2**64 - 1, 2**64 - 1, 2**64 - 1),
    (0x0123456789ABCDEF, 2**32 - 2, 3),  # the counter's lower word runs over
    (0xFEDCBA9876543210, 2**64 - 3, 5),  # and its lower half, which wraps around
)


def stream(numbers: tuple[int, int, int]) -> Any:
    """Key and counter, side by side as a generator has them."""
    state = np.array(numbers, np.uint64)
    return state[:1], state[1:]


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives; it must accept the arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*args)
        result = found.run(*args)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    return result


def sent(numbers: tuple[int, int, int]) -> Any:
    state = GPU.asarray(np.array(numbers, np.uint64))
    return state[:1], state[1:]


@pytest.mark.parametrize("numbers", STREAMS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_words(n: int, numbers: tuple[int, int, int]) -> None:
    want = philox.philox_words.reference(CPU, *stream(numbers), n)
    there = sent(numbers)
    with thread_order(n % 4):
        got = GPU.to_numpy(kernel("philox_words", *there, n))
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.uint32
    assert GPU.to_numpy(there[1]).tolist() == list(numbers[1:])  # whoever draws moves it on


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 1.0, 2.0**-20])
def test_dropout(keep: float, dtype: str) -> None:
    """Around packs and blocks, at places where these may be moved at once and at others."""
    kind = dtype_named(dtype)
    for n, numbers in zip(SIZES, STREAMS * 3, strict=False):
        x = np.random.default_rng(n).standard_normal(n + 1).astype(kind)
        x[-1] = np.nan
        for offset in (0, 1):
            here = x[offset : offset + n]
            with np.errstate(all="ignore"):
                wanted = dense.dropped.reference(CPU, here, *stream(numbers), keep)
            with thread_order((n + offset) % 4):
                got = kernel("dropped", GPU.asarray(x)[offset : offset + n], *sent(numbers), keep)
            for value, want in zip(map(GPU.to_numpy, got), wanted, strict=True):
                assert (value.dtype, value.shape) == (want.dtype, want.shape)
                np.testing.assert_array_equal(value.astype(float), want.astype(float))


def test_a_thread_draws_more_than_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad_bn.backends.cuda_kernels import random_words as family

    monkeypatch.setattr(family, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(family, "BLOCKS_EACH", 1)
    n, numbers = 3 * 1024 + 5, STREAMS[1]
    want = philox.philox_words.reference(CPU, *stream(numbers), n)
    np.testing.assert_array_equal(GPU.to_numpy(kernel("philox_words", *sent(numbers), n)), want)
    x = np.ones(n, np.float32).reshape(-1, 1)
    _, mask = dense.dropped.reference(CPU, x, *stream(numbers), 0.5)
    drawn = kernel("dropped", GPU.asarray(x), *sent(numbers), 0.5)[1]
    np.testing.assert_array_equal(GPU.to_numpy(drawn), mask)


def test_what_is_left_to_the_bodies() -> None:
    """Nothing to draw, integers, gaps."""
    words, dropped = GPU.kernels.get("philox_words"), GPU.kernels.get("dropped")
    assert words is not None
    assert dropped is not None
    key = sent(STREAMS[0])
    x = GPU.asarray(np.ones((4, 4), np.float32))
    assert not words.accepts(*key, 0)
    assert dropped.accepts(x, *key, 0.5)
    for other in (x[:0], x[:, ::2], x.astype(np.int32)):
        assert not dropped.accepts(other, *key, 0.5)
