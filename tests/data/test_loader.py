"""`DataLoader` and the data sets: which samples come in which batch, in every combination."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinygrad_bn import config
from tinygrad_bn.backend import Device
from tinygrad_bn.data import (
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)
from tinygrad_bn.errors import ArgumentError, DtypeError, RangeError, ShapeError
from tinygrad_bn.random import Generator, manual_seed
from tinygrad_bn.tensors import Tensor


def rows(n: int) -> TensorDataset:
    """Sample i is (i, -i)."""
    return TensorDataset(Tensor(np.arange(n)), Tensor(-np.arange(n)[:, None]))


class Squares(Dataset):
    """Sample i is i², made one by one."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int, /) -> int:
        return index**2


def firsts(loader: DataLoader) -> list[list[int]]:
    """The first tensor of every batch."""
    return [batch[0].tolist() for batch in loader]


NO_NUMBERS: list[dict[str, Any]] = [
    {"batch_size": 0},
    {"batch_size": -1},
    {"batch_size": 2.5},
    {"batch_size": None},
    {"prefetch": -1},
]


class TestBatches:
    def test_in_order(self) -> None:
        assert firsts(DataLoader(rows(5), 2)) == [[0, 1], [2, 3], [4]]

    def test_tensors_stay_side_by_side(self) -> None:
        for x, y in DataLoader(rows(7), 3, shuffle=True):
            assert x.shape == (len(y),)
            assert y.shape == (len(x), 1)
            np.testing.assert_array_equal(x.numpy(), -y.numpy()[:, 0])

    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("prefetch", [0, 1, 3])
    def test_every_combination(self, shuffle: bool, prefetch: int) -> None:
        """Against a plain reading of what the arguments mean."""
        for n, size, drop, merge in itertools.product(
            range(8), range(1, 6), (False, True), (False, True)
        ):
            wanted = [min(size, n - start) for start in range(0, n, size)]
            if drop:
                wanted = [length for length in wanted if length == size]
            elif merge and size > 1 and len(wanted) > 1 and wanted[-1] == 1:
                wanted[-2:] = [size + 1]
            loader = DataLoader(
                rows(n), size, shuffle, drop_last=drop, merge_single=merge, prefetch=prefetch
            )
            for _ in range(2):
                found = firsts(loader)
                assert [len(batch) for batch in found] == wanted
                assert len(loader) == len(wanted)
                seen = [i for batch in found for i in batch]
                assert (sorted(seen) if shuffle else seen) == sorted(set(seen))
                assert len(seen) == sum(wanted)

    def test_with_merging_no_batch_has_a_single_sample(self) -> None:
        lengths = [len(x) for x, _ in DataLoader(rows(1 + 3 * 32), 32, merge_single=True)]
        assert lengths == [32, 32, 33]

    def test_batches_share_no_memory_with_the_data(self) -> None:
        data = rows(4)
        for shuffle in (False, True):
            for x, _ in DataLoader(data, 4, shuffle):
                assert not np.shares_memory(x.numpy(), data.tensors[0].numpy())

    def test_dtypes_stay(self) -> None:
        data = TensorDataset(Tensor([1.5, 2.5]).half(), Tensor([True, False]))
        x, y = next(iter(DataLoader(data, 2)))
        assert x.dtype == np.float16
        assert y.dtype == np.bool_

    def test_other_data_sets_are_collated(self) -> None:
        (batch,) = DataLoader(Squares(4), 4)
        assert batch.tolist() == [0, 1, 4, 9]
        (batch,) = DataLoader(["a", "b"], 2)
        assert batch == ["a", "b"]

    def test_a_collate_function_gets_single_samples(self) -> None:
        assert list(DataLoader(Squares(3), 2, collate_fn=sum)) == [1, 4]
        ((samples,),) = (list(DataLoader(rows(2), 2, collate_fn=lambda s: s)),)
        assert [int(x) for x, _ in samples] == [0, 1]

    @pytest.mark.parametrize("arguments", NO_NUMBERS)
    def test_numbers_out_of_range(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ArgumentError, match="expected"):
            DataLoader(rows(3), **arguments)

    def test_what_is_no_data_set_or_generator(self) -> None:
        with pytest.raises(DtypeError, match=r"data set .* got 3"):
            DataLoader(3)
        with pytest.raises(DtypeError, match="Generator or None, got int"):
            DataLoader(rows(3), shuffle=True, generator=3)  # type: ignore[arg-type]


