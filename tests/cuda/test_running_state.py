"""Running statistics and counts, moved on where they lie by one launch each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cupy_standin import count_launches, count_traffic, thread_order
from tests.cupy_standin import cublaslt as stand_in
from tests.two_backends import CPU, GPU, only_stand_in
from tinygrad_bn import nn
from tinygrad_bn.ops.counting import one_more
from tinygrad_bn.ops.moments import moving_moments


def statistics(channels: int, dtype: str) -> tuple[Any, ...]:
    """Running mean and variance, and those of a batch, of which one is tiny."""
    rng = np.random.default_rng(channels)
    running = rng.standard_normal(channels).astype(dtype), rng.random(channels).astype(dtype)
    return *running, rng.standard_normal(channels), 1e-12 * rng.random(channels)


@pytest.mark.parametrize("channels", [1, 255, 256, 257])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.1, 1.0, np.array(0.25)], ids=str)
def test_moments_move_where_they_lie(channels: int, dtype: str, rate: Any) -> None:
    """Three roundings of float64, and one to the dtype of the buffers; terms of a mean, which are
    below 4, may cancel, and those of a variance do not.
    """
    mean, var, *batch = statistics(channels, dtype)
    want = moving_moments.reference(CPU, mean, var, *batch, rate, 67 / 66)
    found = GPU.kernels.get("moving_moments")
    assert found is not None
    there = [GPU.asarray(x) for x in (mean, var, *batch)]
    there.append(GPU.asarray(rate) if isinstance(rate, np.ndarray) else rate)
    with GPU.guard, thread_order(channels % 3), count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*there, 67 / 66)
        moved = found.run(*there, 67 / 66)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    assert moved[0] is there[0]
    assert moved[1] is there[1]
    rtol = 4e-16 if dtype == "float64" else 2**-23
    for got, value, largest in zip(moved, want, (4, 0), strict=True):
        host = GPU.to_numpy(got)
        assert host.dtype == dtype
        np.testing.assert_allclose(host, value, rtol=rtol, atol=rtol * largest)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_counts_count_where_they_lie(dtype: str) -> None:
    found = GPU.kernels.get("one_more")
    assert found is not None
    for value in (0, 7, 2**40):
        count = GPU.asarray(np.array(value, dtype))
        (want,) = one_more.reference(CPU, np.array(value, dtype))
        with GPU.guard:  # type: ignore[union-attr]
            assert found.accepts(count)
            (got,) = found.run(count)
        assert got is count
        assert GPU.to_numpy(got).item() == want


def test_what_is_left_to_the_bodies() -> None:
    moments, count = GPU.kernels.get("moving_moments"), GPU.kernels.get("one_more")
    assert moments is not None
    assert count is not None
    mean, var, *batch = (GPU.asarray(x) for x in statistics(6, "float32"))
    assert moments.accepts(mean, var, *batch, 0.1, 1.0)
    for args in (
        (mean.astype(np.float16), var.astype(np.float16), *batch),
        (mean, var.astype(np.float64), *batch),
        (mean[::2], var[::2], batch[0][:3], batch[1][:3]),
        (mean, var, batch[0].astype(np.float32), batch[1]),
        (mean[:0], var[:0], batch[0][:0], batch[1][:0]),
    ):
        assert not moments.accepts(*args, 0.1, 1.0)
    assert not count.accepts(GPU.asarray(np.zeros(2)))
    assert not count.accepts(GPU.asarray(np.array(0, np.int32)))


def test_a_graph_that_needs_the_statistics_before_sees_that_they_moved(cuda: str) -> None:
    """As on the CPU: what a forward by running statistics kept is a copy, and stays."""
    norm = nn.BatchNorm1d(3).to(cuda)
    x = tg.randn(8, 3, device=cuda).requires_grad_()
    norm(x)
    y = norm.eval()(x)
    want = (1 / (norm.running_var + norm.eps).sqrt()).tolist()
    norm.train()(x)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.cpu().numpy()[0], want, rtol=1e-6)
    assert norm.num_batches_tracked.item() == 2


@only_stand_in
class TestLaunches:
    """How often a training step gives the device something to do."""

    @staticmethod
    def of_a_step(device: str) -> tuple[int, int]:
        tg.manual_seed(0)
        blocks = (
            nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        net = nn.Sequential(*blocks).to(device)
        optimizer = tg.optim.Adam(net.parameters())
        x, y = tg.randn(64, 20, device=device), tg.randint(0, 10, (64,), device=device)
        for _ in range(2):
            with count_launches() as launches, stand_in.count_calls() as calls:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
        return launches.count, calls["Matmul"]

    def test_a_step_has_few(self, cuda: str) -> None:
        """Of each norm, a forward, a backward, its statistics and its count, and two gradients in
        float32; of the loss, three and the gradient that begins; two of Adam; and ten gradients
        are brought to the optimizer's buffer.
        """
        assert self.of_a_step(cuda) == (2 * 6 + 4 + 2 + 10, 8)

    def test_views_and_empty_arrays_are_none(self) -> None:
        x = GPU.asarray(np.ones((4, 6), np.float32))
        with GPU.guard, count_launches() as launches:  # type: ignore[union-attr]
            GPU.xp.reshape(GPU.xp.transpose(x[1:], (1, 0)), (6, 3))
            GPU.xp.broadcast_to(x, (2, 4, 6))
        assert launches.count == 0
        with GPU.guard, count_launches() as launches:  # type: ignore[union-attr]
            x + x
            GPU.xp.sum(x)
            x[0] = 1
            GPU.copy(x)
        assert launches.count == 4
