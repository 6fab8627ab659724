"""What CUDA refuses is the library's error, and says what to do; memory is asked for twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends import current_gpu, uploads
from tinygrad_bn.backends.cuda_kernels import compilation

import tinygrad_bn as tg
from tests.cupy_standin import gpus, memory, other_machine
from tests.cupy_standin.streams import capturing
from tests.two_backends import GPU, only_stand_in
from tinygrad_bn import nn
from tinygrad_bn.backend import get_backend
from tinygrad_bn.errors import BackendError, OutOfMemoryError

pytestmark = only_stand_in
cupy: Any = uploads.cupy
ROOM, KEPT = 512, 1 << 30
"""Bytes that are free, fewer than a tensor of the tests has; and those that the pool keeps."""


@pytest.fixture
def few() -> Iterator[tg.Tensor]:
    """A tensor of 4 kB on a GPU that has no room for another."""
    x = tg.arange(1000, device="cuda", dtype=tg.float32)
    with other_machine(free_memory=ROOM, free_pinned=ROOM):
        yield x


@pytest.fixture
def kept(few: tg.Tensor) -> Iterator[tg.Tensor]:
    """The same, where CuPy's pools keep enough that nobody uses."""
    memory.pool.kept[0] = memory.pinned_pool.kept = KEPT
    yield few
    memory.pool.kept.clear()
    memory.pinned_pool.kept = 0


HOST = np.ones(1000, np.float32)
TAKING = {
    "a word": lambda x: tg.exp(x),
    "an operator": lambda x: x + 1,
    "a kernel": lambda x: nn.functional.relu(x),
    "a product": lambda x: x[:50, None] @ x[None, :50],
    "an upload": lambda x: tg.tensor(HOST, device="cuda"),
    "new": lambda x: tg.zeros(1000, device="cuda"),
    "random": lambda x: tg.randn(1000, device="cuda"),
    "a copy": lambda x: x.clone(),
    "pinned": lambda x: tg.tensor(HOST).pin_memory(),
}


@pytest.mark.parametrize("what", TAKING)
def test_memory_that_cupy_keeps_is_given_back(what: str, kept: tg.Tensor) -> None:
    y = TAKING[what](kept)
    assert y.numel() in (1000, 2500)
    assert not memory.pool.kept[0]
    assert not memory.pinned_pool.kept


@pytest.mark.parametrize("what", TAKING)
def test_where_there_is_none_it_is_told(what: str, few: tg.Tensor) -> None:
    with pytest.raises(OutOfMemoryError, match=r"expected (more )?memory on cuda:0.*found none"):
        TAKING[what](few)
    assert cupy.cuda.runtime.getDevice() == 0
    with other_machine(free_memory=KEPT):
        assert few.sum().item() == 499500


def test_the_error_says_what_to_do_and_is_one_of_memory(few: tg.Tensor) -> None:
    with pytest.raises(MemoryError) as caught:
        tg.exp(few)
    assert isinstance(caught.value, BackendError)
    assert isinstance(caught.value.__cause__, memory.OutOfMemoryError)
    assert "free tensors, take smaller batches" in str(caught.value)


def test_nothing_has_changed(few: tg.Tensor) -> None:
    with pytest.raises(OutOfMemoryError):
        few.copy_(few + 1)
    norm = nn.BatchNorm1d(50).to("cuda")
    before = {name: value.tolist() for name, value in norm.state_dict().items()}
    with pytest.raises(OutOfMemoryError):
        norm(few.reshape(20, 50))
    with other_machine(free_memory=KEPT):
        assert few.tolist() == list(range(1000))
        assert {name: value.tolist() for name, value in norm.state_dict().items()} == before


def test_a_backward_pass_lacks_memory_and_is_made_again() -> None:
    x = tg.ones(1000, device="cuda", requires_grad=True)
    y = x.exp().sum()
    with other_machine(free_memory=ROOM), pytest.raises(OutOfMemoryError):
        y.backward(retain_graph=True)
    assert x.grad is None
    y.backward()
    np.testing.assert_allclose(x.grad.tolist(), np.full(1000, np.e), rtol=1e-6)


def test_only_the_device_that_lacks_it_gives_back(few: tg.Tensor) -> None:
    memory.pool.kept[1] = KEPT
    try:
        with pytest.raises(OutOfMemoryError, match="cuda:0"):
            few.clone()
        assert memory.pool.kept[1] == KEPT
        assert tg.zeros(1000, device="cuda:1").device == "cuda:1"
        assert not memory.pool.kept[1]
    finally:
        memory.pool.kept.clear()


def test_an_allocator_of_somebody_elses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def take(size: int) -> Any:
        asked.append(size)
        raise MemoryError("none here")

    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(take)
    try:
        current_gpu.be_patient()
        assert cupy.cuda.get_allocator() is take
        with other_machine(free_memory=ROOM), pytest.raises(OutOfMemoryError, match="none here"):
            tg.zeros(1000, device="cuda")
        assert asked == [4000]
    finally:
        cupy.cuda.set_allocator(before)


