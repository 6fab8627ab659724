"""Each rule of the stand-in for CuPy: what a GPU would refuse, it refuses too."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import SilentOnGPU, count_traffic, other_machine
from tests.cupy_standin.functions import FUNCTIONS
from tests.cupy_standin.gpus import CUDARuntimeError
from tests.cupy_standin.modules import build
from tests.cupy_standin.ordering import busy
from tests.cupy_standin.record import API, loops, signature
from tests.cupy_standin.ufuncs import SPECIAL, UFUNCS

MODULES = build()
cupy: Any = MODULES["cupy"]
cupyx: Any = MODULES["cupyx"]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def x() -> Any:
    return cupy.asarray(X)


class TestArraysOfNumPyStayOut:
    @pytest.mark.parametrize(
        "mix",
        [
            lambda x: x + X,
            lambda x: X + x,
            lambda x: x @ X.T,
            lambda x: x < X,
            lambda x: cupy.maximum(x, X),
            lambda x: cupy.where(x > 0, x, X),
            lambda x: cupy.concatenate([x, X]),
            lambda x: cupy.sum(X),
            lambda x: cupy.exp(X),
            lambda x: cupy.exp([1.0]),
            lambda x: np.exp(x),
            lambda x: np.concatenate([x, x]),
        ],
    )
    def test_in_any_operation(self, x: Any, mix: Any) -> None:
        with pytest.raises(TypeError):
            mix(x)

    def test_in_assignments(self, x: Any) -> None:
        for value in (X, X[0], [1.0, 2.0, 3.0]):
            with pytest.raises(TypeError):
                x[...] = value
        with pytest.raises(TypeError):
            x += X
        with pytest.raises(ValueError):
            cupy.copyto(x, X)

    def test_scalars_of_numpy_mix(self, x: Any) -> None:
        assert (np.float32(2) * x).dtype == np.float32
        assert (x + np.float64(2)).dtype == np.float64
        np.testing.assert_array_equal((np.float32(2) * x).get(), 2 * X)

    def test_no_implicit_conversion(self, x: Any) -> None:
        for convert in (np.asarray, np.array, np.stack):
            with pytest.raises(TypeError, match="Implicit conversion"):
                convert(x)

    def test_an_array_is_no_index(self) -> None:
        with pytest.raises(TypeError):
            [1, 2, 3][cupy.asarray(1)]


class TestResults:
    @pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "argmax", "all", "any"])
    def test_reductions_are_arrays_without_axes(self, x: Any, name: str) -> None:
        for result in (getattr(cupy, name)(x), getattr(x, name)()):
            assert type(result) is cupy.ndarray
            assert result.shape == ()

    def test_elements_are_arrays(self, x: Any) -> None:
        assert type(x[0, 0]) is cupy.ndarray
        assert all(type(row) is cupy.ndarray for row in x)

    @pytest.mark.parametrize(
        ("compute", "expected"),
        [
            (lambda e: cupy.exp(e.astype("int32")), "float64"),
            (lambda e: cupy.exp(e.astype("int8")), "float16"),
            (lambda e: e.astype("int32") / e.astype("int32"), "float64"),
            (lambda e: e.astype("int32") * 0.5, "float64"),
            (lambda e: e * 0.5, "float16"),
            (lambda e: e * np.float32(0.5), "float32"),
            (lambda e: e > 0, "bool"),
            (lambda e: (e > 0) + 1, "int64"),
            (lambda e: cupy.where(e > 0, e, 0.0), "float16"),
            (lambda e: cupy.where(e > 0, 1, 0), "int64"),
            (lambda e: cupy.sum(e > 0), "int64"),
            (lambda e: SPECIAL["erf"](e), "float64"),
            (lambda e: SPECIAL["erfinv"](e), "float32"),
        ],
    )
    def test_dtypes_are_those_of_the_kernels(self, compute: Any, expected: str) -> None:
        assert compute(cupy.ones(3, "float16")).dtype == expected

    def test_bfloat16_has_few_kernels(self) -> None:
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        x = cupy.ones((2, 2), bfloat16)
        assert cupy.exp(x).dtype == x.dtype
        assert cupy.where(x > 0, x, x).dtype == np.float32
        assert cupy.tril(x).dtype == np.float32
        for name in ("sum", "max", "argmax", "sort", "cumsum", "round"):
            with pytest.raises(TypeError):
                getattr(cupy, name)(x)

    def test_booleans_have_no_minus(self, x: Any) -> None:
        with pytest.raises(TypeError):
            (x > 0) - (x < 1)

    def test_the_product_of_two_half_vectors_rounds_every_product(self) -> None:
        a = cupy.full((1, 2), 300, "float16")
        assert np.isinf(cupy.matmul(a, a.T).get())  # 90000 is beyond float16, and so is the sum
        b = cupy.asarray(np.array([[300], [-300]], np.float16))
        assert np.isnan(cupy.matmul(a, b).get())  # inf - inf; the true sum is 0


class TestWhatCupyHasNot:
    @pytest.mark.parametrize("name", ["ufunc_that_is_not", "asarray_of", "float128", "bfloat16"])
    def test_names(self, name: str) -> None:
        with pytest.raises(AttributeError):
            getattr(cupy, name)

    def test_what_the_stand_in_has_not_is_another_error(self, x: Any) -> None:
        for owner, name in ((cupy, "ElementwiseKernel"), (cupy, "fft"), (x, "partition")):
            with pytest.raises(NotImplementedError):
                getattr(owner, name)

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: cupy.sum(x, where=x > 0),
            lambda x: cupy.max(x, initial=0),
            lambda x: cupy.reshape(x, shape=(6,)),
            lambda x: cupy.clip(x, min=0, max=1),
            lambda x: cupy.exp(x, where=x > 0),
            lambda x: cupy.argsort(x, stable=True),
            lambda x: cupy.full_like(x, 1, device="cpu"),
            lambda x: x.sum(where=x > 0),
            lambda x: x.all(where=x > 0),
        ],
    )
    def test_arguments(self, x: Any, call: Any) -> None:
        with pytest.raises(TypeError):
            call(x)

    def test_unstable_sorting(self, x: Any) -> None:
        with pytest.raises(ValueError):
            cupy.sort(x, kind="quicksort")

    @pytest.mark.parametrize("dtype", ["int64", "int16", "bool"])
    def test_atomic_addition_of_most_integers(self, dtype: str) -> None:
        with pytest.raises(TypeError):
            cupyx.scatter_add(cupy.zeros(3, dtype), cupy.asarray([0]), 1)

    def test_functions_take_the_recorded_arguments(self) -> None:
        binds_when_called = ["args", "kwargs"]
        for name in FUNCTIONS.keys() & API["signatures"].keys() - {"einsum"}:
            parameters = inspect.signature(FUNCTIONS[name], follow_wrapped=False).parameters
            expected = signature(name).parameters
            assert list(parameters) in (binds_when_called, list(expected)), name

    def test_kernels_take_the_recorded_arguments(self) -> None:
        module = cupy.RawModule
        for name, function in (
            ("RawModule.compile", module.compile),
            ("RawModule.get_function", module.get_function),
        ):
            found = inspect.signature(function).parameters
            assert list(found) == list(signature(name, "raw").parameters)
        assert set(inspect.signature(module).parameters) == set(
            signature("RawModule", "raw").parameters
        )

    def test_the_record_agrees_with_an_installed_cupy(self) -> None:
        code = "from tests.cupy_standin.record_api import record; print(repr(record()))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if "No module named 'cupy'" in run.stderr:
            pytest.skip("CuPy is not installed")
        current = ast.literal_eval(run.stdout)
        if current["version"] != API["version"]:
            pytest.skip(f"recorded from CuPy {API['version']}, installed is {current['version']}")
        assert current == API


class TestDevices:
    def test_an_array_is_used_on_its_own_device(self, x: Any) -> None:
        with cupy.cuda.Device(1):
            y = cupy.zeros(3, "float32")
            assert y.device == cupy.cuda.Device(1)
            for use in (cupy.sum, cupy.exp, cupy.negative, cupy.sort):
                with pytest.raises(ValueError, match="different from the current device"):
                    use(x)
        with pytest.raises(ValueError, match="different from the current device"):
            y += 1

    def test_views_keep_their_device(self, x: Any) -> None:
        with cupy.cuda.Device(1):
            for view in (x.T, x.reshape(6), x[0], x[:, None]):
                assert view.device.id == 0

    def test_views_know_whose_memory_they_are(self, x: Any) -> None:
        for view in (x.T[0], x[0, 0], cupy.transpose(x), cupy.squeeze(x[:1]), x.ravel()):
            assert view.base is x
        for copied in (x, x[[0, 1]], x.copy(), x + 1, x.sum()):
            assert copied.base is None

    def test_devices_nest(self) -> None:
        first, second = cupy.cuda.Device(0), cupy.cuda.Device(1)
        with second, first, second:
            assert cupy.cuda.runtime.getDevice() == 1
        assert cupy.cuda.runtime.getDevice() == 0

    def test_the_current_device_is_one_of_a_thread(self) -> None:
        seen = []
        with cupy.cuda.Device(1):
            thread = threading.Thread(target=lambda: seen.append(cupy.cuda.runtime.getDevice()))
            thread.start()
            thread.join()
        assert seen == [0]

    def test_devices_that_do_not_exist(self) -> None:
        assert cupy.cuda.runtime.getDeviceCount() == 2
        with pytest.raises(CUDARuntimeError, match="InvalidDevice"):
            cupy.cuda.Device(2).use()

    def test_other_machines(self) -> None:
        with other_machine(devices=0), pytest.raises(CUDARuntimeError) as caught:
            cupy.cuda.runtime.getDeviceCount()
        assert caught.value.status == 100
        assert cupy.is_available()


class TestTraffic:
    @pytest.mark.parametrize(
        "wait",
        [
            lambda x: x.get(),
            lambda x: x.sum().item(),
            lambda x: float(x.sum()),
            lambda x: int(x.sum()),
            lambda x: bool(x.sum()),
            lambda x: x.tolist(),
            lambda x: repr(x),
            lambda x: cupy.asnumpy(x),
            lambda x: cupy.nonzero(x),
            lambda x: cupy.where(x > 0),
            lambda x: x[x > 0],
            lambda x: pickle.dumps(x),
        ],
    )
    def test_the_host_waits(self, x: Any, wait: Any) -> None:
        with count_traffic() as seen:
            wait(x)
        assert seen.d2h == 1

    def test_what_is_sent(self, x: Any) -> None:
        with count_traffic() as seen:
            cupy.asarray(X)
            cupy.array([1.0, 2.0])
            x[[0, 1]]
            x.set(X)
        assert (seen.h2d, seen.d2h) == (4, 0)

    def test_work_is_neither(self, x: Any) -> None:
        with count_traffic() as seen:
            y = cupy.where(x > 1, x @ x.T @ x, 0.0).sum(axis=0) / 3
            y[cupy.asarray(y)[:1].astype("int64") * 0] += 1
            copy.deepcopy(cupy.zeros_like(y, dtype="float16"))
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)

    def test_waits_without_data(self) -> None:
        with count_traffic() as seen:
            cupy.cuda.Device(0).synchronize()
            cupy.cuda.get_current_stream().synchronize()
        assert seen.synchronizations == 2

    def test_a_pickle_comes_back(self, x: Any) -> None:
        again = pickle.loads(pickle.dumps(x))
        np.testing.assert_array_equal(again.get(), X)


class TestStreams:
    @pytest.fixture
    def side(self) -> Iterator[Any]:
        yield cupy.cuda.Stream(non_blocking=True)
        busy.clear()  # copies that nobody waited for

    @staticmethod
    def late(side: Any, values: Any) -> tuple[Any, Any]:
        """An array that a copy on another stream is to fill, and the page-locked memory."""
        host = cupyx.empty_pinned(len(values), "float32")
        host[...] = values
        target = cupy.empty(len(values), "float32")
        side.wait_event(cupy.cuda.get_current_stream().record())
        target.set(host, stream=side)
        return target, host

    def test_a_copy_is_made_when_somebody_waits_for_it(self, side: Any) -> None:
        waits: list[Any] = [
            side.synchronize,
            cupy.cuda.Device(0).synchronize,
            lambda: side.record().synchronize(),
            lambda: cupy.cuda.get_current_stream().wait_event(side.record()),
        ]
        for wait in waits:
            target, _host = self.late(side, [1, 2])
            assert np.isnan(target.get()).all()
            assert not side.done
            wait()
            assert target.get().tolist() == [1, 2]
            assert side.done

    def test_what_came_later_is_not_waited_for(self, side: Any) -> None:
        first, _host = self.late(side, [1])
        event = side.record()
        second, _other = self.late(side, [2])
        assert not event.done
        event.synchronize()
        assert event.done
        assert first.get().tolist() == [1]
        assert np.isnan(second.get()).all()

    def test_it_reads_what_is_there_then(self, side: Any) -> None:
        target, host = self.late(side, [1, 2])
        host[...] = 3  # as a loop would that does not wait for its buffer
        side.synchronize()
        assert target.get().tolist() == [3, 3]

    def test_page_locked_memory_must_live(self, side: Any) -> None:
        _, host = self.late(side, [1, 2])
        del host
        with pytest.raises(SilentOnGPU, match="given back"):
            side.synchronize()

    def test_memory_that_another_stream_may_use(self, side: Any) -> None:
        side.wait_event(cupy.cuda.get_current_stream().record())
        target, host = cupy.empty(2, "float32"), cupyx.empty_pinned(2, "float32")
        with pytest.raises(SilentOnGPU, match="has not waited"):
            target.set(host, stream=side)
        with pytest.raises(SilentOnGPU, match="has not waited"):
            target[:1].set(host[:1], stream=side)
        target.set(host)  # on the current stream, it is in order

    def test_memory_that_is_not_page_locked_is_copied_at_once(self, side: Any) -> None:
        target = cupy.empty(2, "float32")
        target.set(np.ones(2, np.float32), stream=side)
        assert target.get().tolist() == [1, 1]

    def test_the_current_stream_is_one_of_a_device(self) -> None:
        stream = cupy.cuda.Stream()
        with stream:
            assert cupy.cuda.get_current_stream() is stream
        assert cupy.cuda.get_current_stream() is cupy.cuda.Stream.null
        with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="does not match"), stream:
            pass
        event = cupy.cuda.Event()
        with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="two devices"):
            event.record(cupy.cuda.Stream())


class TestSilentErrors:
    def test_indices_that_would_wrap_around(self, x: Any) -> None:
        with pytest.raises(SilentOnGPU):
            x[cupy.asarray([0, 2])]
        with pytest.raises(SilentOnGPU):
            x[cupy.asarray([2])] = 0.0
        with pytest.raises(SilentOnGPU):
            cupy.take_along_axis(x, cupy.asarray([[3]]), 1)
        with pytest.raises(SilentOnGPU):
            cupy.take(x, cupy.asarray([2]), axis=0)

    def test_numbers_are_checked(self, x: Any) -> None:
        with pytest.raises(IndexError):
            x[2]

    def test_remainder_has_cupys_formula(self) -> None:
        assert np.isnan(cupy.remainder(cupy.ones(1), np.inf).get()[0])

    def test_no_warnings_of_the_host(self, x: Any) -> None:
        with np.errstate(all="raise"):
            assert np.isnan((x / 0).get()[0, 0])
            cupy.log(x)


@pytest.mark.parametrize("name", sorted(UFUNCS.keys() - {"round"}))
def test_every_kernel_computes(name: str) -> None:
    inputs, output = next(loop for loop in loops(name) if "?" not in loop[0] or name == "where")
    y = UFUNCS[name](*(cupy.ones(3, char) for char in inputs))
    assert (y.shape, y.dtype.char) == ((3,), output)
