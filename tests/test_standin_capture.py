"""The stand-in's graphs and pools: what CuPy and CUDA do on a stream that captures, and refuse."""

from __future__ import annotations

import gc
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import SilentOnGPU, count_traffic, is_installed
from tests.cupy_standin.gpus import CUDARuntimeError
from tests.cupy_standin.record import API, signature
from tests.cupy_standin.streams import captures
from tests.two_backends import GPU

if not is_installed():
    pytest.skip("tests the stand-in, in whose place is a GPU", allow_module_level=True)
import cupy  # type: ignore[import-not-found]

Stream: Any = cupy.cuda.Stream
GLOBAL, THREAD_LOCAL = 0, 1


@pytest.fixture
def side() -> Any:
    return Stream(non_blocking=True)


@pytest.fixture(autouse=True)
def all_captures_end() -> Iterator[None]:
    yield
    assert captures == []


def captured(stream: Any, work: Callable[[], Any], pool: Any = None) -> tuple[Any, Any]:
    """A graph of some work, in memory of a pool, and what the work returned."""
    with stream, cupy.cuda.using_allocator(pool and pool.malloc):
        stream.begin_capture()
        made = work()
        return stream.end_capture(), made


@pytest.fixture
def pool() -> Any:
    return cupy.cuda.MemoryPool()


class TestLaunches:
    def test_what_is_captured_is_done_at_every_launch(self, side: Any, pool: Any) -> None:
        x, total = cupy.ones(3), cupy.zeros(3)

        def work() -> Any:
            nonlocal total
            y = cupy.sqrt(x) * 2
            total += y
            total[0] = 7.0
            return y

        graph, y = captured(side, work, pool)
        assert np.isnan(y.get()).all()
        assert total.tolist() == [0, 0, 0]
        for times in (1, 2):
            graph.launch()
            assert y.tolist() == [2, 2, 2]
            assert total.tolist() == [7, 2 * times, 2 * times]
        x.fill(4)
        with pytest.raises(SilentOnGPU, match="has not waited for it"):
            graph.launch(side)
        side.wait_event(Stream.null.record())
        graph.launch(side)
        with pytest.raises(SilentOnGPU, match="has not waited for it"):
            y + 1
        Stream.null.wait_event(side.record())
        assert (y + 1).tolist() == [5, 5, 5]

    @pytest.mark.parametrize(
        "work",
        [
            lambda x: x + 1,
            lambda x: 2 * x.T,
            lambda x: x.sum(axis=0),
            lambda x: cupy.concatenate([x, x]),
            lambda x: cupy.where(x > 0, x, 0.5),
            lambda x: x.astype("float64").copy(),
            lambda x: cupy.take_along_axis(x, cupy.argsort(x, axis=1), 1),
            lambda x: x[cupy.zeros(2, "int64")],
            lambda x: cupy.ascontiguousarray(x.T).reshape(-1),
            lambda x: cupy.zeros_like(x),
            lambda x: cupy.matmul(x.astype("int64"), x.T.astype("int64")),
        ],
    )
    def test_of_many_kinds(self, side: Any, pool: Any, work: Any) -> None:
        x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
        graph, y = captured(side, lambda: work(x), pool)
        before = x.copy()
        for scale in (1, -2):
            x[...] = before * scale
            graph.launch()
            np.testing.assert_array_equal(y.get(), work(x).get())

    def test_kernels_of_ones_own(self, side: Any) -> None:
        x = GPU.asarray(np.array([-1.0, 2.0], np.float32))
        relu: Any = GPU.kernels.get("relu")
        graph, y = captured(side, lambda: relu.run(x))
        assert np.isnan(y.get()).all()
        graph.launch()
        assert y.tolist() == [0, 2]

    def test_the_host_waits_for_no_launch(self, side: Any) -> None:
        x = cupy.ones(3)
        graph, _y = captured(side, lambda: x * 2)
        with count_traffic() as seen:
            graph.upload()
            graph.launch()
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)

    def test_none_is_made_by_hand(self) -> None:
        with pytest.raises(NotImplementedError, match="via stream capture"):
            cupy.cuda.Graph()


