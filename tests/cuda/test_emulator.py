"""What the emulator finds: each planted bug, and nothing in a kernel without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda.emulated import launch
from tests.cupy_standin import KernelFault, count_traffic, other_machine, thread_order
from tests.cupy_standin.emulator import building, launching
from tests.two_backends import only_stand_in

ORDERS = range(6)


def reverse(barrier: str = "__syncthreads();") -> str:
    return f"""
        __global__ void __launch_bounds__(256) reverse(const float* x, float* y) {{
            __shared__ float tile[256];
            tile[threadIdx.x] = x[threadIdx.x];
            {barrier}
            y[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
        }}"""


def simple(body: str, parameters: str = "float* x, int n") -> str:
    return f"__global__ void __launch_bounds__(256) simple({parameters}) {{ {body} }}"


def run(body: str, n: int = 100, threads: int = 128, blocks: int = 1) -> Any:
    """x after a kernel of that body, of which thread i of all is ``i``; x is all ones before."""
    x = np.ones(n, np.float32)
    source = simple("const int i = blockIdx.x * blockDim.x + threadIdx.x;" + body)
    launch(source, "simple", (blocks,), (threads,), x, np.int32(n))
    return x


class TestWithoutABug:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("threads", [1, 31, 32, 33, 255, 256])
    def test_a_block_shares_memory(self, order: int, threads: int) -> None:
        x, y = np.arange(threads, dtype=np.float32), np.full(threads, np.nan, np.float32)
        with thread_order(order):
            launch(reverse(), "reverse", (1,), (threads,), x, y)
        np.testing.assert_array_equal(y, x[::-1])

    @pytest.mark.parametrize("order", ORDERS)
    def test_indices_of_threads_and_blocks(self, order: int) -> None:
        source = simple(
            """int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
            int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            x[b * n + t] = b * 1000 + t;"""
        )
        x = np.zeros((2 * 3 * 4, 5 * 3 * 2), np.float32)
        with thread_order(order):
            launch(source, "simple", (2, 3, 4), (5, 3, 2), x, np.int32(30))
        np.testing.assert_array_equal(x, np.arange(24)[:, None] * 1000 + np.arange(30))

    @pytest.mark.parametrize("order", ORDERS)
    def test_some_threads_may_end_early(self, order: int) -> None:
        with thread_order(order):
            x = run("if (i >= n) return; __syncthreads(); x[i] = i;", n=70)
        np.testing.assert_array_equal(x, np.arange(70))

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("__shfl_sync(~0u, i, 5)", lambda i: i // 32 * 32 + 5),
            ("__shfl_sync(~0u, i, 5, 8)", lambda i: i // 8 * 8 + 5),
            ("__shfl_xor_sync(~0u, i, 3)", lambda i: i ^ 3),
            ("__shfl_xor_sync(~0u, i, 16, 16)", lambda i: np.where(i % 32 < 16, i, i - 16)),
            ("__shfl_down_sync(~0u, i, 1)", lambda i: i + (i % 32 < 31)),
            ("__shfl_down_sync(~0u, i, 4, 8)", lambda i: i + 4 * (i % 8 < 4)),
            ("__shfl_up_sync(~0u, i, 2)", lambda i: i - 2 * (i % 32 >= 2)),
            ("__popc(__ballot_sync(~0u, i % 5 == 0))", lambda i: np.where(i < 32, 7, 6)),
            ("__any_sync(~0u, i == 40)", lambda i: i // 32 == 1),
            ("__all_sync(~0u, i != 40)", lambda i: i // 32 != 1),
        ],
    )
    def test_lanes_exchange(self, order: int, expression: str, expected: Any) -> None:
        with thread_order(order):
            x = run(f"x[i] = {expression};", n=64, threads=64)
        np.testing.assert_array_equal(x, expected(np.arange(64)))

    def test_half_a_warp_may_exchange(self) -> None:
        x = run("if (i < 16) x[i] = __shfl_xor_sync(0xffffu, i, 1);", n=32, threads=32)
        np.testing.assert_array_equal(x[:16], np.arange(16) ^ 1)

    def test_products_are_fused_unless_the_source_says_otherwise(self) -> None:
        """a² - b is then what rounding a² to b has lost."""
        if "-ffp-contract=off" in building.arithmetic():
            pytest.skip("this processor has no fused multiplication and addition")
        a = np.float32(1 + 2**-12)
        b = a * a
        lost = np.float32(np.float64(a) ** 2 - b)
        for expression, expected in (
            ("a * a - b", lost),
            ("fmaf(a, a, -b)", lost),
            ("__fmul_rn(a, a) - b", 0),
            ("__fadd_rn(a * a, -b)", 0),
        ):
            x = np.zeros(1, np.float32)
            source = simple(f"*x = {expression};", "float* x, float a, float b")
            launch(source, "simple", (1,), (1,), x, a, b)
            assert x[0] == expected

    def test_atomics_of_integers(self) -> None:
        source = simple(
            "unsigned k = atomicInc(counter, 9); atomicAdd(counter + 1, 1u);"
            "atomicMax(counter + 2, threadIdx.x); if (k == 9) atomicAdd(counter + 3, 1u);",
            "unsigned* counter",
        )
        counter = np.zeros(4, np.uint32)
        launch(source, "simple", (3,), (20,), counter)
        np.testing.assert_array_equal(counter, [0, 60, 19, 6])

    def test_arrays_may_overlap(self) -> None:
        x = np.arange(8, dtype=np.float32)
        source = simple("y[threadIdx.x] += x[threadIdx.x];", "const float* x, float* y")
        launch(source, "simple", (1,), (4,), x[1:5], x[3:7])
        np.testing.assert_array_equal(x, [0, 1, 2, 3 + 1, 4 + 2, 5 + 4, 6 + 6, 7])

    def test_nothing_is_counted_as_waiting(self) -> None:
        with count_traffic() as seen:
            run("if (i < n) x[i] = i;")
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)


class TestBugs:
    def test_a_barrier_is_missing(self) -> None:
        """Some order shows it; what is read too early is NaN."""
        x = np.arange(256, dtype=np.float32)
        wrong = 0
        for order in ORDERS:
            y = np.zeros_like(x)
            with thread_order(order):
                launch(reverse(""), "reverse", (1,), (256,), x, y)
            wrong += bool(np.isnan(y).any())
        assert wrong >= len(ORDERS) - 1

    def test_shared_memory_is_read_before_it_is_written(self) -> None:
        assert np.isnan(run("__shared__ float s[128]; if (i < n) x[i] = s[i];")).all()
        source = simple("x[threadIdx.x] = dynamic_shared<float>()[threadIdx.x];")
        x = np.ones(8, np.float32)
        launch(source, "simple", (1,), (8,), x, np.int32(8), shared=32)
        assert np.isnan(x).all()
        with pytest.raises(KernelFault, match="where no array is"):
            launch(source, "simple", (1,), (8,), x, np.int32(8), shared=16)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("x[i] = 0;", r"argument 0 \(float32 \(100,\)\)"),
            ("if (i < n) x[i - 1] = 0;", r"writes outside of argument 0"),
            ("if (i == 0) x[n + 2] = 0;", "outside of argument 0"),
            ("if (i == 0) x[0] = x[n + 20];", "reads or writes outside of argument 0"),
            ("if (i == 0) x[1LL << 44] = 0;", "where no array is"),
            ("if (i == 0) *(float*)nullptr = 0;", "where no array is"),
            ("if (i < 32) { __syncthreads(); }\nelse { __syncthreads(); }", "two barriers"),
            ("if (i < 16) __syncwarp();", "has ended|for its warp"),
            ("if (i < 16) __syncwarp(0xff00u);", "not in the mask"),
            ("if (i < 8) __syncwarp(0xffffu); else if (i < 16) __syncthreads();", "wait for each"),
            ("while (i == 0 && *(volatile float*)x) ;", "computes for longer"),
            ("__shared__ float s[4]; s[i] = 0;", "index outside"),
            ("float2 *p = (float2*)(x + 1); if (i == 0) p->x = 0;", "aligned"),
            ("if (i == 0) x[0] = 7 / (n - 100);", "by zero"),
            ("if (i == 0) x[0] = 2147483600 + n;", "overflow"),
            ("if (i == 0) x[0] = 1 << n;", "shift"),
        ],
    )
    def test_is_found(self, body: str, message: str, monkeypatch: Any) -> None:
        monkeypatch.setattr(launching, "SECONDS", 0.2)
        body = body.replace("float2", "Pair")
        pair = "struct alignas(8) Pair { float x, y; };" if "Pair" in body else ""
        source = pair + simple("const int i = threadIdx.x;" + body)
        x = np.ones(100, np.float32)
        with pytest.raises(KernelFault, match=message):
            launch(source, "simple", (1,), (128,), x, np.int32(100))

    def test_floats_are_added_atomically(self) -> None:
        with pytest.raises(Exception, match=r"atomics are for integers|no matching function"):
            run("atomicAdd(x, 1.0f);")

    def test_the_process_survives(self) -> None:
        """A fault leaves handlers and the next launch as they were."""
        for _ in range(3):
            with pytest.raises(KernelFault):
                run("if (i == 0) x[1LL << 44] = 0;")
            np.testing.assert_array_equal(run("if (i < n) x[i] = i;"), np.arange(100))


class TestArguments:
    source = simple("x[0] = n;", "float* x, int n")

    @pytest.mark.parametrize(
        "args",
        [
            (np.ones(3, np.float64), np.int32(1)),
            (np.ones(3, np.float16), np.int32(1)),
            (np.ones((3, 3), np.float32).T, np.int32(1)),
            (np.ones(3, np.float32), 1),
            (np.ones(3, np.float32), np.int64(1)),
            (np.ones(3, np.float32), np.float32(1)),
            (np.ones(3, np.float32),),
            (np.ones(3, np.float32), np.int32(1), np.int32(1)),
            (None, np.int32(1)),
            (np.float32(1), np.int32(1)),
        ],
        ids=str,
    )
    def test_are_exactly_those_declared(self, args: Any) -> None:
        with pytest.raises(KernelFault, match="expected"):
            launch(self.source, "simple", (1,), (1,), *args)

    @pytest.mark.parametrize(
        ("grid", "block", "shared"),
        [
            ((1,), (257,), 0),
            ((1,), (0,), 0),
            ((0,), (1,), 0),
            ((1, 65536), (1,), 0),
            ((1,), (1, 1, 65), 0),
            ([1], (1,), 0),
            ((1,), (1,), 49 << 10),
        ],
        ids=str,
    )
    def test_sizes_are_those_a_gpu_takes(self, grid: Any, block: Any, shared: int) -> None:
        with pytest.raises(KernelFault):
            launch(
                self.source, "simple", grid, block, np.ones(3, np.float32), np.int32(1),
                shared=shared,
            )  # fmt: skip

    @only_stand_in
    def test_arrays_are_those_of_the_device(self) -> None:
        import cupy

        module = cupy.RawModule(code=self.source, name_expressions=("simple",))
        kernel = module.get_function("simple")
        x = cupy.zeros(3, "float32")
        kernel((1,), (1,), (x, np.int32(5)))
        assert x.get()[0] == 5
        with pytest.raises(TypeError):
            kernel((1,), (1,), (np.zeros(3, np.float32), np.int32(5)))
        with cupy.cuda.Device(1), pytest.raises(ValueError, match="different from the current"):
            kernel((1,), (1,), (x, np.int32(5)))
        with other_machine(status=999), pytest.raises(RuntimeError):
            kernel((1,), (1,), (x, np.int32(5)))


class TestWithoutACompiler:
    """Tests that execute kernels say that they were skipped; where CI is set they fail."""

    @pytest.fixture(autouse=True)
    def absent(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("CXX", "no-such-compiler")
        building.compiler.cache_clear()
        yield
        building.compiler.cache_clear()

    def test_they_are_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match=r"needs g\+\+.*'no-such-compiler'"):
            run("x[0] = 1; // never built")

    def test_they_fail_in_ci(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(RuntimeError, match=r"needs g\+\+"):
            run("x[0] = 1; // never built")
