"""How sources become kernels, and what is said where they do not."""

from __future__ import annotations

import importlib
import pkgutil
import re
import threading
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels import FAMILIES, Kernels, compilation

from tests import cupy_standin
from tests.cupy_standin.streams import capturing
from tests.two_backends import GPU, only_stand_in
from tinygrad_bn import amp, ops, optim
from tinygrad_bn.backend import KERNEL_POINTS, get_backend
from tinygrad_bn.errors import BackendError

from .sources import sources

FILL = """
#include "blocks.cuh"
#include "numbers.cuh"

template <class T> __global__ void __launch_bounds__(64) fill(T* y, int n, float value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = stored<T>(value);
}
"""


@pytest.fixture
def source(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A source of three kernels, of which one is no C++."""
    for header in compilation.HERE.glob("*.cuh"):
        (tmp_path / header.name).write_text(header.read_text())
    (tmp_path / "fill.cu").write_text(FILL)
    monkeypatch.setattr(compilation, "HERE", tmp_path)
    compilation.expanded.cache_clear()
    yield compilation.Source("fill.cu", ["fill<float>", "fill<f16>", "fill<no_type>"])
    compilation.expanded.cache_clear()


def filled(source: Any, backend: Any = GPU, kernel: str = "fill<float>") -> Any:
    with backend.guard:
        y = backend.xp.zeros((100,), dtype=np.float32)
        args = (y, compilation.i32(100), compilation.f32(1.5))
        source.launch(kernel, (2,), (64,), args)
    return backend.to_numpy(y)


def test_headers_stand_in_the_source_once(source: Any) -> None:
    text = source.text
    assert "#include" not in text
    assert text.count("struct f16 {") == 1
    # the line that follows the second include is the source's fourth
    assert '#line 4 "fill.cu"\n\ntemplate' in text


def test_a_kernel_runs_on_every_device(source: Any) -> None:
    for backend in (GPU, get_backend("cupy", 1)) if cupy_standin.is_installed() else (GPU,):
        np.testing.assert_array_equal(filled(source, backend), np.full(100, 1.5))


def test_threads_may_want_a_kernel_at_once(source: Any) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(filled(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all((y == 1.5).all() for y in found)


def test_what_does_not_compile_is_told(source: Any) -> None:
    with pytest.raises(BackendError) as caught:
        filled(source, kernel="fill<no_type>")
    for words in ("cuda:0", "compute capability", "fill<no_type> of fill.cu", "cuda13", "without"):
        assert words in str(caught.value)


def test_what_was_not_declared_is_not_launched(source: Any) -> None:
    with pytest.raises(AssertionError, match="declares no fill<double>"):
        filled(source, kernel="fill<double>")


@only_stand_in
def test_the_lack_of_a_compiler_is_told(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    class WithoutNvrtc(cupy.RawModule):  # type: ignore[misc, name-defined]
        def compile(self, log_stream: Any = None) -> None:
            raise RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: no such file")

    monkeypatch.setattr(cupy, "RawModule", WithoutNvrtc)
    with pytest.raises(BackendError, match=r"libnvrtc.*install tinygrad-bn\[cuda13\]"):
        filled(source)


class TestTickets:
    def test_are_at_zero_and_enough(self) -> None:
        with GPU.guard:
            for count in (1, 1024, 1025, 5000):
                tickets = compilation.tickets(count)
                assert tickets.size >= count
                assert not GPU.to_numpy(tickets).any()
            assert compilation.tickets(3) is compilation.tickets(1000)

    @only_stand_in
    def test_a_stream_has_its_own(self) -> None:
        import cupy

        with GPU.guard:
            usual = compilation.tickets(1)
            with cupy.cuda.Stream():
                other = compilation.tickets(1)
                assert compilation.tickets(1) is other
            assert other is not usual

    @only_stand_in
    def test_a_thread_has_its_own_in_the_stream_that_each_thread_has(self) -> None:
        import cupy

        found = []

        def take() -> None:
            with GPU.guard, cupy.cuda.Stream.ptds:
                found.append(compilation.tickets(1))

        take()
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        take()
        assert found[2] is found[0]
        assert found[1] is not found[0]

    @only_stand_in
    def test_what_is_captured_has_its_own(self) -> None:
        with GPU.guard, capturing():
            first, second = compilation.tickets(3), compilation.tickets(3)
            assert first is not second
            assert first.size == 3

    @only_stand_in
    def test_a_device_has_its_own(self) -> None:
        second = get_backend("cupy", 1)
        with GPU.guard, second.guard:
            assert compilation.tickets(1).device.id == 1


def test_vectors_where_all_is_aligned() -> None:
    with GPU.guard:
        x = GPU.xp.zeros((64,), dtype=np.float32)
        half = GPU.xp.zeros((64,), dtype=np.float16)
        assert compilation.vector_width(x, along=64) == 4
        assert compilation.vector_width(half, half, along=64) == 8
        assert compilation.vector_width(x, along=62) == 1
        assert compilation.vector_width(half, along=4) == 1
        assert compilation.vector_width(x, x[1:], along=4) == 1
        assert compilation.vector_width(x[4:], along=4) == 4


class TestFamilies:
    def test_every_kernel_is_one_of_a_kernel_point(self) -> None:
        for package in (amp, ops, optim):  # which declare them
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
        kernels = Kernels()
        for name in FAMILIES:
            assert name in KERNEL_POINTS
            assert kernels.get(name) is not None, name
        assert kernels.get("no_such_point") is None

    def test_every_kernel_says_how_many_threads_it_takes(self) -> None:
        """Without launch bounds the compiler may use more registers than a block has."""
        for name, source in sources().items():
            kernels = re.findall(r"__global__(?!.*\\$)", source.text)
            bounds = re.findall(r"__global__ void __launch_bounds__\(", source.text)
            assert len(kernels) == len(bounds), name
