"""Every kernel compiles for every kind of GPU, and fits there: no spills, registers for a block.

Without CI set, for the oldest, the newest, and one between.
"""

from __future__ import annotations

import importlib.util
import os
import re

import pytest
from tinygrad_bn.backends.cuda_kernels.compilation import OPTIONS, expanded

from tests.cuda.nvrtc import load, usage
from tests.cuda.sources import sources
from tests.cupy_standin.emulator.building import BOUNDS

EVERY = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ARCHITECTURES = EVERY if os.environ.get("CI") else ("sm_75", "sm_90", "sm_120")
REGISTERS, SHARED = 64 << 10, 48 << 10
SOURCES = sources()


def most_threads(text: str) -> dict[str, int]:
    """The launch bound of each kernel: a number, or the name of one."""
    numbers = dict(re.findall(r"^constexpr int (\w+) = (\d+);", text, re.MULTILINE))
    return {name: int(numbers.get(bound, bound)) for bound, name in BOUNDS.findall(text)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", SOURCES)
def test_kernels_fit(file: str, architecture: str) -> None:
    source = SOURCES[file]
    bounds = most_threads(source.text)
    found = usage(source.text, source.kernels, OPTIONS, architecture)
    assert set(found) == set(source.kernels)
    for kernel, used in found.items():
        threads = bounds[kernel.partition("<")[0]]
        assert (used.spilled, used.stack) == (0, 0), kernel
        assert used.registers * threads <= REGISTERS, kernel
        assert used.shared <= SHARED, kernel


def test_what_is_wrong_is_seen() -> None:
    """That the figures above are read at all: of a kernel that spills, and of no C++."""
    spills = """
        template <int N> __global__ void __launch_bounds__(1024) many(float* x, int n) {
            float a[N];
            __shared__ float tile[256];
            tile[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            for (int i = 0; i < N; ++i) a[i] = x[i * n] * tile[i];
            for (int j = 0; j < n; ++j)
                for (int i = 0; i < N; ++i) a[i] = a[i] * a[(i + 7) % N] + x[j];
            for (int i = 0; i < N; ++i) x[i * n] = a[i];
        }"""
    used = usage(spills, ["many<200>"], OPTIONS, "sm_90")["many<200>"]
    assert used.spilled > 0
    assert used.shared == 1024
    with pytest.raises(ValueError, match="expected a"):
        usage("__global__ void none(float* x) { x[0] = 1 }", ["none"], OPTIONS, "sm_90")


def test_headers_need_no_others() -> None:
    """That NVRTC compiles them without a path to CUDA's own."""
    load()
    for header in ("numbers.cuh", "blocks.cuh"):
        assert "#include" not in expanded(header)


def test_without_nvrtc_tests_are_skipped_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for variable, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", variable)
        with pytest.raises(outcome, match="pip install nvidia-cuda-nvrtc"):
            load.__wrapped__()
