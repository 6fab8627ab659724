"""Groups of threads: what runs in them, and what they return."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.distributed.watched import PATIENCE, spawn
from tinygrad_bn import distributed
from tinygrad_bn.errors import ArgumentError

ROOT = Path(__file__).parents[2]


def reduce():
    return distributed.all_reduce(tg.ones(3))


class TestRuns:
    def test_results_come_in_the_order_of_ranks(self):
        def work(rank, word, factor):
            time.sleep(0.01 * (3 - rank))
            return f"{word} {rank * factor} of {distributed.get_world_size()}"

        assert spawn(work, 3, "rank", 2) == ["rank 0 of 3", "rank 2 of 3", "rank 4 of 3"]

    def test_each_rank_knows_where_it_is(self):
        def work(rank):
            group = distributed.current_group()
            return rank, distributed.get_rank(), group.rank, group.size

        assert spawn(work, 2) == [(0, 0, 0, 2), (1, 1, 1, 2)]
        assert distributed.current_group() is None

    def test_the_context_of_the_caller_reaches_the_ranks(self):
        def work(rank):
            before = tg.is_grad_enabled()
            tg.set_grad_enabled(True)
            return before

        with tg.no_grad():
            assert spawn(work, 3) == [False] * 3
            assert not tg.is_grad_enabled()
        assert spawn(work, 3) == [True] * 3

    def test_leaves_no_thread_behind(self):
        before = set(threading.enumerate())
        distributed.spawn(lambda rank: distributed.barrier(), 4)
        assert set(threading.enumerate()) == before

    @pytest.mark.parametrize("size", [0, -1])
    def test_refuses_no_ranks(self, size):
        with pytest.raises(ArgumentError, match=f"world_size ≥ 1, got {size}"):
            distributed.spawn(print, size)

    @pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
    def test_refuses_no_time(self, timeout):
        with pytest.raises(ArgumentError, match="timeout > 0"):
            distributed.spawn(print, 1, timeout=timeout)

    def test_may_wait_for_ever(self):
        assert spawn(lambda rank: reduce().tolist(), 2, timeout=float("inf")) == [[2, 2, 2]] * 2

    def test_a_rank_may_spawn_again(self):
        def inner(rank, outer):
            return outer, distributed.get_rank(), distributed.all_gather_object(rank)

        def work(rank):
            found = distributed.spawn(inner, 2, rank)
            assert distributed.all_gather_object(rank) == [0, 1, 2]
            return found

        assert spawn(work, 3) == [[(r, 0, [0, 1]), (r, 1, [0, 1])] for r in range(3)]

    def test_fifty_times_over_many_collectives_give_the_same(self):
        values = np.random.default_rng(3).normal(size=(4, 7))

        def work(rank):
            x = tg.tensor(values[rank])
            for step in range(10):
                time.sleep(1e-5 * ((rank * 7 + step * 3) % 5))
                x = distributed.all_reduce(x) * 0.3 - distributed.all_gather(x)[step % 4] + rank * x
            return x.numpy().tobytes()

        assert len({bits for _ in range(50) for bits in spawn(work, 4)}) == 4


def test_ctrl_c_ends_the_ranks_and_arrives():
    code = """
import signal
import time
import tinygrad_bn as tg
from tinygrad_bn.errors import DistributedError

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's `&`

def work(rank):
    alone = tg.distributed.split_group(rank == 0)
    if rank:
        tg.distributed.barrier()
    print("waiting", flush=True)
    while True:
        time.sleep(0.01)
        tg.distributed.barrier(alone)

heard = []

def told(rank):
    try:
        work(rank)
    except DistributedError as error:
        heard.append(str(error))
        raise

try:
    tg.distributed.spawn(told, 3)
except KeyboardInterrupt:
    print(*heard, "interrupted", sep="\\n")
"""
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout.readline() == "waiting\n"
        time.sleep(0.2)  # until the others wait too, as a rule
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
    expected = "expected every rank in barrier(), got an interruption by KeyboardInterrupt\n"
    assert out == expected * 3 + "interrupted\n"
    assert program.returncode == 0
