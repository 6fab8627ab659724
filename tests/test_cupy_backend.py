"""The adapter for CuPy: memory, devices, errors, and whole training steps."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests import cupy_standin
from tests.cupy_standin.record import API, names, signature
from tests.two_backends import (
    CPU,
    FLOATS,
    GPU,
    INTEGERS,
    NATIVE,
    dtype_named,
    only_stand_in,
    two_gpus,
)
from tinygrad_bn import nn
from tinygrad_bn.backend import VOCABULARY, get_backend
from tinygrad_bn.errors import BackendError, DtypeError

adapter: Any = importlib.import_module("tinygrad_bn.backends.cupy_backend")


class TestMemory:
    def test_from_anything(self) -> None:
        values: list[Any] = [1, 2.5, True, [1, 2], [[1.0], [2.0]], np.arange(3), np.float32(2)]
        for value in (*values, range(3)):
            array = GPU.asarray(value)
            assert isinstance(array, NATIVE)
            assert array.dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(GPU.to_numpy(array), value)

    def test_dtypes(self) -> None:
        for dtype in (*FLOATS, *INTEGERS, "bool"):
            array = GPU.asarray([0, 1, 1], dtype_named(dtype))
            assert array.dtype == dtype_named(dtype)
            assert GPU.asarray(array, np.float32).dtype == np.float32
        assert GPU.asarray(np.arange(3, dtype=">f4")).dtype == np.float32

    def test_what_is_there_stays_there(self) -> None:
        array = GPU.asarray([1.0, 2.0])
        assert GPU.asarray(array) is array
        assert not GPU.overlap(GPU.copy(array), array)
        assert GPU.overlap(array[1:], array)
        assert not GPU.overlap(array[1:], array[:1])

    @pytest.mark.parametrize("value", [[[1], [1, 2]], "text", [object()], {"a": 1}, 1j])
    def test_what_is_no_array(self, value: Any) -> None:
        with pytest.raises(DtypeError):
            GPU.asarray(value)

    @pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="has no longer float")
    def test_dtypes_that_cuda_has_not(self) -> None:
        with pytest.raises(DtypeError, match="expected a dtype that CUDA has"):
            GPU.asarray(np.ones(2, np.longdouble))

    def test_copies_are_in_order(self) -> None:
        x = GPU.asarray(np.arange(6.0).reshape(2, 3))
        for array in (GPU.copy(x.T), GPU.xp.contiguous(x.T)):
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(GPU.to_numpy(array), np.arange(6.0).reshape(2, 3).T)
        assert GPU.xp.contiguous(x) is x

    def test_to_numpy_is_a_copy(self) -> None:
        x = GPU.asarray([1.0, 2.0])
        GPU.to_numpy(x)[0] = 5
        np.testing.assert_array_equal(GPU.to_numpy(x), [1, 2])

    def test_accumulators_are_wide(self) -> None:
        for dtype in FLOATS:
            assert GPU.accumulator(dtype_named(dtype)) == CPU.accumulator(dtype_named(dtype))


class TestStore:
    @pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
    def test_casts_and_broadcasts(self, dtype: str) -> None:
        for value in (np.array([1.5, 0.0, 2.5]), np.array(2.0, np.float32), np.ones((2, 1), int)):
            want = np.zeros((2, 3), dtype_named(dtype))
            target = GPU.asarray(want)
            GPU.store(target, GPU.asarray(value))
            CPU.store(want, value)
            np.testing.assert_array_equal(GPU.to_numpy(target), want)

    def test_goes_through_views(self) -> None:
        x = GPU.asarray(np.zeros((2, 3)))
        GPU.store(x[:, 1], GPU.asarray([1.0, 2.0]))
        np.testing.assert_array_equal(GPU.to_numpy(x), [[0, 1, 0], [0, 2, 0]])

    def test_from_itself_shifted(self) -> None:
        x = GPU.asarray(np.arange(5.0))
        GPU.store(x[1:], x[:-1])
        np.testing.assert_array_equal(GPU.to_numpy(x), [0, 0, 1, 2, 3])

    def test_a_shape_that_does_not_fit(self) -> None:
        x = GPU.asarray(np.zeros((2, 3)))
        with pytest.raises(ValueError):
            GPU.store(x, GPU.asarray(np.ones(2)))

    def test_arrays_of_numpy_are_refused(self) -> None:
        x = GPU.asarray(np.zeros(3))
        with pytest.raises((TypeError, ValueError)):
            GPU.store(x, np.ones(3))


@only_stand_in
class TestDevices:
    """There are two devices in the stand-in; the first is current."""

    def test_every_device_has_its_backend(self) -> None:
        second = get_backend("cupy", 1)
        assert (GPU.device, second.device) == ("cuda:0", "cuda:1")
        assert second.asarray([1.0]).device.id == 1
        assert get_backend("cupy", 1) is second

    def test_methods_bring_their_device_along(self) -> None:
        second = get_backend("cupy", 1)
        x = second.asarray(np.arange(3.0))
        y = second.copy(x)
        second.store(y[:2], second.asarray([5.0, 6.0]))
        second.synchronize()
        assert y.device.id == 1
        np.testing.assert_array_equal(second.to_numpy(y), [5, 6, 2])

    def test_operations_need_the_guard(self) -> None:
        second = get_backend("cupy", 1)
        x = second.asarray(np.arange(3.0))
        with pytest.raises(ValueError, match="different from the current device"):
            second.xp.exp(x)
        with second.guard:  # type: ignore[union-attr]
            assert second.xp.exp(x).device.id == 1

    def test_the_guard_nests(self) -> None:
        runtime = sys.modules["cupy"].cuda.runtime
        first, second = GPU.guard, get_backend("cupy", 1).guard
        assert first is not None
        assert second is not None
        with second:
            with first, second, second:
                assert runtime.getDevice() == 1
            assert runtime.getDevice() == 1
        assert runtime.getDevice() == 0

    def test_the_guard_comes_back_after_an_error(self) -> None:
        guard: Any = get_backend("cupy", 1).guard
        with pytest.raises(KeyError), guard:
            raise KeyError
        assert sys.modules["cupy"].cuda.runtime.getDevice() == 0

    def test_threads_share_a_guard(self) -> None:
        runtime = sys.modules["cupy"].cuda.runtime
        guard: Any = get_backend("cupy", 1).guard
        inside, leave = threading.Barrier(2), threading.Event()
        after = []

        def work() -> None:
            runtime.setDevice(1)  # this thread was on the guarded device already
            inside.wait(10)
            with guard:
                leave.wait(10)
            after.append(runtime.getDevice())

        thread = threading.Thread(target=work)
        with guard:
            thread.start()
            inside.wait(10)
            leave.set()
            thread.join(10)
        assert (runtime.getDevice(), after) == (0, [1])

    def test_arrays_of_another_device_are_refused(self) -> None:
        second = get_backend("cupy", 1)
        x, y = GPU.asarray([1.0]), second.asarray([1.0])
        with pytest.raises(BackendError, match="expected an array on cuda:1, got one on cuda:0"):
            second.asarray(x)
        for target, value in ((x, y), (y, x)):
            with pytest.raises(BackendError, match="expected an array on cuda:0"):
                GPU.store(target, value)
        np.testing.assert_array_equal(GPU.to_numpy(x), [1])


class TestErrors:
    def test_cupy_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapter, "cupy", None)
        with pytest.raises(BackendError, match=r"not installed.*tinygrad-bn\[cuda13\]"):
            adapter.backend(0)
        assert adapter.device_count() == 0
        assert not adapter.is_available()
        assert adapter.describe()["cupy"] is None

    @only_stand_in
    @pytest.mark.parametrize(
        ("machine", "message"),
        [
            ({"devices": 0}, "expected an NVIDIA GPU, found none"),
            ({"status": 100}, "expected an NVIDIA GPU, found none"),
            ({"status": 35, "driver": 0}, "found no driver"),
            ({"status": 35, "driver": 12040}, r"driver for CUDA 13\.2, got one for CUDA 12\.4"),
            ({"status": 999}, "CUDA does not start: cudaError 999"),
        ],
    )
    def test_there_is_no_device(self, machine: dict[str, int], message: str) -> None:
        with cupy_standin.other_machine(**machine):
            with pytest.raises(BackendError, match=message):
                adapter.backend(0)
            assert adapter.device_count() == 0
            assert not adapter.is_available()
            found = adapter.describe()
        assert found["devices"] == []
        assert found["problem"]

    def test_the_device_does_not_exist(self) -> None:
        count = adapter.device_count()
        for index in (count, -1):
            with pytest.raises(BackendError, match=rf"CUDA device.*got cuda:{index}"):
                adapter.backend(index)
        with (
            cupy_standin.other_machine(devices=1),
            pytest.raises(BackendError, match="the only CUDA device is cuda:0, got cuda:7"),
        ):
            adapter.backend(7)

    def test_what_is_there_is_described(self) -> None:
        found = adapter.describe()
        assert found["problem"] is None
        assert len(found["devices"]) == adapter.device_count() > 0
        assert adapter.is_available()
        assert found["devices"][0]["device"] == "cuda:0"
        assert found["devices"][0]["memory"] > 0
        assert all("." in found[key] for key in ("cupy", "driver", "runtime"))


class TestAgainstTheRealCupy:
    """Every call the adapter makes, against the names and signatures recorded from CuPy."""

    folder = Path(adapter.__file__).parent
    calls = [
        node
        for path in (folder / "cupy_backend.py", *sorted((folder / "cublaslt").glob("*.py")))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]

    def test_names_and_arguments(self) -> None:
        tables = {"cupy": "signatures", "cupyx": "cupyx_signatures", "cupy.cuda.runtime": "runtime"}
        seen = 0
        for call in self.calls:
            owner, _, name = ast.unparse(call.func).rpartition(".")
            table = tables.get(owner)
            if table is None or (table == "runtime" and name not in API[table]):
                continue
            seen += 1
            arity = len(call.args)
            if name in API["ufuncs"] and name not in API[table]:
                loop = API["ufuncs"][name].split()[0]
                assert (arity, call.keywords) == (len(loop.split("->")[0]), []), name
            elif name == "matmul":  # a generalized ufunc; two arrays
                assert (arity, call.keywords) == (2, [])
            elif not any(isinstance(x, ast.Starred) for x in call.args):
                keywords = {str(k.arg): None for k in call.keywords}
                signature(name, table).bind(*call.args, **keywords)
        assert seen > 10  # it did find them

    def test_names_in_every_adapter(self) -> None:
        seen = set()
        for path in self.folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                found = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
                owner, _, name = found.rpartition(".")
                if owner in ("cupy", "cupy.cuda") and name[0] != "_":
                    seen.add(name)
                    assert name in names(owner.removeprefix("cupy.")), (path, found)
        assert {"RawModule", "get_default_pinned_memory_pool", "set_allocator", "driver"} <= seen

    def test_words_taken_as_they_are(self) -> None:
        own = inspect.getsource(adapter)
        for word in VOCABULARY:
            assert word in names("cupy") or f'"{word}": ' in own, word

    def test_methods(self) -> None:
        arrays = {"a", "b", "array", "value", "cupy.arange(n)"}
        seen = set()
        for call in self.calls:
            owner, _, name = ast.unparse(call.func).rpartition(".")
            if owner in arrays:
                seen.add(name)
                keywords = {str(k.arg): None for k in call.keywords}
                signature(name, "methods").bind("self", *call.args, **keywords)
        assert seen == {"astype", "copy", "get", "reshape"}


class TestTraining:
    """A network with batch norm, Adam and a loss over classes: the whole engine on the device."""

    @staticmethod
    def losses(device: str, steps: int = 4) -> tuple[list[float], list[cupy_standin.Traffic]]:
        tg.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        net.to(device)
        optimizer = tg.optim.Adam(net.parameters(), lr=1e-2)
        x = tg.tensor(np.random.default_rng(0).normal(size=(16, 4)).astype("f4"), device=device)
        labels = tg.tensor(np.arange(16) % 3, device=device)
        losses, traffic = [], []
        for _ in range(steps):
            with cupy_standin.count_traffic() as seen:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(x), labels)
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
            traffic.append(seen)
        return losses, traffic

    def test_is_the_same_as_on_the_cpu(self) -> None:
        # The same float32 operations in the same order, where a GPU's exp, log and sums may differ
        # by a few ulp: 4 steps of Adam leave far less than 1e-5.
        np.testing.assert_allclose(self.losses("cuda")[0], self.losses("cpu")[0], rtol=1e-5)

    @only_stand_in
    def test_never_waits_for_the_device(self) -> None:
        first, *later = self.losses("cuda")[1]
        assert (first.d2h, first.synchronizations) == (0, 0)  # it may send what it will keep there
        assert all(seen == cupy_standin.Traffic() for seen in later)


@two_gpus
def test_a_model_trains_on_the_second_device() -> None:
    import tinygrad_bn as tg
    from tinygrad_bn import nn

    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )
    model.to("cuda:1")
    x = tg.randn(16, 4, device="cuda:1")
    y = tg.randint(0, 3, (16,), device="cuda:1")
    for optimizer in (
        tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        tg.optim.Adam(model.parameters(), lr=1e-2),
    ):
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    accuracy = (model.eval()(x).argmax(dim=1) == y).float().mean()
    assert accuracy.device == "cuda:1"
    assert (x.max(dim=1).values >= x.min()).all()
