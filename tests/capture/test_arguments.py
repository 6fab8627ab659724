"""Arguments in unusual memory: what eager would refuse or copy first."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, CaptureError

gelu, elu = nn.functional.gelu, nn.functional.elu


def add_one(x: tg.Tensor) -> tg.Tensor:
    return x.add_(1.0) * 1


def misaligned(values: Any) -> Any:
    """The values one byte behind where they should begin."""
    raw = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype)
    raw[:] = values
    assert not raw.flags.aligned
    return raw


def test_read_only_memory_is_not_written_to() -> None:
    compiled = tg.compile(add_one)
    compiled(tg.zeros(4))
    x = np.zeros(4, np.float32)
    x.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        compiled(tg.from_numpy(x))
    assert not x.any()


def test_misaligned_memory_is_written_to() -> None:
    compiled = tg.compile(add_one)
    x = misaligned(np.zeros(4, np.float32))
    for calls in (1, 2, 3):
        compiled(tg.from_numpy(x))
        assert x.tolist() == [calls] * 4


@pytest.mark.parametrize("stored", [lambda x: x, lambda x: tg.exp(-x) + x], ids=["x", "made"])
def test_arguments_that_share_memory_with_written_state_are_refused(stored: Any) -> None:
    memory = np.arange(6, dtype=np.float32)
    state, x = tg.from_numpy(memory[1:]), tg.from_numpy(memory[:-1])

    def step(x: tg.Tensor) -> tg.Tensor:
        state.copy_(stored(x))
        return x * 1

    compiled = tg.compile(step)
    compiled(tg.ones(5))
    memory[:] = np.arange(6)
    with pytest.raises(CaptureError, match="shares it with"):
        compiled(x)
    assert memory.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["read-only", "misaligned"])
def test_results_do_not_depend_on_how_values_lie(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    x = misaligned(values) if kind == "misaligned" else values.copy()
    x.flags.writeable = kind == "misaligned"
    compiled = tg.compile(lambda x: gelu(x))
    compiled(tg.tensor(values))
    for _ in range(2):
        got, wanted = compiled(tg.from_numpy(x)), gelu(tg.from_numpy(x))
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())


def test_a_single_number_goes_through_the_kernels_that_eager_takes() -> None:
    p = nn.Parameter(np.float32(0.3))

    def step(x: tg.Tensor) -> Any:
        p.grad = None
        (gelu(p + x) * 1).backward()
        return p.grad

    compiled = tg.compile(step)
    for x in np.random.default_rng(1).standard_normal(40).astype(np.float32):
        assert compiled(tg.tensor(x)).item() == step(tg.tensor(x)).item()


def test_gradients_of_another_layout() -> None:
    """NumPy reuses the memory, and so the layout, of what nobody else holds."""
    q, w = nn.Parameter(np.zeros((4, 1, 1), np.float32)), tg.randn(4, 64, 17, 17)

    def step(x: tg.Tensor) -> Any:
        q.grad = None
        (elu(x + q).transpose(0, 1) * w).sum().backward()
        return q.grad

    compiled, x = tg.compile(step), tg.randn(64, 4, 17, 17)
    compiled(x)
    np.testing.assert_array_equal(compiled(x).numpy(), step(x).numpy())


def trained(threads: int, calls: int) -> Any:
    """The weights after a call and so many more in each thread."""
    tg.manual_seed(0)
    model = nn.Linear(64, 64)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    @tg.compile
    def step(x: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x = tg.ones(8, 64)
    step(x)
    workers = [
        threading.Thread(target=lambda: [step(x) for _ in range(calls)]) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return model.weight.detach().numpy()


def test_threads_that_trace_and_replay_one_step_take_turns() -> None:
    wanted = trained(1, 60)
    for _ in range(5):
        np.testing.assert_array_equal(trained(3, 20), wanted)