class TestForbidden:
    """With the errors that CuPy's own tests expect, or as in the documentation of CUDA."""

    INVALIDATING = {
        "the stream": lambda stream: stream.synchronize(),
        "the device": lambda stream: cupy.cuda.Device().synchronize(),
        "an event before": lambda stream: stream.wait_event(Stream.null.record()),
    }

    @pytest.mark.parametrize("wait", INVALIDATING.values(), ids=INVALIDATING)
    def test_waits_end_a_capture(self, side: Any, wait: Any) -> None:
        x = cupy.ones(3)
        with side:
            side.begin_capture()
            x.fill(5)
            with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCapture"):
                wait(side)
            with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
                side.end_capture()
        assert not side.is_capturing()
        side.synchronize()
        assert x.tolist() == [1, 1, 1]

    def test_asking_whether_it_is_done_ends_it_too(self, side: Any) -> None:
        with side:
            side.begin_capture()
            assert not side.done
            with pytest.raises(CUDARuntimeError, match="Invalidated"):
                side.end_capture()

    @pytest.mark.parametrize(
        "read",
        [
            lambda x: x.get(),
            lambda x: float(x.sum()),
            lambda x: bool(x.all()),
            lambda x: cupy.asnumpy(x),
            lambda x: x[x > 0],
            lambda x: cupy.nonzero(x),
        ],
    )
    def test_values_are_not_there(self, side: Any, read: Any) -> None:
        x = cupy.ones(3)
        with side:
            side.begin_capture()
            with pytest.raises(RuntimeError, match="is capturing, so synchronous"):
                read(x)
            side.end_capture()

    @pytest.mark.parametrize(
        "send",
        [
            lambda x: cupy.asarray(np.ones(3)),
            lambda x: x.set(np.ones(3)),
            lambda x: x[[0, 1]],
            lambda x: cupy.concatenate([x] * 9),
        ],
    )
    def test_the_hosts_memory_would_be_read_later(self, side: Any, send: Any) -> None:
        x = cupy.ones(3)
        with side:
            side.begin_capture()
            with pytest.raises(SilentOnGPU, match="at every launch"):
                send(x)
            side.end_capture()

    def test_cublas(self, side: Any) -> None:
        x = cupy.ones((2, 2))
        with side:
            side.begin_capture()
            for product in (lambda: x @ x, lambda: cupy.einsum("ij,jk", x, x)):
                with pytest.raises(NotImplementedError, match="cuBLAS"):
                    product()
            side.end_capture()

    def test_the_default_stream(self) -> None:
        with pytest.raises(RuntimeError, match=r"default \(legacy\) stream"):
            Stream.null.begin_capture()

    def test_the_default_stream_beside_one_that_waits_for_it(self) -> None:
        x, blocking = cupy.ones(3), Stream()
        for use in (Stream.null.is_capturing, lambda: x + 1, Stream.null.synchronize):
            blocking.begin_capture()
            with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
                use()
            with pytest.raises(CUDARuntimeError, match="Invalidated"):
                blocking.end_capture()
        side = Stream(non_blocking=True)
        side.begin_capture()
        assert (x + 1).tolist() == [2, 2, 2]  # it does not wait
        side.end_capture()

    def test_beginnings_and_endings_match(self, side: Any) -> None:
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            side.end_capture()
        side.begin_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
            side.begin_capture()
        side.end_capture()

    def test_events_of_a_capture_are_no_moments(self, side: Any) -> None:
        side.begin_capture()
        event = side.record()
        side.wait_event(event)
        side.end_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorCapturedEvent"):
            event.synchronize()

    @pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL, None])
    def test_memory_of_the_device(self, side: Any, pool: Any, mode: int | None) -> None:
        """A pool may grow in the mode that CuPy captures in, and in no other."""
        with side, cupy.cuda.using_allocator(pool.malloc):
            x = cupy.ones(3)
            side.begin_capture(mode)
            if mode is None:
                y = x + 1
                side.end_capture().launch()
                assert y.tolist() == [2, 2, 2]
                return
            with pytest.raises(CUDARuntimeError, match="Unsupported"):
                x + 1
            with pytest.raises(CUDARuntimeError, match="Invalidated"):
                side.end_capture()


