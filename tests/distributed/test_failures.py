"""Groups whose ranks fail, are missing, or disagree: an error on all of them, and no hang."""

from __future__ import annotations

import re
import sys
import threading
import time

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.distributed.watched import PATIENCE, spawn
from tinygrad_bn import distributed
from tinygrad_bn.errors import DistributedError, ShapeError


def reduce():
    return distributed.all_reduce(tg.ones(3))


class TestAFailingRank:
    @pytest.mark.parametrize("culprit", [0, 2])
    @pytest.mark.parametrize("moment", ["before", "between", "after"])
    def test_ends_all_with_its_error(self, culprit, moment):
        heard = {}

        def work(rank):
            try:
                if moment != "before":
                    reduce()
                if rank == culprit:
                    raise KeyError("a key")
                if moment == "after":
                    return
                reduce()
            except DistributedError as error:
                heard[rank] = error
                raise

        with pytest.raises(KeyError, match="a key") as caught:
            spawn(work, 4)
        assert caught.value.__notes__ == [f"in rank {culprit} of 4"]
        assert set(heard) == (set() if moment == "after" else set(range(4)) - {culprit})
        for error in heard.values():
            text = "expected every rank in all_reduce(float32 (3,)), "
            assert str(error) == text + f"got rank {culprit} failing with KeyError: 'a key'"
            assert error.__cause__ is caught.value

    def test_in_the_backward_pass(self):
        heard = []

        def fail(grad):
            raise ValueError("a hook")

        def work(rank):
            x = tg.ones(3, requires_grad=True)
            y = distributed.all_reduce(x)
            if rank == 1:
                y.register_hook(fail)
            try:
                y.sum().backward()
            except DistributedError as error:
                heard.append(str(error))
                raise

        with pytest.raises(ValueError, match="a hook"):
            spawn(work, 3)
        text = "expected every rank in all_reduce(float32 (3,)), got rank 1 failing with ValueError"
        assert heard == [f"{text}: a hook"] * 2

    def test_wakes_the_other_parts_of_a_split_group(self):
        def work(rank):
            part = distributed.split_group(rank // 2)
            if rank == 3:
                raise OSError("a disk")
            if rank < 2:
                distributed.barrier(part)
                if rank == 1:
                    distributed.barrier()
            distributed.barrier(part)

        with pytest.raises(OSError, match="a disk"):
            spawn(work, 4)

    def test_ends_nested_groups_too(self):
        def inner(rank):
            distributed.barrier()
            if rank == 1:
                raise ShapeError("inner")
            distributed.barrier()

        def work(rank):
            if rank == 1:
                distributed.spawn(inner, 2)
            distributed.barrier()

        with pytest.raises(ShapeError, match="inner") as caught:
            spawn(work, 3)
        assert caught.value.__notes__ == ["in rank 1 of 2", "in rank 1 of 3"]

    def test_by_sys_exit(self):
        def work(rank):
            sys.exit(3) if rank else reduce()

        with pytest.raises(SystemExit):
            spawn(work, 2)

    def test_is_named_where_others_hide_what_they_heard(self):
        def work(rank):
            if rank == 2:
                raise ValueError("the cause")
            try:
                reduce()
            except DistributedError:
                if rank == 0:
                    raise RuntimeError("something else") from None
                return

        with pytest.raises(ValueError, match="the cause"):
            spawn(work, 3)

    def test_leaves_no_collective_to_those_who_go_on(self):
        def work(rank):
            if rank == 0:
                raise ValueError("the cause")
            for _ in range(3):
                with pytest.raises(DistributedError, match="rank 0 failing with ValueError"):
                    reduce()
            return rank

        with pytest.raises(ValueError, match="the cause"):
            spawn(work, 3)

    @pytest.mark.parametrize("seed", range(50))
    def test_at_any_time(self, seed):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 6))
        culprit, moment = int(rng.integers(size)), int(rng.integers(8))
        pauses = rng.uniform(0, 3e-4, (size, 9))

        def work(rank):
            for step in range(9):
                time.sleep(pauses[rank, step])
                if (rank, step) == (culprit, moment):
                    raise ValueError(f"step {step}")
                distributed.barrier()

        with pytest.raises(ValueError, match=f"step {moment}") as caught:
            spawn(work, size)
        assert caught.value.__notes__ == [f"in rank {culprit} of {size}"]


