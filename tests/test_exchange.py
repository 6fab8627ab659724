"""Memory shared with other libraries: DLPack and ``__cuda_array_interface__``, both ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends import uploads

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic
from tests.two_backends import only_stand_in, two_gpus
from tinygrad_bn.backend import Device
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, GradientError

cupy: Any = uploads.cupy
pytestmark = pytest.mark.cuda
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
PLACES = ["cpu", "cuda:0", "cuda:1"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda:1" and tg.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    return str(request.param)


def layouts(dtype: Any, device: str) -> dict[str, tg.Tensor]:
    """Tensors over one memory each, in every way that memory can lie."""
    x = tg.tensor(np.arange(24).reshape(2, 3, 4) % 2, dtype=dtype, device=device)
    return {
        "plain": x, "transposed": x.permute(2, 0, 1), "strided": x[:, ::2, 1::2],
        "a part": x[1:, 1:, 2:], "a number": x[0, 0, 1], "empty": x[:0],
        "broadcast": x[:, :1].expand(2, 3, 4),
    }  # fmt: skip


class Producer:
    """Another library's array."""

    def __init__(self, x: tg.Tensor, **changes: Any) -> None:
        self.x, self.changes = x, changes
        self.asked: list[dict[str, Any]] = []

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.changes.get("device", self.x.__dlpack_device__())


def described(x: tg.Tensor, **changes: Any) -> Any:
    """Another library's array that has an interface only."""
    return SimpleNamespace(__cuda_array_interface__={**x.__cuda_array_interface__, **changes})


class TestDLPack:
    @pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
    def test_memory_is_shared_in_every_layout(self, dtype: str, place: str) -> None:
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        for name, x in layouts(dtype, place).items():
            for y in (tg.from_dlpack(Producer(x)), tg.as_tensor(Producer(x))):
                assert (y.device, y.dtype, y.shape) == (Device(place), x.dtype, x.shape), name
                assert y.tolist() == x.tolist(), name
                if name not in ("broadcast", "empty"):
                    y.zero_()
                    assert not x.count_nonzero().item(), name
                    y.fill_(dtype == "bool" or 1)

    def test_strides_stay(self, place: str) -> None:
        x = layouts("float32", place)["strided"]
        assert tg.from_dlpack(Producer(x)).array.strides == x.array.strides

    def test_tensors_are_copies(self, place: str) -> None:
        x = tg.ones(2, device=place)
        y = tg.tensor(Producer(x))
        assert y.device == Device(place)
        y.zero_()
        assert x.tolist() == [1.0, 1.0]

    def test_to_a_device_or_a_dtype(self, place: str) -> None:
        x = tg.ones(2, device=place)
        for device in ("cpu", "cuda"):
            for made in (
                tg.tensor(Producer(x), device=device),
                tg.as_tensor(Producer(x), device=device),
                tg.from_dlpack(Producer(x), device=device),
            ):
                assert (made.device, made.tolist()) == (Device(device), [1.0, 1.0])
        assert tg.tensor(Producer(x), dtype="int32").dtype == np.int32

    def test_copies(self, place: str) -> None:
        x = tg.ones(2, device=place)
        shared, copied = (tg.from_dlpack(x, copy=copy) for copy in (False, True))
        x.zero_()
        assert (shared.tolist(), copied.tolist()) == ([0.0, 0.0], [1.0, 1.0])
        other = "cuda" if place == "cpu" else "cpu"
        with pytest.raises(ArgumentError, match=f"on {Device(other)} to share, got {place}"):
            tg.from_dlpack(x, device=other, copy=False)

    def test_read_only_memory(self, place: str) -> None:
        """It stays so in NumPy's hands; a GPU's is copied, because nothing protects it there."""
        array = np.arange(3.0)
        array.flags.writeable = False
        x = tg.from_dlpack(array)
        with pytest.raises(ValueError, match="read-only"):
            x.zero_()
        assert not np.from_dlpack(x).flags.writeable
        if place != "cpu":
            y = tg.zeros(2, device=place)
            for source in (flagged(y), described(y, data=(*address(y), True))):
                z = tg.as_tensor(source)
                z.fill_(1)
                assert (z.device, y.tolist()) == (Device(place), [0.0, 0.0])

    @pytest.mark.parametrize("make", [tg.tensor, tg.as_tensor, tg.from_dlpack])
    def test_dtypes_without_operations(self, make: Any) -> None:
        with pytest.raises(DtypeError, match="expected a bool, integer or floating dtype"):
            make(Foreign(np.ones(2, "complex64")))

    def test_histories_are_refused(self, place: str) -> None:
        x = tg.ones(2, device=place, requires_grad=True)
        for take in (x.__dlpack__, (x * 2).__dlpack__):
            with pytest.raises(GradientError, match=r"detach\(\)"):
                take()
        assert tg.from_dlpack(x.detach()).tolist() == [1.0, 1.0]

    def test_devices_that_are_none(self) -> None:
        x = tg.ones(2)
        with pytest.raises(BackendError, match="DLPack type 10"):
            tg.from_dlpack(Producer(x, device=(10, 0)))
        with pytest.raises(BackendError, match="cuda:7"):
            tg.from_dlpack(Producer(x, device=(2, 7)))

    def test_numpy_takes_no_memory_of_a_gpu(self) -> None:
        with pytest.raises((RuntimeError, BufferError, ValueError)):
            np.from_dlpack(tg.ones(2, device="cuda"))  # type: ignore[arg-type]

    def test_where_it_is(self, place: str) -> None:
        kind, index = tg.ones(2, device=place).__dlpack_device__()
        assert (kind, index) == ((1, 0) if place == "cpu" else (2, int(place[-1])))