class TestMemory:
    def test_what_was_given_back_may_be_somebody_elses(self, side: Any) -> None:
        x = cupy.ones(3)
        graph, _ = captured(side, lambda: (x * 2 + 1).sum())
        with pytest.raises(SilentOnGPU, match="was given back"):
            graph.launch()

    def test_a_pool_keeps_it(self, side: Any) -> None:
        pool, x, y = cupy.cuda.MemoryPool(), cupy.ones(3), cupy.zeros(())
        graph, _ = captured(side, lambda: cupy.copyto(y, (x * 2 + 1).sum()), pool)
        graph.launch()
        assert y.item() == 9
        del pool
        gc.collect()
        with pytest.raises(SilentOnGPU, match="was given back"):
            graph.launch()

    def test_arguments_must_live(self, side: Any) -> None:
        y = cupy.zeros(3)
        graph, _ = captured(side, lambda: cupy.copyto(y, cupy.ones(3)))
        with pytest.raises(SilentOnGPU, match="was given back"):
            graph.launch()

    def test_pieces_are_lent_again_on_their_stream(self, side: Any, pool: Any) -> None:
        with cupy.cuda.using_allocator(pool.malloc):
            x = cupy.ones(100)
            at = x.data.ptr
            assert at % 512 == 0
            assert (pool.total_bytes(), pool.used_bytes()) == (1024, 1024)
            view = x[:2]
            del x
            assert pool.used_bytes() == 1024
            del view
            assert (pool.total_bytes(), pool.used_bytes()) == (1024, 0)
            with side:
                other = cupy.ones(100)
            assert other.data.ptr != at
            again = cupy.empty(90)
            assert again.data.ptr == at
            assert np.isnan(again.get()).all()
        assert cupy.ones(100).data.ptr not in (at, other.data.ptr)

    def test_results_are_in_the_order_of_their_operands(self, pool: Any) -> None:
        x = cupy.asarray(np.arange(6.0).reshape(2, 3))
        with cupy.cuda.using_allocator(pool.malloc):
            y = x.T + 1
            assert y.strides == x.T.strides
            assert y[1].data.ptr == y.data.ptr + y.strides[0]
            np.testing.assert_array_equal(y.get(), x.get().T + 1)

    def test_an_array_at_a_place(self) -> None:
        raw = cupy.zeros(4, "int32")
        seen = cupy.ndarray((3,), "int32", memptr=raw.data + 12, strides=(-4,))
        seen[...] = cupy.arange(3, dtype="int32")
        assert raw.tolist() == [0, 2, 1, 0]
        raw.data.copy_from_device_async(seen.data + -4, 8)
        assert raw.tolist() == [1, 0, 1, 0]

    def test_a_thread_chooses_for_itself(self, pool: Any) -> None:
        found: list[Any] = []
        with cupy.cuda.using_allocator(pool.malloc):
            thread = threading.Thread(target=lambda: found.append(cupy.ones(3)))
            thread.start()
            thread.join()
            assert pool.used_bytes() == 0
            assert cupy.cuda.alloc(10).ptr
            assert cupy.cuda.get_allocator()(10).ptr
        assert pool.total_bytes() == 512


class TestRaces:
    """Work is done as it is given; that nobody may have waited for it is an error."""

    def test_reading_what_another_stream_writes(self, side: Any) -> None:
        x = cupy.ones(3)
        with side, pytest.raises(SilentOnGPU, match="has not waited"):
            x + 1
        side.wait_event(Stream.null.record())
        with side:
            y = x + 1
            x.fill(2)
        for read in (lambda: y * 2, lambda: x.sum(), lambda: cupy.copyto(cupy.zeros(3), y)):
            with pytest.raises(SilentOnGPU, match="has not waited"):
                read()
        before = side.record()
        with side:
            y += 1
        Stream.null.wait_event(before)
        assert x.sum().item() == 6
        with pytest.raises(SilentOnGPU, match="has not waited"):
            y * 2

    @pytest.mark.parametrize(
        "wait",
        [
            lambda side: side.synchronize(),
            lambda side: side.record().synchronize(),
            lambda side: cupy.cuda.Device().synchronize(),
            lambda side: Stream.null.wait_event(side.record()),
        ],
    )
    def test_waits(self, side: Any, wait: Any) -> None:
        with side:
            x = cupy.ones(3)
        wait(side)
        assert (x + 1).tolist() == [2, 2, 2]

    def test_over_a_third_stream(self, side: Any) -> None:
        third = Stream(non_blocking=True)
        with side:
            x = cupy.ones(3)
        third.wait_event(side.record())
        Stream.null.wait_event(third.record())
        assert (x + 1).tolist() == [2, 2, 2]

    def test_blocking_streams_and_the_legacy_one_wait_for_each_other(self) -> None:
        blocking = Stream()
        with blocking:
            x = cupy.ones(3)
        y = x + 1
        with blocking:
            assert (y + x).tolist() == [3, 3, 3]


class TestWhatCupyHas:
    def test_streams_graphs_and_memory_take_the_recorded_arguments(self) -> None:
        for name in API["cuda_signatures"]:
            kind, _, method = name.rpartition(".")
            owner = getattr(cupy.cuda, kind) if kind else cupy.cuda
            found = inspect.signature(getattr(owner, method)).parameters
            assert list(found) == list(signature(name, "cuda_signatures").parameters), name

    def test_addresses_of_many_arrays_are_sent(self) -> None:
        x = cupy.ones((2, 3))
        for count, sent in ((8, 0), (9, 1)):
            for join in (cupy.concatenate, cupy.stack):
                with count_traffic() as seen:
                    join([x] * count, 1)
                assert seen.h2d == sent