class TestARankThatIsMissing:
    def test_because_it_returned(self):
        def work(rank):
            reduce()
            return rank if rank == 1 else reduce()

        expected = r"every rank in all_reduce\(float32 \(3,\)\), got rank 1 having returned"
        with pytest.raises(DistributedError, match=expected):
            spawn(work, 3)

    def test_because_it_returned_before_the_others_came(self):
        def work(rank):
            if rank:
                return
            time.sleep(0.05)
            distributed.barrier()

        with pytest.raises(DistributedError, match=r"in barrier\(\), got ranks 1, 2 having"):
            spawn(work, 3)

    def test_because_it_is_late(self):
        given_up, ended = threading.Event(), []

        def work(rank):
            try:
                if rank == 2:
                    given_up.wait(PATIENCE)
                distributed.barrier()
            except DistributedError as error:
                ended.append(str(error))
                given_up.set()
                raise

        message = "expected every rank in barrier(), got no rank 2 within 0.1 s"
        with pytest.raises(DistributedError, match=re.escape(message)):
            spawn(work, 3, timeout=0.1)
        assert set(ended) == {message}

    def test_because_it_never_ends(self):
        release = threading.Event()

        def work(rank):
            if rank == 1:
                release.wait(PATIENCE)
            else:
                with pytest.raises(DistributedError):
                    distributed.barrier()

        start = time.monotonic()
        with pytest.raises(DistributedError, match="every rank to end, got no rank 1 within"):
            spawn(work, 2, timeout=0.1)
        release.set()
        assert time.monotonic() - start < PATIENCE / 2  # it did not wait for the release

    def test_a_slow_rank_is_waited_for(self):
        def work(rank):
            time.sleep(0.3 if rank else 0)
            return reduce().tolist()

        assert spawn(work, 2, timeout=20) == [[2, 2, 2]] * 2


class TestRanksThatDisagree:
    @pytest.mark.parametrize(
        ("mine", "others", "named"),
        [
            (reduce, distributed.barrier, "barrier() from rank 1"),
            (
                lambda: distributed.all_reduce(tg.ones(3)),
                lambda: distributed.all_reduce(tg.ones(4)),
                "all_reduce(float32 (4,)) from rank 1",
            ),
            (
                lambda: distributed.all_gather(tg.ones(3)),
                lambda: distributed.all_gather(tg.ones(3).double()),
                "all_gather(float64 (3,)) from rank 1",
            ),
            (
                lambda: distributed.all_gather(tg.ones(3)),
                lambda: distributed.all_reduce(tg.ones(3)),
                "all_reduce(float32 (3,)) from rank 1",
            ),
            (
                lambda: distributed.broadcast(tg.ones(3), 0),
                lambda: distributed.broadcast(tg.ones(3), 1),
                "broadcast(float32 (3,), src=1) from rank 1",
            ),
            (
                lambda: distributed.all_gather_object(1),
                lambda: distributed.broadcast(tg.ones(1)),
                "broadcast(float32 (1,), src=0) from rank 1",
            ),
        ],
        ids=["operation", "shape", "dtype", "gather or reduce", "source", "object"],
    )
    def test_all_hear_what_each_called(self, mine, others, named):
        heard = {}

        def work(rank):
            try:
                mine() if rank == 0 else others()
            except DistributedError as error:
                heard[rank] = str(error)

        assert spawn(work, 3) == [None] * 3  # whoever catches it may end well
        assert set(heard) == {0, 1, 2}
        assert len({message.split(", got ")[1] for message in heard.values()}) == 1
        for rank, message in heard.items():
            assert named in message
            assert named.replace("rank 1", "rank 2") in message
            assert "from rank 0, " in message
            called = named.split(" from ")[0]
            assert message.startswith(f"expected every rank in {called}") == (rank > 0)

    def test_spawn_says_so(self):
        with pytest.raises(DistributedError, match=r"barrier\(\) from rank 1"):
            spawn(lambda rank: distributed.barrier() if rank else reduce(), 2)

    def test_in_the_backward_pass(self):
        def work(rank):
            x = tg.ones(3, requires_grad=rank == 0)  # the others differentiate nothing
            y = distributed.all_reduce(x)
            if rank == 0:
                y.sum().backward()
            distributed.barrier()

        expected = r"all_reduce\(float32 \(3,\)\) from rank 0, barrier\(\) from rank 1"
        with pytest.raises(DistributedError, match=expected):
            spawn(work, 2)

    def test_a_second_thread_of_a_rank_is_refused_and_the_first_goes_on(self):
        refused, messages = threading.Event(), []

        def work(rank):
            if rank == 1:
                refused.wait(PATIENCE)
                return distributed.barrier()
            group = distributed.current_group()

            def once():
                try:
                    group.barrier()
                except DistributedError as error:
                    messages.append(str(error))
                    refused.set()

            helper = threading.Thread(target=once)
            helper.start()
            once()
            return helper.join()

        spawn(work, 2)
        assert messages == [
            "expected one thread for each rank, "
            "got a second one of rank 0 in barrier() beside barrier()"
        ]