class TestOnADevice:
    def test_batches_are_where_the_data_are(self, device: str) -> None:
        data = TensorDataset(Tensor(np.arange(5), device=device))
        (x,) = next(iter(DataLoader(data, 4, True, generator=Generator().manual_seed(0))))
        assert x.device == Device(device)
        (wanted,) = next(iter(DataLoader(rows(5), 4, True, generator=Generator().manual_seed(0))))[
            :1
        ]
        assert x.tolist() == wanted.tolist()  # the same order on every device

    def test_a_generator_of_the_device_will_do(self, device: str) -> None:
        loaders = [
            DataLoader(rows(9), 4, True, generator=Generator(where).manual_seed(0))
            for where in ("cpu", device)
        ]
        assert firsts(loaders[0]) == firsts(loaders[1])


class TestShuffling:
    def test_a_seed_determines_every_epoch(self) -> None:
        def epochs() -> list[list[list[int]]]:
            loader = DataLoader(rows(20), 6, True, generator=Generator().manual_seed(3))
            return [firsts(loader) for _ in range(3)]

        first = epochs()
        assert first == epochs()
        assert first[0] != first[1] != first[2]

    def test_the_state_before_an_epoch_determines_the_rest(self) -> None:
        generator = Generator().manual_seed(3)
        loader = DataLoader(rows(20), 6, True, generator=generator)
        firsts(loader)
        state = generator.get_state()
        rest = [firsts(loader) for _ in range(2)]
        resumed = Generator()
        resumed.set_state(state)
        again = DataLoader(rows(20), 6, True, generator=resumed)
        assert [firsts(again) for _ in range(2)] == rest

    def test_the_order_is_drawn_when_the_epoch_begins(self) -> None:
        """Not later, when other draws, like dropout's, may have come between."""
        generator = Generator().manual_seed(3)
        wanted = firsts(DataLoader(rows(20), 6, True, generator=Generator().manual_seed(3)))
        epoch = iter(DataLoader(rows(20), 6, True, generator=generator))
        generator.manual_seed(4)
        assert [x.tolist() for x, _ in epoch] == wanted

    def test_the_default_generator_obeys_manual_seed(self) -> None:
        loader = DataLoader(rows(20), 20, True)
        manual_seed(5)
        first = firsts(loader)
        manual_seed(5)
        assert firsts(loader) == first
        assert firsts(loader) != first

    def test_without_shuffling_nothing_is_drawn(self) -> None:
        generator = Generator().manual_seed(3)
        state = generator.get_state().tolist()
        firsts(DataLoader(rows(20), 6, generator=generator))
        assert generator.get_state().tolist() == state

    def test_prefetching_changes_no_order(self) -> None:
        orders = [
            firsts(DataLoader(rows(20), 6, True, generator=Generator().manual_seed(3), prefetch=p))
            for p in (0, 2)
        ]
        assert orders[0] == orders[1]


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


class Broken(Squares):
    def __getitem__(self, index: int, /) -> int:
        if index == 5:
            raise KeyError("the sixth sample")
        return index


class TestPrefetching:
    def test_an_error_reaches_the_loop_with_its_traceback(self) -> None:
        epoch = iter(DataLoader(Broken(8), 2, prefetch=2))
        assert [next(epoch).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(KeyError, match="the sixth sample") as caught:
            next(epoch)
        functions = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "__getitem__" in functions
        assert not prefetch_threads()

    def test_leaving_the_loop_early_stops_the_thread(self) -> None:
        for prefetch in (1, 4):
            for _ in DataLoader(Squares(1000), 1, prefetch=prefetch):
                break
            gc.collect()
            assert not prefetch_threads()

    def test_an_epoch_that_never_began_has_no_thread(self) -> None:
        epoch = iter(DataLoader(Squares(10), 1, prefetch=2))
        assert not prefetch_threads()
        next(epoch)
        assert len(prefetch_threads()) == 1
        del epoch
        gc.collect()
        assert not prefetch_threads()

    def test_an_epoch_in_a_cycle_is_collected_without_a_deadlock(self) -> None:
        for _ in range(20):
            knot: list[Any] = [iter(DataLoader(Squares(10), 1, prefetch=2))]
            knot.append(knot)
            next(knot[0])
            del knot
        gc.collect()
        assert not prefetch_threads()

    def test_two_epochs_at_once(self) -> None:
        loader = DataLoader(rows(9), 2, prefetch=2)
        for (a, _), (b, _) in zip(loader, loader, strict=True):
            assert a.tolist() == b.tolist()

    def test_it_stays_the_given_number_of_batches_ahead(self) -> None:
        made: list[int] = []

        class Watched(Squares):
            def __getitem__(self, index: int, /) -> int:
                made.append(index)
                return index

        epoch = iter(DataLoader(Watched(50), 1, prefetch=3))
        for taken in range(1, 5):
            next(epoch)
            deadline = time.monotonic() + 10
            while len(made) < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert len(made) == taken + 3
        del epoch

    def test_no_grad_holds_in_the_thread(self) -> None:
        class Scaled(Squares):
            weight = Tensor([2.0], requires_grad=True)

            def __getitem__(self, index: int, /) -> Tensor:
                return self.weight * index

        with config.no_grad():
            for batch in DataLoader(Scaled(4), 2, prefetch=1):
                assert not batch.requires_grad
        for batch in DataLoader(Scaled(4), 2, prefetch=1):
            assert batch.requires_grad


class TestTensorDataset:
    def test_samples(self) -> None:
        x, y = rows(4)[2]
        assert (x.item(), y.tolist()) == (2, [-2])
        assert len(rows(4)) == 4
        assert rows(4)[1:3][0].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("tensors", "error"),
        [
            ((), ArgumentError),
            ((Tensor([1, 2]), Tensor([1])), ShapeError),
            ((Tensor(1.0),), ShapeError),
            ((np.ones(3),), DtypeError),
        ],
    )
    def test_what_is_no_data_set(self, tensors: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="expected"):
            TensorDataset(*tensors)


