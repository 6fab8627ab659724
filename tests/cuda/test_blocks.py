"""What blocks do together, for every number of warps and blocks and several orders."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda.emulated import launch
from tests.cupy_standin import thread_order

ORDERS = range(5)
SOURCE = """
__global__ void __launch_bounds__(1024) sums(const float* x, float* y, double* z) {
    const int i = threadIdx.x;
    y[i] = block_sum(x[i]) + block_sum(2 * x[i]);
    z[i] = block_sum(static_cast<double>(x[i]));
}

__global__ void __launch_bounds__(1024) maxima(const float* x, float* y) {
    y[threadIdx.x] = warp_max(x[threadIdx.x]);
}

// Each block leaves a number; the last one adds them up, in their order.
__global__ void __launch_bounds__(64) ticketed(float* parts, u32* ticket, float* sum, int* last) {
    if (threadIdx.x == 0) parts[blockIdx.x] = 1.0f / (blockIdx.x + 1);
    if (!last_of(ticket, gridDim.x)) return;
    if (threadIdx.x) return;
    float total = 0;
    for (int b = 0; b < gridDim.x; ++b) total += parts[b];
    *sum = total;
    atomicAdd(last, 1);
}
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("warps", [1, 2, 7, 31, 32])
def test_sums(order: int, warps: int) -> None:
    n = warps * 32
    x = np.random.default_rng(n).integers(-99, 99, n).astype(np.float32)
    y, z = np.zeros(n, np.float32), np.zeros(n)
    with thread_order(order):
        launch(SOURCE, "sums", (1,), (n,), x, y, z)
    assert (y == 3 * x.sum()).all()  # of whole numbers, so exact
    assert (z == x.sum()).all()


@pytest.mark.parametrize("order", ORDERS)
def test_maxima(order: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    x[1, 5], x[2, 0] = np.nan, np.inf
    y = np.zeros_like(x)
    with thread_order(order):
        launch(SOURCE, "maxima", (1,), (96,), x, y)
    np.testing.assert_array_equal(y, np.repeat(x.max(axis=1, keepdims=True), 32, axis=1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blocks", [1, 2, 33])
def test_the_last_block(order: int, blocks: int) -> None:
    """One alone finds itself to be it, every time, and its sum has the same bits in any order."""
    ticket, last = np.zeros(1, np.uint32), np.zeros(1, np.int32)
    wanted = np.cumsum(1 / np.arange(1, blocks + 1, dtype=np.float32), dtype=np.float32)[-1]
    for round in range(1, 4):
        parts, total = np.full((2, blocks), np.nan, np.float32)
        with thread_order(order):
            launch(SOURCE, "ticketed", (blocks,), (64,), parts, ticket, total[:1], last)
        assert (last[0], ticket[0]) == (round, 0)
        assert total[0] == wanted