def address(x: tg.Tensor) -> tuple[int]:
    return (x.__cuda_array_interface__["data"][0],)


class Foreign:
    """NumPy's array under another class."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def flagged(x: tg.Tensor) -> Any:
    """A producer whose capsules say that the memory is read-only."""
    from tinygrad_bn.backends.capsules import Versioned, pointer_in

    def give(**options: Any) -> Any:
        capsule = x.__dlpack__(**options)
        Versioned.from_address(pointer_in(capsule, b"dltensor_versioned")).flags |= 1
        return capsule

    return SimpleNamespace(__dlpack__=give, __dlpack_device__=x.__dlpack_device__)


class TestCudaArrayInterface:
    @pytest.mark.parametrize("device", ["cuda:0", pytest.param("cuda:1", marks=two_gpus)])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_memory_is_shared_in_every_layout(self, dtype: str, device: str) -> None:
        for name, x in layouts(dtype, device).items():
            y = tg.as_tensor(described(x))
            assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist()), name
            if name not in ("broadcast", "empty"):
                assert y.device == Device(device)
                y.zero_()
                assert not x.count_nonzero().item(), name

    def test_its_fields(self) -> None:
        x = tg.ones(2, 3, device=f"cuda:{tg.cuda.device_count() - 1}")
        interface = x.__cuda_array_interface__
        assert interface["version"] == 3
        assert (interface["shape"], interface["typestr"]) == ((2, 3), "<f4")
        assert interface["strides"] is None
        assert x.T.__cuda_array_interface__["strides"] == (4, 12)
        assert interface["stream"] == 1  # the default one

    def test_tensors_on_the_cpu_have_none(self) -> None:
        assert not hasattr(tg.ones(2), "__cuda_array_interface__")

    def test_histories_are_refused(self) -> None:
        with pytest.raises(GradientError, match=r"detach\(\)"):
            _ = tg.ones(2, device="cuda", requires_grad=True).__cuda_array_interface__

    def test_what_it_cannot_say(self) -> None:
        pytest.importorskip("ml_dtypes")
        with pytest.raises(DtypeError, match="bfloat16"):
            _ = tg.ones(2, device="cuda", dtype=tg.bfloat16).__cuda_array_interface__

    def test_masks_and_foreign_dtypes(self) -> None:
        x = tg.ones(2, device="cuda")
        for changes in ({"mask": x}, {"typestr": "<c8", "shape": (1,)}):
            with pytest.raises(DtypeError, match="expected"):
                tg.as_tensor(described(x, **changes))


class TestStreams:
    @only_stand_in
    def test_a_consumers_stream_waits_for_ours(self) -> None:
        """What we have yet to compute is there when the consumer's stream reads it."""
        theirs = cupy.cuda.Stream(non_blocking=True)
        x = tg.ones(2, device="cuda")
        x.__dlpack__(stream=theirs.ptr)
        assert theirs._queue.waited  # an event of our stream
        other = cupy.cuda.Stream(non_blocking=True)
        for stream in (-1, 1):  # no order is wanted, or it is our own stream
            x.__dlpack__(stream=stream)
        assert not other._queue.waited
        with pytest.raises(ValueError, match="valid stream"):
            x.__dlpack__(stream=0)

    @only_stand_in
    def test_our_stream_waits_for_a_producers(self) -> None:
        """A copy that the producer's stream has yet to make is made before we read."""
        producers = cupy.cuda.Stream(non_blocking=True)
        host = uploads.page_locked((2,), np.float32)
        host[...] = [3, 4]
        array = cupy.empty(2, "float32")
        producers.wait_event(cupy.cuda.get_current_stream().record())
        array.set(host, stream=producers)

        class InTheirStream(Producer):
            def __dlpack__(self, **options: Any) -> Any:
                with producers:
                    return super().__dlpack__(**options)

        x = tg.Tensor.wrap(array, tg.ones(0, device="cuda").backend)
        with count_traffic() as seen:
            y = tg.from_dlpack(InTheirStream(x))
        assert y.tolist() == [3.0, 4.0]
        assert seen.synchronizations == 0

    @only_stand_in
    def test_the_interface_names_the_stream_to_wait_for(self) -> None:
        ours = cupy.cuda.Stream(non_blocking=True)
        x = tg.ones(2, device="cuda")
        with ours:
            interface = x.__cuda_array_interface__
        assert interface["stream"] == ours.ptr
        with count_traffic() as seen:
            tg.as_tensor(SimpleNamespace(__cuda_array_interface__=interface))
        assert seen.synchronizations == 1

    def test_we_ask_for_our_current_stream(self) -> None:
        producer = Producer(tg.ones(2, device="cuda"))
        tg.from_dlpack(producer)
        assert producer.asked[0]["stream"] == 1
        with cupy.cuda.Stream(non_blocking=True) as stream:
            tg.from_dlpack(producer)
        assert producer.asked[1]["stream"] == stream.ptr


