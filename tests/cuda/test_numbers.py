"""Storage in 16 bits: every value there is, and every kind of rounding, as NumPy has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda.emulated import launch
from tests.two_backends import dtype_named

TYPES = {"float16": "f16", "bfloat16": "bf16"}
SOURCE = """
template <class T> __global__ void __launch_bounds__(256)
widen(const T* x, float* y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = wide(x[i]);
}

template <class T> __global__ void __launch_bounds__(256)
narrow(const float* x, T* y, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = stored<T>(x[i]);
}

template <class T, int V> __global__ void __launch_bounds__(256)
moved(const T* x, T* y, int n) {
    int i = threadIdx.x * V;
    if (i < n) store(y + i, loaded<V>(x + i));
}
"""


def bits(x: Any) -> Any:
    return x.view({2: np.uint16, 4: np.uint32}[x.dtype.itemsize])


def narrowed(x: Any, dtype: str) -> Any:
    y = np.zeros(x.size, dtype_named(dtype))
    launch(SOURCE, f"narrow<{TYPES[dtype]}>", (4,), (256,), x, y, np.int32(x.size))
    return y


def nearly(dtype: str) -> Any:
    """Every value, what lies halfway between two neighbours, and what lies beside that."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype_named(dtype)).astype(np.float32)
    finite = np.sort(every[np.isfinite(every)])
    halfway = (finite[:-1].astype(np.float64) + finite[1:].astype(np.float64)) / 2
    middle = halfway.astype(np.float32)
    largest = float(np.abs(finite).max())
    with np.errstate(over="ignore"):
        beyond = np.array([largest * 1.0001, largest * 1.01, 3e38, np.inf, np.nan], np.float32)
    sides = np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))
    return np.concatenate([every, middle, *sides, beyond, -beyond])


@pytest.mark.parametrize("dtype", TYPES)
def test_widening_is_exact(dtype: str) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype_named(dtype))
    y = np.zeros(x.size, np.float32)
    launch(SOURCE, f"widen<{TYPES[dtype]}>", (4,), (256,), x, y, np.int32(x.size))
    wanted = x.astype(np.float32)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(y), nan)
    np.testing.assert_array_equal(bits(y)[~nan], bits(wanted)[~nan])


@pytest.mark.parametrize("dtype", TYPES)
def test_storing_rounds_to_the_nearest(dtype: str) -> None:
    x = nearly(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = x.astype(dtype_named(dtype))
    y = narrowed(x, dtype)
    nan = np.isnan(x)
    np.testing.assert_array_equal(np.isnan(y.astype(np.float32)), nan)
    np.testing.assert_array_equal(bits(y)[~nan], bits(wanted)[~nan])


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("float16", 8), ("bfloat16", 8)])
def test_packs_move_all(dtype: str, width: int) -> None:
    x = np.arange(64).astype(dtype_named(dtype))
    y = np.zeros_like(x)
    kernel = f"moved<{TYPES.get(dtype, 'float')}, {width}>"
    launch(SOURCE, kernel, (1,), (64,), x, y, np.int32(64))
    np.testing.assert_array_equal(bits(x), bits(y))