def test_a_pool_asks_twice_however_many_backends_there_are() -> None:
    allocator = cupy.cuda.get_allocator()
    assert isinstance(allocator, current_gpu.Patient)
    current_gpu.be_patient()
    assert cupy.cuda.get_allocator() is allocator


def test_a_user_may_empty_the_cache() -> None:
    memory.pool.kept.update({0: KEPT, 1: KEPT})
    try:
        with other_machine(free_memory=ROOM):
            tg.cuda.empty_cache()
            assert memory.pool.kept == {1: KEPT}
            assert tg.zeros(1000, device="cuda").sum().item() == 0
        with other_machine(devices=0):
            tg.cuda.empty_cache()
        assert issubclass(tg.cuda.OutOfMemoryError, MemoryError)
    finally:
        memory.pool.kept.clear()


def test_nothing_is_given_back_in_a_capture() -> None:
    emptied = memory.pool.emptied
    with GPU.guard, capturing():  # type: ignore[union-attr]
        assert not current_gpu.give_back()
    assert memory.pool.emptied == emptied


def test_numpys_lack_of_memory_is_not_the_gpus() -> None:
    with pytest.raises(MemoryError) as caught, GPU.guard:  # type: ignore[union-attr]
        np.empty(1 << 60, np.uint8)
    assert not isinstance(caught.value, BackendError)


class Flaky:
    """A kernel that the driver has no memory for, so many times."""

    def __init__(self, times: int, status: int = gpus.MEMORY_ALLOCATION) -> None:
        self.times, self.status, self.runs = times, status, 0

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if self.times:
            self.times -= 1
            raise gpus.CUDADriverError(self.status)
        self.runs += 1


class TestKernels:
    @staticmethod
    def launched(kernel: Any) -> None:
        source = compilation.Source("dense.cu", ["relu<float>"])
        source._compiled["relu<float>", 0] = kernel
        with GPU.guard:  # type: ignore[union-attr]
            source.launch("relu<float>", (1,), (1,), ())

    def test_a_launch_that_lacks_memory_is_made_again(self) -> None:
        emptied, kernel = memory.pool.emptied, Flaky(1)
        self.launched(kernel)
        assert (kernel.runs, memory.pool.emptied) == (1, emptied + 1)
        with pytest.raises(OutOfMemoryError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            self.launched(Flaky(2))

    def test_a_launch_that_fails_otherwise_is_not(self) -> None:
        kernel = Flaky(1, 701)
        with pytest.raises(BackendError, match="CUDA failed on cuda:0: CUDA_ERROR_701"):
            self.launched(kernel)
        assert kernel.runs == 0

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_module_that_lacks_memory_is_loaded_again(
        self, times: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = Flaky(times)

        class Module(cupy.RawModule):  # type: ignore[misc, name-defined]
            def get_function(self, name: str) -> Any:
                load()
                return Flaky(0)

        monkeypatch.setattr(cupy, "RawModule", Module)
        source = compilation.Source("dense.cu", ["relu<float>"])
        with GPU.guard:  # type: ignore[union-attr]
            if times == 1:
                source.launch("relu<float>", (1,), (1,), ())
                return
        with pytest.raises(OutOfMemoryError), GPU.guard:  # type: ignore[union-attr]
            source.launch("relu<float>", (1,), (1,), ())

    def test_kernels_of_cupys_own_that_do_not_compile(self) -> None:
        message = r"no kernel of CuPy's: no NVRTC; install.*cuda13"
        with pytest.raises(BackendError, match=message), GPU.guard:  # type: ignore[union-attr]
            raise cupy.cuda.compiler.CompileException("no NVRTC\nand more")


class TestDevices:
    def test_a_device_that_is_gone(self) -> None:
        second = get_backend("cupy", 1)
        with (
            other_machine(devices=1),
            pytest.raises(BackendError, match=r"failed on cuda:1: cudaErrorInvalidDevice"),
        ):
            second.asarray([1.0])
        assert cupy.cuda.runtime.getDevice() == 0
        assert second.asarray([1.0]).device.id == 1

    def test_after_an_error_that_ruins_the_process_it_is_said(self) -> None:
        x = tg.ones(3, device="cuda")
        with (
            other_machine(status=gpus.ILLEGAL_ADDRESS),
            pytest.raises(BackendError, match=r"IllegalAddress.*start the process anew"),
        ):
            x.exp()

    def test_and_where_the_device_before_cannot_come_back(self) -> None:
        guard: Any = get_backend("cupy", 1).guard
        guard.__enter__()
        with (
            other_machine(status=gpus.ILLEGAL_ADDRESS),
            pytest.raises(BackendError, match="start the process anew"),
        ):
            guard.__exit__(None, None, None)
        gpus.set_device(0)

    def test_errors_of_captures_are_left_to_who_captures(self) -> None:
        with pytest.raises(gpus.CUDARuntimeError), GPU.guard:  # type: ignore[union-attr]
            raise gpus.CUDARuntimeError(900)

    def test_other_errors_pass_and_the_device_comes_back(self) -> None:
        second = get_backend("cupy", 1)
        with pytest.raises(KeyError), second.guard:  # type: ignore[union-attr]
            raise KeyError("x")
        assert cupy.cuda.runtime.getDevice() == 0
