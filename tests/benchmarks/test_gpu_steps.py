"""The training steps of gpu.py, tiny: ours on the stand-in, PyTorch's on the CPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import Case
from on_gpu import Bench, Budget, training

import tinygrad_bn as tg
from tests.benchmarks.conftest import ABSENT

TINY = Case("tiny", (6, 8, 5), 16)


class TestSteps:
    def test_ours_run_and_who_is_absent_is_named(self, bench: Bench) -> None:
        found = training.measure(bench, [TINY])
        assert list(found) == ["tiny float32", "tiny bfloat16"]
        for row in found.values():
            assert row["seconds"]["tinygrad_bn eager"]["median"] == 1e-3
            assert row["absent"]["torch"] == ABSENT["torch"]
            assert row["best rival"] is None
            assert row["differing"] == {}
            assert row["seconds"]["tinygrad_bn compiled"]["median"] == 1e-3
            assert set(row["agreement"]["tinygrad_bn compiled"].values()) == {0}  # eager's bits

    def test_ours_learn_on_the_gpu_in_float32_weights(self) -> None:
        made = training.Training("tinygrad_bn eager", TINY, "bfloat16", "cuda")
        assert {p.device for p in made.model.parameters()} == {"cuda:0"}
        assert {str(p.dtype) for p in made.model.parameters()} == {"float32"}
        before = made.state()
        made.learn(1e-2)
        made.step()
        after = made.state()
        assert all(np.any(before[name] != after[name]) for name in before)

    @pytest.mark.torch
    @pytest.mark.parametrize("dtype", training.DTYPES)
    def test_pytorch_computes_the_same_and_fails_where_it_must(
        self, beside: Bench, dtype: str
    ) -> None:
        if beside.torch.cuda.is_available():
            pytest.skip("asks for a PyTorch that cannot capture")
        forms = ("tinygrad_bn eager", "torch eager", "torch fused", "torch graphed")
        row = training.measured(beside, TINY, dtype, forms)
        assert set(row["seconds"]) == set(forms[:3])
        assert set(row["absent"]) == {"torch graphed"}
        assert row["differing"] == {}
        assert row["best rival"] == "torch eager"
        assert row["ahead"]["tinygrad_bn eager"]["median"] == 1

    @pytest.mark.torch
    def test_who_computes_something_else_is_timed_and_named(
        self, beside: Bench, monkeypatch: Any
    ) -> None:
        losses = training.losses

        def other(library: Any, *args: Any) -> Any:
            loss_of = losses(library, *args)
            return loss_of if library is tg else lambda x, y: 2 * loss_of(x, y)

        monkeypatch.setattr(training, "losses", other)
        row = training.measured(beside, TINY, "float32", ("tinygrad_bn eager", "torch eager"))
        assert "torch eager" in row["seconds"]
        assert "differs from tinygrad_bn eager" in row["differing"]["torch eager"]

    def test_what_fails_for_all_is_named_for_all(self, bench: Bench, monkeypatch: Any) -> None:
        def fails(*args: Any) -> Any:
            raise MemoryError("none left")

        monkeypatch.setattr(training, "compare", fails)
        found = training.measure(bench, [TINY], ["float32"], ["tinygrad_bn eager"])
        absent = found["tiny float32"]["absent"]
        assert absent == {"tinygrad_bn eager": "MemoryError: none left"}

    def test_without_time_left_no_step_begins(self, bench: Bench) -> None:
        clock = iter([0.0, 11.0])
        late = replace(bench, budget=Budget(10, lambda: next(clock)))
        found = training.measure(late, [TINY], ["float32"])
        assert found["tiny float32"]["absent"] == dict.fromkeys(
            training.FORMS, "no time left of 10 s"
        )

    def test_the_networks_are_those_of_the_goals(self) -> None:
        found = [(case.widths, case.batch) for case in training.CASES]
        small = [((784, 256, 256, 10), batch) for batch in (64, 1024, 16384)]
        assert found == [*small, ((1024, 4096, 4096, 4096, 1000), 8192)]


class Recorded:
    """As much of PyTorch's CUDA graphs as a CPU can follow: a capture runs what it captures."""

    def __init__(self, torch: Any) -> None:
        self.torch, self.replays = torch, 0
        self.no_grad = torch.no_grad
        self.cuda = SimpleNamespace(
            Stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
            current_stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
            stream=lambda stream: torch.enable_grad(),
            graph=lambda graph: torch.enable_grad(),
            CUDAGraph=lambda: SimpleNamespace(replay=self.replay),
        )

    def replay(self) -> None:
        self.replays += 1


@pytest.mark.torch
def test_a_graph_begins_where_all_begin_and_reads_the_batch_it_is_given() -> None:
    torch = pytest.importorskip("torch")
    made = training.Training("torch eager", TINY, "float32", "cpu")
    loss_of = training.losses(torch, made.model, "float32", "cpu")
    begin, (x, y) = made.state(), next(made.batches)
    seen: list[Any] = []

    def kept(x: Any, y: Any) -> Any:
        seen.append((x, y))
        return loss_of(x, y)

    library = Recorded(torch)
    replay = training.graphed(library, kept, made.model, made.optimizer, x, y)
    for name, value in made.state().items():
        np.testing.assert_array_equal(value, begin[name])
    for state in made.optimizer.state.values():
        assert all(not value.any() for value in state.values())
    assert len(seen) == 4
    other_x, other_y = next(made.batches)
    replay(other_x, other_y)
    assert library.replays == 1
    assert torch.equal(seen[-1][0], other_x)
    assert torch.equal(seen[-1][1], other_y)
    assert seen[-1][0] is not x