@pytest.mark.torch
class TestTorch:
    @pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
    def test_memory_is_shared_both_ways(self, dtype: str) -> None:
        torch: Any = pytest.importorskip("torch")
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        theirs = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).T
        for ours in (tg.from_dlpack(theirs), tg.as_tensor(theirs), tg.asarray(theirs)):
            assert (ours.dtype.name, ours.shape) == (dtype, (3, 2))
            back = torch.from_dlpack(ours)
            assert back.dtype == theirs.dtype
            assert back.data_ptr() == theirs.data_ptr()
            assert back.stride() == theirs.stride()
            ours.zero_()
            assert not theirs.any()
            theirs[...] = 1
            assert ours.count_nonzero().item() == 6

    def test_ours_seen_by_theirs(self) -> None:
        torch: Any = pytest.importorskip("torch")
        x = tg.randn(3, 4)
        for theirs in (torch.from_dlpack(x), torch.asarray(x), torch.as_tensor(x.numpy())):
            theirs += 1
            assert x.tolist() == theirs.tolist()

    def test_the_memory_outlives_its_owner(self) -> None:
        torch: Any = pytest.importorskip("torch")
        ours = tg.from_dlpack(torch.ones(1000))
        theirs = torch.from_dlpack(tg.ones(1000))
        assert ours.sum().item() == theirs.sum().item() == 1000

    def test_with_a_history(self) -> None:
        torch: Any = pytest.importorskip("torch")
        for take in (tg.from_dlpack, tg.as_tensor, tg.tensor):
            with pytest.raises(DtypeError, match="require gradient"):
                take(torch.ones(2, requires_grad=True))
        with pytest.raises(RuntimeError, match="detach"):
            torch.from_dlpack(tg.ones(2, requires_grad=True))

    def test_modules_may_train_on_each_others_memory(self) -> None:
        """A page of both libraries: our gradient is written through their tensor."""
        torch: Any = pytest.importorskip("torch")
        weight = torch.zeros(3)
        ours = tg.from_dlpack(weight).requires_grad_()
        (ours * tg.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert ours.grad is not None
        weight -= torch.from_dlpack(ours.grad)
        assert ours.tolist() == [-1.0, -2.0, -3.0]
