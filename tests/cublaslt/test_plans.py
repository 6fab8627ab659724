"""What products ask of cuBLASLt: plans, workspaces, streams, captures, devices, and errors."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cublaslt import binding  # type: ignore
from tinygrad_bn.backends.cublaslt import products as engine  # type: ignore
from tinygrad_bn.backends.cublaslt.words import matmul, product  # type: ignore

from tests import cupy_standin
from tests.cublaslt.arrays import BIAS, assert_near, drawn, fresh_products, wide
from tests.cupy_standin import cublaslt as stand_in
from tests.cupy_standin.memory import pool
from tests.cupy_standin.streams import Stream, capturing
from tests.two_backends import GPU, only_stand_in
from tinygrad_bn.backend import get_backend
from tinygrad_bn.errors import BackendError

pytestmark = only_stand_in
cupy: Any = sys.modules["cupy"]


class TestPlans:
    def test_are_made_once(self) -> None:
        a, b = GPU.asarray(drawn(6, 5)), GPU.asarray(drawn(5, 4))
        out = GPU.asarray(drawn(6, 4))
        with fresh_products(), stand_in.count_calls() as calls:
            for _ in range(3):
                product(a, b, out=out)
        assert (calls["MatmulAlgoGetHeuristic"], calls["Matmul"]) == (1, 3)

    def test_that_there_is_none_is_known_too(self) -> None:
        a, b = GPU.asarray(drawn(6, 5)), GPU.asarray(drawn(5, 4))
        out, bias = GPU.asarray(drawn(6, 4)), GPU.asarray(drawn(4))
        with fresh_products(), stand_in.refusing(BIAS), stand_in.count_calls() as calls:
            for _ in range(3):
                product(a, b, bias=bias, out=out)
        assert calls["MatmulAlgoGetHeuristic"] == 2
        assert calls["Matmul"] == 3

    def test_differ_where_a_product_does(self) -> None:
        x = drawn(8, 8)
        a, aligned = GPU.asarray(x), GPU.asarray(drawn(8 * 8 + 64))
        with fresh_products() as known:
            at = -aligned.data.ptr // 4 % 64  # the first element at a multiple of 256 bytes
            for offset in (0, 1):
                b = aligned[at + offset : at + offset + 64].reshape(8, 8)
                product(a, b)
                assert_near(product(b, a), wide(GPU.to_numpy(b)) @ wide(x), 8)
            alignments = {key[-1] for key in known.plans}
        assert 4 in alignments  # an address behind it by one element is so much less aligned
        assert len(alignments) > 1

    def test_are_forgotten_in_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "MOST_PLANS", 4)
        a = GPU.asarray(drawn(20, 20))
        with fresh_products() as known:
            for m in range(1, 11):
                matmul(a[:m], a)
            assert len(known.plans) <= 4
            before = stand_in.descriptions()
            for m in range(11, 21):
                matmul(a[:m], a)
            # each plan has four descriptions, and those of plans that went are gone
            assert stand_in.descriptions() <= before + 4

    def test_nothing_to_do_asks_nothing(self) -> None:
        with stand_in.count_calls() as calls:
            matmul(GPU.asarray(np.ones((0, 3), "f4")), GPU.asarray(np.ones((3, 2), "f4")))
            matmul(GPU.asarray(np.ones((2, 0), "f4")), GPU.asarray(np.ones((0, 2), "f4")))
        assert not +calls

    def test_whole_numbers_are_not_for_cublas(self) -> None:
        x = np.arange(6).reshape(2, 3)
        with stand_in.count_calls() as calls:
            result = GPU.to_numpy(matmul(GPU.asarray(x), GPU.asarray(x.T)))
        np.testing.assert_array_equal(result, x @ x.T)
        assert not +calls


class TestStreams:
    """Work goes to the current stream, and every stream has a workspace of its own."""

    def test_the_current_one_is_used(self) -> None:
        a = GPU.asarray(drawn(5, 5))
        with fresh_products() as known:
            for stream in (Stream.null, Stream(), Stream(non_blocking=True)):
                with stream:  # the library refuses any other
                    assert_near(matmul(a, a), wide(drawn(5, 5)) @ wide(drawn(5, 5)), 5)
            assert len({space.ptr for space in known.workspaces.values()}) == 3

    def test_that_of_each_thread_is_another(self) -> None:
        a = GPU.asarray(drawn(5, 5))

        def work() -> None:
            with Stream.ptds:
                matmul(a, a)

        with fresh_products() as known:
            for _ in range(2):
                work()
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert len(known.workspaces) == 2

    @pytest.mark.parametrize(("generation", "size"), [(7, 4), (8, 4), (9, 32), (12, 32)])
    def test_workspaces_are_as_large_as_the_gpu_likes(self, generation: int, size: int) -> None:
        with cupy_standin.other_machine(generation=generation):
            assert engine.Products(0).workspace_size == size * 2**20

    def test_a_capture_repeats_what_has_run(self) -> None:
        a, out = GPU.asarray(drawn(5, 5)), GPU.asarray(drawn(5, 5))
        stream = Stream(non_blocking=True)
        with fresh_products(), stream:
            product(a, a, out=out)
            stream.begin_capture()
            with stand_in.count_calls() as calls:
                product(a, a, out=out)
            graph = stream.end_capture()
        assert (calls["MatmulAlgoGetHeuristic"], calls["Matmul"]) == (0, 1)
        out.fill(0)
        a.fill(2)
        graph.launch()
        np.testing.assert_array_equal(out.get(), np.full((5, 5), 20))

    def test_products_by_cupy_itself_are_refused_in_one(self) -> None:
        a = GPU.asarray(drawn(5, 5))
        for compute in (lambda: cupy.matmul(a, a), lambda: cupy.einsum("ij,jk->ik", a, a)):
            compute()
            with capturing(), pytest.raises(NotImplementedError, match="cuBLAS"):
                compute()

    def test_a_capture_meets_nothing_new(self) -> None:
        a, out = GPU.asarray(drawn(5, 5)), GPU.asarray(drawn(5, 5))
        message = r"that have run on its stream before, got 1 × \(5, 5\) @ \(5, 5\) of float32"
        with fresh_products():
            with capturing(), pytest.raises(BackendError, match=message):
                product(a, a, out=out)
            product(a, a, out=out)  # now it is planned, but that stream has no workspace
            with capturing(), pytest.raises(BackendError, match=message):
                product(a, a, out=out)


class TestDevices:
    def test_each_has_a_handle(self) -> None:
        second: Any = get_backend("cupy", 1)
        x = drawn(5, 5)
        with second.guard:
            a = second.asarray(x)
            result = second.xp.matmul(a, a)
            assert result.device.id == 1
            np.testing.assert_allclose(second.to_numpy(result), x @ x, rtol=1e-5)
        assert engine.products(0).handle.value != engine.products(1).handle.value

    def test_arrays_must_be_on_the_current_one(self) -> None:
        second: Any = get_backend("cupy", 1)
        x, y = GPU.asarray(drawn(5, 5)), second.asarray(drawn(5, 5))
        with pytest.raises(BackendError, match="current device, cuda:0, got one on cuda:1"):
            matmul(x, y)
        with second.guard, pytest.raises(BackendError, match="cuda:1, got one on cuda:0"):
            matmul(x, x)

    def test_threads_share_one(self) -> None:
        x = [drawn(n + 2, n + 2, seed=n) for n in range(6)]
        wrong: list[Any] = []

        def work() -> None:
            for _ in range(20):
                for host in x:
                    a, bias = GPU.asarray(host), GPU.asarray(host[0])
                    y = GPU.to_numpy(product(a, a, bias=bias))
                    if not np.allclose(y, host @ host + host[0], atol=1e-5):
                        wrong.append(y)

        with fresh_products():
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong


class TestErrors:
    def test_a_status_is_named(self) -> None:
        a = GPU.asarray(drawn(5, 5))
        with stand_in.failing("Matmul", 13), pytest.raises(BackendError) as caught:
            matmul(a, a)
        assert str(caught.value) == (
            "cublasLtMatmul failed with CUBLAS_STATUS_EXECUTION_FAILED (13)"
        )
        matmul(a, a)  # and again it goes

    def test_an_end_that_is_unknown_is_computed_after(self) -> None:
        a, bias = GPU.asarray(drawn(5, 5)), GPU.asarray(drawn(5, seed=1))
        expected = wide(drawn(5, 5)) @ wide(drawn(5, 5)) + drawn(5, seed=1)
        for status in (7, 15):  # whichever of the two it comes back with
            with fresh_products(), stand_in.failing("MatmulAlgoGetHeuristic", status):
                assert_near(product(a, a, bias=bias), expected, 5)
        with (
            fresh_products(),
            stand_in.failing("MatmulAlgoGetHeuristic", 7),
            pytest.raises(BackendError, match="AlgoGetHeuristic failed with CUBLAS_STATUS_INVALID"),
        ):
            matmul(a, a)

    def test_a_product_without_algorithm(self) -> None:
        a = GPU.asarray(drawn(5, 5))
        message = r"that cuBLASLt can compute, got \(5, 5\) @ \(5, 5\) of float32"
        with (
            fresh_products(),
            stand_in.failing("MatmulAlgoGetHeuristic", 15),
            pytest.raises(BackendError, match=message),
        ):
            matmul(a, a)

    @pytest.mark.parametrize("name", ["Matmul", "MatmulDescCreate"])
    def test_memory_is_asked_for_again(self, name: str) -> None:
        a, emptied = GPU.asarray(drawn(5, 5)), pool.emptied
        with fresh_products(), stand_in.failing(name, 3):
            assert_near(matmul(a, a), wide(drawn(5, 5)) @ wide(drawn(5, 5)), 5)
        assert pool.emptied == emptied + 1

    def test_there_is_no_memory(self) -> None:
        a, emptied = GPU.asarray(drawn(5, 5)), pool.emptied
        message = r"expected memory on cuda:0 for .*CUBLAS_STATUS_ALLOC_FAILED.*smaller batches"
        with (
            stand_in.failing("Matmul", 3, times=2),
            pytest.raises(BackendError, match=message),
        ):
            matmul(a, a)
        assert pool.emptied == emptied + 1
        with (
            fresh_products(),
            cupy_standin.other_machine(free_memory=1 << 20),
            pytest.raises(BackendError, match=r"expected memory on cuda:0 for .*found none"),
        ):
            matmul(a, a)

    @pytest.mark.parametrize("without", ["library", "pathfinder"])
    def test_there_is_no_library(self, without: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere(libname: str) -> Any:
            raise stand_in.DynamicLibNotFoundError(libname)

        if without == "library":
            pathfinder = vars(sys.modules["cuda.pathfinder"])
            monkeypatch.setitem(pathfinder, "load_nvidia_dynamic_lib", nowhere)
        else:
            monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
        binding.library.cache_clear()
        with pytest.raises(BackendError, match=r"need cuBLASLt, .*install tinygrad-bn\[cuda13\]"):
            engine.Products(0)
        monkeypatch.undo()
        engine.Products(0)

    def test_a_handle_that_cannot_be_made(self) -> None:
        with (
            stand_in.failing("Create", 1),
            pytest.raises(BackendError, match="cublasLtCreate failed with CUBLAS_STATUS_NOT_INIT"),
        ):
            engine.Products(0)
