"""Loaders that bring batches to a GPU: in order, beside its work, and from memory that stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from tinygrad_bn.backends import uploads

import tinygrad_bn as tg
from tests.cupy_standin import SilentOnGPU, count_traffic
from tests.two_backends import only_stand_in
from tinygrad_bn.backend import Device, backend_for
from tinygrad_bn.data import DataLoader, Dataset, TensorDataset, default_collate
from tinygrad_bn.data.uploading import Slot
from tinygrad_bn.errors import ArgumentError, BackendError, GradientError

cupy: Any = uploads.cupy
pytestmark = pytest.mark.cuda
GPUS = ["cuda:0", "cuda:1"]


def rows(n: int) -> TensorDataset:
    """Sample i is (i, -i and its square)."""
    x = np.arange(1, n + 1)
    return TensorDataset(tg.tensor(x), tg.tensor(np.stack([-x, x**2], 1), dtype="float32"))


def values(batches: Any) -> list[Any]:
    return [[part.tolist() for part in batch] for batch in batches]


class Kinds(Dataset):
    """Samples of every kind of value."""

    class Pair(NamedTuple):
        real: Any
        half: Any

    def __len__(self) -> int:
        return 7

    def __getitem__(self, i: int, /) -> Any:
        pair = self.Pair(float(i), tg.tensor([i, 1], dtype="float16"))
        return {"pair": pair, "flag": i > 3, "list": [np.int8(i), f"sample {i}"]}

    @classmethod
    def collate(cls, samples: list[Any]) -> Any:
        batch = default_collate(samples)
        return {**batch, "pair": cls.Pair(*batch["pair"])}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]
    for number in range(tg.cuda.device_count()):
        tg.cuda.synchronize(number)  # copies that nobody waited for would be made now


class TestBatches:
    @pytest.mark.parametrize("prefetch", [0, 1, 3])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_are_the_same_as_on_the_cpu(self, prefetch: int, shuffle: bool, device: str) -> None:
        for n, size in ((0, 2), (1, 4), (7, 2), (12, 3), (9, 4)):
            found = [
                values(
                    DataLoader(
                        rows(n), size, shuffle, prefetch=prefetch, device=place,
                        generator=tg.Generator().manual_seed(n),
                    )
                )
                for place in (None, device)
            ]  # fmt: skip
            assert found[0] == found[1]

    @pytest.mark.parametrize("place", ["cpu", *GPUS])
    def test_of_every_kind_of_value(self, place: str) -> None:
        if place == "cuda:1" and tg.cuda.device_count() < 2:
            pytest.skip("there is one GPU")
        options: dict[str, Any] = {"batch_size": 3, "collate_fn": Kinds.collate}
        for batch, plain in zip(
            DataLoader(Kinds(), device=place, **options),
            DataLoader(Kinds(), **options),
            strict=True,
        ):
            assert type(batch["pair"]) is Kinds.Pair
            assert batch["list"][1] == plain["list"][1]
            for x, y in (
                (batch["pair"].real, plain["pair"].real),
                (batch["pair"].half, plain["pair"].half),
                (batch["flag"], plain["flag"]),
                (batch["list"][0], plain["list"][0]),
            ):
                assert x.device == Device(place)
                assert (x.dtype, x.tolist()) == (y.dtype, y.tolist())

    def test_may_be_kept(self, device: str) -> None:
        assert values(list(DataLoader(rows(20), 2, device=device))) == values(
            DataLoader(rows(20), 2)
        )

    def test_of_growing_sizes(self, device: str) -> None:
        """Slots take more memory as they must, without losing what is being copied from it."""

        def repeated(samples: list[Any]) -> tg.Tensor:
            return tg.full((10 ** (int(samples[0][0]) % 5),), float(samples[0][0]))

        loader = DataLoader(rows(11), 1, collate_fn=repeated, device=device)
        for i, x in enumerate(loader, 1):
            assert x.shape == (10 ** (i % 5),)
            assert x.sum().item() == i * len(x)

    def test_views_and_empty_ones(self, device: str) -> None:
        x = tg.arange(6).reshape(2, 3)
        parts = [x.T, x[:, 1:], x[:0], tg.tensor(5)]
        (batch,) = DataLoader([0], 1, collate_fn=lambda _: parts, device=device)
        for found, part in zip(batch, parts, strict=True):
            assert (found.shape, found.tolist()) == (part.shape, part.tolist())

    def test_without_tensors(self, device: str) -> None:
        assert list(DataLoader(["a", "b", "c"], 2, device=device)) == [["a", "b"], ["c"]]

    def test_with_a_history(self, device: str) -> None:
        weight = tg.ones(3, requires_grad=True)
        loader = DataLoader([1.0, 2.0], 1, collate_fn=lambda s: weight * s[0], device=device)
        for x in loader:
            assert x.device == Device(device)
            x.sum().backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [3.0] * 3

    def test_that_are_on_the_gpu_already(self) -> None:
        data = TensorDataset(tg.arange(4, device="cuda"), tg.arange(4))
        made = []

        class Watched(TensorDataset):
            def take(self, indices: Any) -> Any:
                made.append(super().take(indices))
                return made[-1]

        for number, (x, y) in enumerate(DataLoader(Watched(*data.tensors), 2, device="cuda")):
            assert x is made[number][0]
            assert y.device == Device("cuda:0")

    def test_where_there_is_no_such_device(self) -> None:
        with pytest.raises(BackendError, match="cuda:9"):
            DataLoader(rows(2), device="cuda:9")


class Broken(TensorDataset):
    def take(self, indices: Any) -> Any:
        if 4 in indices:
            raise KeyError("the fifth sample")
        return super().take(indices)


class TestEndings:
    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_an_error_comes_after_the_batches_before_it(self, prefetch: int, device: str) -> None:
        loader = DataLoader(Broken(*rows(8).tensors), 2, prefetch=prefetch, device=device)
        epoch = iter(loader)
        assert [next(epoch)[0].tolist() for _ in range(2)] == [[1, 2], [3, 4]]
        with pytest.raises(KeyError, match="the fifth sample"):
            next(epoch)
        assert next(epoch, None) is None

    @pytest.mark.parametrize("prefetch", [0, 1, 3])
    def test_a_loop_may_be_left(self, prefetch: int, device: str) -> None:
        loader = DataLoader(rows(100), 2, prefetch=prefetch, device=device)
        for count in range(4):
            for number, (x, _) in enumerate(loader):
                assert x.tolist() == [2 * number + 1, 2 * number + 2]
                if number == count:
                    break
            gc.collect()

    def test_an_epoch_that_never_began(self, device: str) -> None:
        iter(DataLoader(rows(4), 2, prefetch=2, device=device))

    def test_an_error_of_the_loop(self, device: str) -> None:
        def loop() -> None:
            for _ in DataLoader(rows(9), 2, prefetch=2, device=device):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            loop()


class TestSeveral:
    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_epochs_at_once(self, prefetch: int, device: str) -> None:
        loader = DataLoader(rows(11), 2, prefetch=prefetch, device=device)
        for (a, _), (b, _) in zip(loader, loader, strict=True):
            assert a.tolist() == b.tolist()

    @only_stand_in
    def test_loaders_to_several_devices(self) -> None:
        loaders = [DataLoader(rows(9), 2, prefetch=i, device=gpu) for i, gpu in enumerate(GPUS)]
        for (a, _), (b, _) in zip(*loaders, strict=True):
            assert (a.device, b.device) == tuple(map(Device, GPUS))
            assert a.tolist() == b.tolist()


@only_stand_in
class TestOrder:
    def test_nobody_waits_for_a_gpu_that_keeps_up(self) -> None:
        loader = DataLoader(rows(12), 2, device="cuda:1")
        with count_traffic() as seen:
            total = sum((x.sum() + y.sum() for x, y in loader), tg.zeros((), device="cuda:1"))
        assert (seen.d2h, seen.synchronizations) == (0, 0)
        assert total.item() == sum(i**2 for i in range(1, 13))

    def test_the_next_copy_is_under_way_while_the_loop_works(self) -> None:
        started: list[Any] = []
        epoch = iter(DataLoader(rows(8), 2, device="cuda"))
        start = uploads.Uploads.start

        def noted(self: Any, hosts: Any) -> Any:
            started.append(start(self, hosts))
            return started[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploads.Uploads, "start", noted)
            for number in range(4):
                next(epoch)
                assert len(started) == min(number + 2, 4)
                assert started[number]._made.done
                assert number == 3 or not started[-1]._made.done
            assert next(epoch, None) is None

    def test_in_a_stream_of_the_users(self) -> None:
        with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True):
            found = [x + 0 for x, _ in DataLoader(rows(9), 2, prefetch=1, device="cuda:1")]
        assert [x.tolist() for x in found] == [x.tolist() for x, _ in DataLoader(rows(9), 2)]


def not_received(self: Any) -> Any:
    return self._arrays


def not_finished(self: Any) -> None:
    pass


class NoWait:
    """A stream whose copies wait for nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.is_non_blocking, self._queue = True, stream._queue

    def wait_event(self, event: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@only_stand_in
class TestTheseTestsCanFail:
    """Every wait is needed: without it, what is above would not hold."""

    def run(self, patch: Callable[[pytest.MonkeyPatch], None], stop: int = 99) -> list[Any]:
        with pytest.MonkeyPatch.context() as context:
            patch(context)
            found = []
            for number, (x, _) in enumerate(DataLoader(rows(12), 2, device="cuda")):
                found.append(x)
                if number == stop:
                    break
            gc.collect()
        backend_for("cuda").synchronize()
        return [x.tolist() for x in found]

    def test_without_the_streams_wait_for_the_copy(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploads.Upload, "receive", not_received)
            epoch = iter(DataLoader(rows(12), 2, device="cuda"))
            assert next(epoch)[0].tolist() != [1, 2]

    def test_without_the_hosts_wait_for_a_slot(self) -> None:
        """The loop is behind: nothing but the slots' reuse waits for copies."""
        right = values(DataLoader(rows(12), 2))

        def patched(patch: pytest.MonkeyPatch) -> None:
            patch.setattr(uploads.Upload, "receive", not_received)

        assert self.run(patched) == [x for x, _ in right]

        def without(patch: pytest.MonkeyPatch) -> None:
            patched(patch)
            patch.setattr(Slot, "release", not_finished)

        with pytest.raises(SilentOnGPU, match="given back"):
            self.run(without)

    def test_without_the_copys_wait_for_the_streams_work(self) -> None:
        init = uploads.Uploads.__init__

        def hasty(self: Any, guard: Any) -> None:
            init(self, guard)
            self._stream = NoWait(self._stream)

        with pytest.raises(SilentOnGPU, match="has not waited"):
            self.run(lambda patch: patch.setattr(uploads.Uploads, "__init__", hasty))

    def test_without_a_wait_when_the_loop_is_left(self) -> None:
        assert self.run(lambda patch: None, stop=1) == [[1, 2], [3, 4]]
        with pytest.raises(SilentOnGPU, match="given back"):
            self.run(lambda patch: patch.setattr(uploads.Upload, "finish", not_finished), stop=1)


class TestPinning:
    def test_memory_is_page_locked(self) -> None:
        x = tg.arange(6).reshape(2, 3)
        pinned = x.pin_memory()
        assert (x.is_pinned(), pinned.is_pinned(), pinned[1:, 1].is_pinned()) == (False, True, True)
        assert pinned.pin_memory() is pinned
        assert pinned.tolist() == x.tolist()
        assert not np.shares_memory(pinned.numpy(), x.numpy())
        assert tg.tensor(3.5).pin_memory().item() == 3.5

    @pytest.mark.parametrize("non_blocking", [False, True])
    def test_copies_from_it(self, non_blocking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """CuPy goes on reading page-locked memory when it has returned: it is only given such where
        the caller asked for that.
        """
        given: list[Any] = []
        asarray = cupy.asarray

        def noted(value: Any, *args: Any, **kwargs: Any) -> Any:
            given.extend([value] * isinstance(value, np.ndarray))
            return asarray(value, *args, **kwargs)

        pinned = tg.tensor([1.0, 2.0]).pin_memory()
        monkeypatch.setattr(cupy, "asarray", noted)
        for copied in (
            pinned.to("cuda", non_blocking=non_blocking),
            pinned.to("cuda", None, non_blocking) if non_blocking else pinned.to("cuda"),
            pinned.cuda(non_blocking=non_blocking),
        ):
            assert copied.tolist() == [1.0, 2.0]
        assert [uploads.is_page_locked(x) for x in given] == [non_blocking] * 3
        given.clear()
        tg.tensor(pinned, device="cuda")
        assert not any(uploads.is_page_locked(x) for x in given)

    def test_loaders_that_pin(self) -> None:
        for place in (None, "cpu"):
            loader = DataLoader(rows(5), 2, pin_memory=True, prefetch=1, device=place)
            for batch, plain in zip(loader, DataLoader(rows(5), 2), strict=True):
                assert all(x.is_pinned() for x in batch)
                assert values([batch]) == values([plain])

    def test_refusals(self) -> None:
        with pytest.raises(BackendError, match="on the cpu to pin"):
            tg.ones(2, device="cuda").pin_memory()
        with pytest.raises(GradientError, match="without history"):
            tg.ones(2, requires_grad=True).pin_memory()
        with pytest.raises(ArgumentError, match="batch_size"):
            DataLoader(rows(2), 0, pin_memory=True)

    @pytest.mark.parametrize("call", ["uploads", "page_locked"])
    def test_the_cpu_has_none(self, call: str) -> None:
        arguments: tuple[Any, ...] = () if call == "uploads" else ((2,), np.float32)
        with pytest.raises(BackendError, match="expected a GPU"):
            getattr(backend_for("cpu"), call)(*arguments)


class TestBetweenDevices:
    @only_stand_in
    def test_no_host_is_in_between(self) -> None:
        x = tg.arange(6, device="cuda:0").reshape(2, 3).T
        with count_traffic() as seen:
            y = x.to("cuda:1")
            z = y.to("cuda:0")
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
        assert (y.device, z.device) == (Device("cuda:1"), Device("cuda:0"))
        assert y.tolist() == z.tolist() == x.tolist()

    @only_stand_in
    def test_each_device_waits_for_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[Any] = []
        wait = cupy.cuda.Stream.wait_event

        def noted(self: Any, event: Any) -> None:
            waits.append((cupy.cuda.runtime.getDevice(), event._device))
            wait(self, event)

        monkeypatch.setattr(cupy.cuda.Stream, "wait_event", noted)
        tg.ones(2, device="cuda:0").to("cuda:1")
        assert waits == [(1, 0), (0, 1)]

    @only_stand_in
    def test_gradients_come_back(self) -> None:
        x = tg.ones(3, device="cuda:1", requires_grad=True)
        (x.to("cuda:0") * 2).to("cpu").sum().backward()
        assert x.grad is not None
        assert (x.grad.device, x.grad.tolist()) == (Device("cuda:1"), [2.0] * 3)