class TestSubset:
    def test_samples_and_batches(self) -> None:
        part = Subset(rows(10), [7, 3, -1])
        assert len(part) == 3
        assert part[0][0].item() == 7
        assert firsts(DataLoader(part, 2)) == [[7, 3], [9]]
        assert firsts(DataLoader(Subset(part, [2, 0]), 2)) == [[9, 7]]

    def test_of_a_list(self) -> None:
        (batch,) = DataLoader(Subset([1.0, 2.0, 3.0], [2, 0]), 2)
        assert batch.tolist() == [3.0, 1.0]

    def test_indices_outside(self) -> None:
        for outside in (10, -11):
            with pytest.raises(RangeError, match=f"data set of 10, got {outside}"):
                Subset(rows(10), [0, outside])


class TestRandomSplit:
    @pytest.mark.parametrize(
        ("lengths", "wanted"),
        [
            ([7, 3], [7, 3]),
            ([0.7, 0.3], [7, 3]),
            ([0.25] * 4, [3, 3, 2, 2]),
            ([10], [10]),
            ([0, 10], [0, 10]),
        ],
    )
    def test_every_sample_is_in_one_part(self, lengths: Any, wanted: list[int]) -> None:
        parts = random_split(rows(10), lengths, Generator().manual_seed(0))
        assert [len(part) for part in parts] == wanted
        assert sorted(part[i][0].item() for part in parts for i in range(len(part))) == list(
            range(10)
        )

    def test_it_is_random_and_repeatable(self) -> None:
        def split(seed: int) -> list[int]:
            first, _ = random_split(rows(50), [25, 25], Generator().manual_seed(seed))
            return [int(i) for i in first.indices]

        assert split(1) == split(1) != split(2)

    @pytest.mark.parametrize("lengths", [[5, 4], [11], [-1, 11], [0.5, 0.4], [1.5, -0.5], []])
    def test_lengths_that_do_not_add_up(self, lengths: Any) -> None:
        with pytest.raises(ArgumentError, match="expected"):
            random_split(rows(10), lengths)


class TestCollating:
    def test_each_kind(self) -> None:
        cases: list[tuple[list[Any], list[Any], str]] = [
            ([1, 2], [1, 2], "int64"),
            ([1.5, 2.5], [1.5, 2.5], "float32"),
            ([True, False], [True, False], "bool"),
            ([np.float64(1), np.float64(2)], [1.0, 2.0], "float64"),
            ([np.int8([1, 2]), np.int8([3, 4])], [[1, 2], [3, 4]], "int8"),
            ([Tensor([1.0]), Tensor([2.0])], [[1.0], [2.0]], "float32"),
        ]
        for samples, values, dtype in cases:
            batch = default_collate(samples)
            assert batch.tolist() == values
            assert batch.dtype.name == dtype

    def test_containers(self) -> None:
        batch = default_collate([{"x": (1, [2.0, "a"])}, {"x": (3, [4.0, "b"])}])
        number, (real, word) = batch["x"]
        assert (number.tolist(), real.tolist(), word) == ([1, 3], [2.0, 4.0], ["a", "b"])
        assert type(batch["x"]) is tuple

    @pytest.mark.parametrize(
        ("samples", "error"),
        [
            ([1, "a"], DtypeError),
            ([object(), object()], DtypeError),
            ([None, None], DtypeError),
            ([np.ones(2), np.ones(3)], ShapeError),
            ([Tensor([1.0]), Tensor([1.0, 2.0])], ShapeError),
            ([(1, 2), (1,)], ShapeError),
            ([{"a": 1}, {"b": 1}], ShapeError),
        ],
    )
    def test_samples_that_make_no_batch(self, samples: list[Any], error: type[Exception]) -> None:
        with pytest.raises(error, match="expected"):
            default_collate(samples)


def test_subclasses_must_say_what_their_samples_are() -> None:
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="__len__"):
        len(Dataset())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not prefetch_threads()
