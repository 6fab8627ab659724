"""Compiled steps on a GPU: graphs, what they read and write, and what they ask of the host."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.capture.on_gpu import Learner, batches, graphed
from tests.capture.test_training import Training
from tests.cupy_standin import count_traffic
from tests.two_backends import only_stand_in
from tinygrad_bn import nn, optim
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import CaptureError
from tinygrad_bn.optim import lr_scheduler

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def device() -> str:
    """Everything here is on the first GPU, which makes it the default device."""
    return "cuda"


class TestTraining:
    def test_five_steps_are_eager_ones_bit_for_bit(self) -> None:
        eager, compiled = Learner(False), Learner(True)
        found = [[], []]  # type: ignore[var-annotated]
        for learner, losses in zip((eager, compiled), found, strict=True):
            tg.manual_seed(9)  # each draws its masks from there
            losses += [learner.run(x, t).item() for x, t in batches(5)]
        assert found[0] == found[1]
        assert eager.state() == compiled.state()
        assert len({*found[0]}) == 5

    def test_it_learns_what_the_cpu_does(self) -> None:
        """From the same weights and masks; sums are in other orders, over five steps of Adam."""
        losses = []
        for device in ("cpu", "cuda"):
            learner = Learner(True, device)
            tg.manual_seed(9)
            losses.append([learner.run(x.to(device), t.to(device)).item() for x, t in batches(5)])
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)

    def test_verified(self) -> None:
        plain, verified = Learner(True), Learner(True, verify=True)
        for learner in (plain, verified):
            tg.manual_seed(9)
            for x, t in batches(6):
                learner.run(x, t)
        assert plain.state() == verified.state()

    def test_what_verification_finds(self) -> None:
        hidden = iter(range(10))
        compiled = tg.compile(lambda x: x * next(hidden), verify=True)
        compiled(tg.ones(3))
        with pytest.raises(CaptureError, match="results of the step itself"):
            compiled(tg.ones(3))

    def test_masks_differ_from_step_to_step(self) -> None:
        drop = tg.compile(lambda x: nn.functional.dropout(x, 0.5, training=True))
        seen = {tuple(drop(tg.ones(64)).tolist()) for _ in range(4)}
        assert len(seen) == 4

    @only_stand_in
    def test_on_the_second_gpu(self) -> None:
        found = []
        for device in ("cuda:0", "cuda:1"):
            learner = Learner(True, device)
            tg.manual_seed(9)
            data = [(x.to(device), t.to(device)) for x, t in batches(3)]
            losses = [learner.run(x, t).item() for x, t in data]
            found.append((losses, learner.state()))
        assert found[0] == found[1]


class TestHost:
    """What a replay costs the host, and what it asks of the device."""

    @only_stand_in
    def test_it_waits_for_nothing_and_sends_nothing(self) -> None:
        learner, data = Learner(True), batches(4)
        for x, t in data[:2]:
            learner.run(x, t)
        with count_traffic() as seen:
            for x, t in data:
                learner.run(x, t)
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)

    @only_stand_in
    def test_a_learning_rate_is_sent_when_it_has_changed(self) -> None:
        learner, eager, data = Learner(True), Learner(False), batches(4)
        for one in (learner, eager):
            for x, t in data[:2]:
                one.run(x, t)
        program = learner.run.program  # type: ignore[attr-defined]
        for rate, sent in ((1e-2, 0), (5e-2, 1), (5e-2, 0), (1e-3, 1)):
            for one in (learner, eager):
                one.optimizer.param_groups[0]["lr"] = rate
            tg.manual_seed(1)
            eager.run(*data[1])
            tg.manual_seed(1)
            with count_traffic() as seen:
                learner.run(*data[1])
            assert (seen.h2d, seen.d2h, seen.synchronizations) == (sent, 0, 0)
        assert learner.run.program is program  # type: ignore[attr-defined]

    @only_stand_in
    def test_it_takes_no_memory_for_itself(self) -> None:
        learner, data = Learner(True), batches(3)
        for x, t in data[:2]:
            learner.run(x, t)
        pool = graphed(learner.run)._graphs.pool
        before = pool.total_bytes(), pool.used_bytes()
        for x, t in data:
            learner.run(x, t)
            assert (pool.total_bytes(), pool.used_bytes()) == before

    def test_gradients_are_made_where_the_optimizer_keeps_them(self) -> None:
        learner = Learner(True)
        learner.run(*batches(1)[0])
        program: Any = learner.run.program  # type: ignore[attr-defined]
        stored = [i.args[0].array for i in program.instructions if i.name == "store"]
        assert not any(x is p.slot for x in stored for p in learner.model.parameters())

    @only_stand_in
    def test_programs_that_nobody_runs_again_keep_no_memory(self) -> None:
        """The first call, which finds no gradients, has one of its own."""
        learner, data = Learner(True), batches(3)
        learner.run(*data[0])
        first: Any = learner.run.program  # type: ignore[attr-defined]
        learner.run(*data[1])
        assert learner.run.program is not first  # type: ignore[attr-defined]
        assert first._graphed is None
        learner.model.zero_grad()
        learner.run(*data[2])
        assert learner.run.program is first  # type: ignore[attr-defined]
        assert first._graphed is not None  # made again


class TestMemory:
    def test_arguments_may_lie_in_any_order(self) -> None:
        double = tg.compile(lambda x: x * 2)
        whole = tg.arange(24).float().reshape(4, 6)
        for x in (whole, whole.T, whole[:, ::2], whole[1:3, 2:], whole[:0], whole[0].expand(3, 6)):
            for _ in range(2):
                assert double(x).tolist() == (x * 2).tolist()

    def test_arguments_are_read_anew(self) -> None:
        total = tg.compile(lambda x: x.sum())
        x = tg.ones(4)
        assert total(x).item() == 4
        x.fill_(2)
        assert total(x).item() == 8

    def test_what_the_step_does_to_an_argument_is_seen(self) -> None:
        grow = tg.compile(lambda x: x.add_(1).sum())
        for shape in ((3,), (2, 3)):
            x = tg.zeros(shape)
            for times in (1, 2, 3):
                assert grow(x).item() == times * x.numel()
                assert x.max().item() == times

    def test_what_is_read_meanwhile_is_not_overwritten(self) -> None:
        """A result is made where it is stored to only if nobody looks there in between."""
        weight = tg.ones(4)

        def step(x: tg.Tensor) -> tg.Tensor:
            y = x * 2
            before = weight.sum()
            weight.copy_(y)
            return before

        compiled = tg.compile(step)
        found = [compiled(tg.full((4,), float(i))).item() for i in range(4)]
        assert found == [4, 0, 8, 16]
        assert weight.tolist() == [6.0] * 4

    def test_results_are_the_callers_to_keep(self) -> None:
        double = tg.compile(lambda x: x * 2)
        found = [double(tg.full((2,), float(i))) for i in range(4)]
        assert [x.tolist() for x in found] == [[0, 0], [2, 2], [4, 4], [6, 6]]

    def test_arguments_that_share_memory_with_what_is_written_are_refused(self) -> None:
        weight = tg.ones(4)

        def step(x: tg.Tensor) -> tg.Tensor:
            weight.add_(1)
            return x * 2

        with pytest.raises(CaptureError, match="in memory that the step does not write to"):
            tg.compile(step)(weight.detach()[:2])
        assert weight.tolist() == [1.0] * 4

    @only_stand_in
    def test_the_pool_is_the_programs_own(self) -> None:
        import cupy

        data = batches(2)
        learners = [Learner(True), Learner(True)]
        for learner in learners:
            tg.manual_seed(1)
            for _ in range(2):
                learner.run(*data[0])
        pools = [graphed(learner.run)._graphs.pool for learner in learners]
        assert pools[0] is not pools[1]
        used = [pool.used_bytes() for pool in pools]
        cupy.get_default_memory_pool().free_all_blocks()
        held = [cupy.ones(1000) for _ in range(20)]  # somebody else's
        losses = []
        for learner in learners:
            tg.manual_seed(2)
            losses.append(learner.run(*data[1]).item())
        assert losses[0] == losses[1]
        assert [pool.used_bytes() for pool in pools] == used
        assert all(x.sum().item() == 1000 for x in held)

    def test_a_program_that_is_dropped_takes_its_memory_along(self) -> None:
        double = tg.compile(lambda x: x * 2)
        kept = double(tg.ones(3))
        kept = double(tg.ones(3))
        del double
        gc.collect()
        tg.zeros(3)
        assert kept.tolist() == [2.0] * 3


class TestParts:
    """Calls that Python keeps, between graphs."""

    def test_schedules_come_after_one_graph(self) -> None:
        learner = Learner(False)
        schedule = lr_scheduler.ExponentialLR(learner.optimizer, 0.5)

        @tg.compile
        def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
            loss = learner.step(x, t)
            schedule.step()
            return loss

        for x, t in batches(3):
            step(x, t)
        assert schedule.get_last_lr() == [1e-2 / 8]
        text = str(step.program)
        assert text.count("# a graph of") == 1
        assert "Bucket.reread()  # by Python" in text
        assert "step(" in text.split("# a graph of")[1]
        assert text.startswith("program of")
        assert "; pool of " in text

    def test_a_check_of_values_parts_two_graphs(self) -> None:
        def step(x: tg.Tensor, index: tg.Tensor) -> tg.Tensor:
            y = x * 2
            return y[index] + 1

        compiled = tg.compile(step)
        x = tg.arange(4).float()
        for numbers in ([0, 3], [1, 2], [3, 3]):
            assert compiled(x, tg.tensor(numbers)).tolist() == [2 * n + 1 for n in numbers]
        lines = [line.strip() for line in str(compiled.program).splitlines()]
        graphs = [i for i, line in enumerate(lines) if line.startswith("# a graph")]
        check = next(i for i, line in enumerate(lines) if line.endswith("# by Python"))
        assert graphs[0] < check < graphs[1]
        with pytest.raises(IndexError, match=r"within \[-4, 4\)"):
            compiled(x, tg.tensor([0, 4]))
        assert compiled(x, tg.tensor([0, 1])).tolist() == [1, 3]

    def test_options_are_read_before_checks(self) -> None:
        """So that a network that looks numbers up, which are checked, is one graph still."""
        model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        @tg.compile
        def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(3):
            step(tg.tensor([0, 4, 2]), tg.tensor([0, 1, 2]))
        assert str(step.program).count("# a graph of") == 1

    def test_arrays_that_python_returns(self) -> None:
        numbers = iter(range(1, 10))

        def drawn(x: Any) -> Any:
            return backend_for("cuda").asarray(np.full(3, next(numbers), np.float32))

        def step(x: tg.Tensor) -> tg.Tensor:
            y = x + 1
            extra = tg.config.at_each_replay(drawn, y.array)
            return tg.Tensor.wrap(extra, y.backend) * y

        compiled = tg.compile(step)
        assert [compiled(tg.ones(3)).tolist() for _ in range(3)] == [
            [2.0] * 3,
            [4.0] * 3,
            [6.0] * 3,
        ]

    def test_scalars_of_numpy_begin_formulas(self) -> None:
        def step(x: tg.Tensor) -> tg.Tensor:
            return tg.Tensor.wrap(np.float32(3) - np.float32(2) * x.array, x.backend)

        compiled = tg.compile(step)
        for _ in range(2):
            assert compiled(tg.ones(2)).tolist() == step(tg.ones(2)).tolist() == [1, 1]

    def test_many_arrays_become_one(self) -> None:
        """CuPy would send their addresses, from memory that is the host's again afterwards."""

        def step(x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
            rows = [x[i] * i for i in range(20)]
            return tg.stack(rows, 1), tg.cat(rows)

        compiled = tg.compile(step)
        for scale in (1.0, 2.0):
            x = tg.arange(40).float().reshape(20, 2) * scale
            assert [y.tolist() for y in compiled(x)] == [y.tolist() for y in step(x)]

    def test_constants_that_a_step_overwrites_begin_anew(self) -> None:
        def step(x: tg.Tensor) -> tg.Tensor:
            total = tg.zeros(2)
            for row in range(2):
                total += x[row]
            return total

        compiled = tg.compile(step)
        for _ in range(3):
            assert compiled(tg.tensor([[1.0, 2.0], [3.0, 5.0]])).tolist() == [4.0, 7.0]


def test_a_step_with_a_schedule_clipping_and_norms_is_eagers() -> None:
    """The network of the CPU's tests."""
    eager, compiled = Training(False), Training(True)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = tg.tensor(rng.standard_normal((8, 16)).astype("f4"))
        t = tg.tensor(rng.integers(0, 4, 8))
        assert eager.run(x, t).item() == compiled.run(x, t).item()
    assert [x.tolist() for x in eager.state()] == [x.tolist() for x in compiled.state()]
