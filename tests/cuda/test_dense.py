"""The bias, its gradient and ReLU: the bits of the bodies, sums up to their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, FLOATS, GPU, dtype_named
from tinygrad_bn.ops import dense

every_dtype = pytest.mark.parametrize("dtype", FLOATS)
every_stored = pytest.mark.parametrize("dtype", FLOATS[1:])
SIZES = (1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 509, 1023, 1024, 1025, 2049)
ROWS = [
    *((n, c) for n in (1, 2, 7, 33) for c in (1, 2, 3, 4, 7, 8, 12, 16, 31, 32, 33)),
    (5, 1024),
    (3, 1031),
    (1031, 5),
    (64 * 1024 + 1, 4),
    (515, 264),
]
AWKWARD = (0.0, -0.0, np.nan, np.inf, -np.inf, 6e-8, -6e-8, 6e4)


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives, on the host; it must accept the arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*args)
        result = found.run(*args)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    return GPU.to_numpy(result)


def sent(x: Any, offset: int = 0) -> Any:
    """On the device, beginning at a multiple of 16 bytes or not."""
    flat = GPU.asarray(np.concatenate([np.zeros(offset, x.dtype), x.reshape(-1)]))
    return flat[offset:].reshape(x.shape)


def assert_same_bits(name: str, *args: Any) -> None:
    """For arrays at aligned and at other places; a NaN is a NaN."""
    with np.errstate(all="ignore"):
        want = getattr(dense, name).reference(CPU, *args)
    for offset in (0, 1):
        got = kernel(name, *(sent(x, offset) for x in args))
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))


def values(dtype: str, *shape: int) -> Any:
    """Of both signs, and where there is room those that need care."""
    x = np.random.default_rng(sum(shape)).standard_normal(shape)
    if x.size > 2 * len(AWKWARD):
        x.reshape(-1)[: len(AWKWARD)] = AWKWARD
    with np.errstate(over="ignore"):
        return x.astype(dtype_named(dtype))


@every_dtype
@pytest.mark.parametrize("n", SIZES)
def test_relu_and_its_gradient(n: int, dtype: str) -> None:
    x = values(dtype, n)
    with thread_order(n % 4):
        assert_same_bits("relu", x)
        assert_same_bits("relu_grad", x[::-1].copy(), x)


@every_dtype
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_a_bias_is_added(shape: tuple[int, int], dtype: str) -> None:
    with thread_order(sum(shape) % 4):
        assert_same_bits("add_bias", values(dtype, *shape), values(dtype, shape[1]))


@pytest.mark.parametrize("name", ["relu", "relu_grad", "add_bias"])
def test_a_block_does_more_than_one_share(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more packs than threads of all blocks."""
    from tinygrad_bn.backends.cuda_kernels import dense as family

    monkeypatch.setattr(family, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(family, "BLOCKS_EACH", 2)
    x = values("float32", 5, 2 * 256 * 4 + 1)
    others = {"relu": (), "relu_grad": (x,), "add_bias": (x[1].copy(),)}[name]
    assert_same_bits(name, x, *others)


@every_stored
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_columns_are_summed(shape: tuple[int, int], dtype: str) -> None:
    """In float64, whose error is far below that of the one rounding, whatever the order; half a
    unit of the result, and a millionth where the sum lies between two.
    """
    kind = dtype_named(dtype)
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(kind)
    exact = x.astype(np.longdouble).sum(axis=0)
    for order in (0, 1, 2):
        with thread_order(order):
            got = kernel("column_sums", sent(x))
        assert (got.dtype, got.shape) == (kind, (shape[1],))
        bits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]
        _, exponent = np.frexp(exact)
        allowed = np.ldexp(0.5, np.maximum(exponent - bits, -24 if dtype == "float16" else -200))
        assert np.all(np.abs(got.astype(np.float64) - exact) <= 1.000001 * allowed)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e30])
def test_sums_that_cancel(offset: float) -> None:
    """Sums of float32 by halves would keep nothing of what the terms leave."""
    x = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    x = np.concatenate([x + np.float32(offset), -(x + np.float32(offset)), x])
    exact = x.astype(np.longdouble).sum(axis=0)
    got = kernel("column_sums", sent(x))
    assert np.all(np.abs(got - exact) <= 2**-24 * np.abs(exact) + 1e-12 * offset)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_are_rounded_once(dtype: str) -> None:
    """Not to float32 first, where what is just above the middle would become the middle."""
    kind = dtype_named(dtype)
    unit = 2.0**-10 if dtype == "float16" else 2.0**-7
    tiny = 2.0**-24 if dtype == "float16" else 2.0**-40
    x = np.array([[1.0, 1.0, -1.0, 1.0 + unit], [unit / 2] * 4, [tiny, -tiny, tiny, tiny]])
    x[1, 2] *= -1
    got = kernel("column_sums", sent(x.astype(kind)))
    assert got.tolist() == [1.0 + unit, 1.0, -1.0, 1.0 + 2 * unit]


@every_stored
def test_sums_that_are_no_numbers(dtype: str) -> None:
    x = np.ones((40, 5), dtype_named(dtype))
    x[3, 0], x[39, 1], x[0, 2], x[7, 3], x[8, 3] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    got = kernel("column_sums", sent(x)).astype(np.float64)
    np.testing.assert_array_equal(got, [np.nan, np.inf, -np.inf, np.nan, 40.0])


@pytest.mark.parametrize("order", range(1, 5))
def test_bits_of_sums_do_not_depend_on_the_order(order: int) -> None:
    x = values("float32", 3001, 7)[2:]
    natural = kernel("column_sums", sent(x))
    with thread_order(order):
        assert kernel("column_sums", sent(x)).tobytes() == natural.tobytes()


def test_what_is_left_to_the_bodies() -> None:
    """Integers, gaps, nothing at all, shapes that would have to be broadcast."""
    x = GPU.asarray(np.ones((4, 6), np.float32))
    whole = GPU.asarray(np.ones((4, 6), np.int32))
    for name, args in (
        ("relu", (whole,)),
        ("relu", (x[:, ::2],)),
        ("relu", (x[:0],)),
        ("relu_grad", (x, whole)),
        ("relu_grad", (x, x[:2])),
        ("add_bias", (x, x)),
        ("add_bias", (x, whole[0])),
        ("column_sums", (x[:, ::2],)),
        ("column_sums", (x.astype(np.float64),)),
        ("column_sums", (x[0],)),
    ):
        found = GPU.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args), name
