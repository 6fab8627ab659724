"""Nobody is dropped silently: who is missing or fails has a name and a reason."""

from __future__ import annotations

import json

import inference
import memory
import pytest
import rivals
import rows
import start
import steps
from cases import CASES
from compare import Pace

INSTANT = Pace(rounds=1, warm=0, block=0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this library is installed."""
    monkeypatch.setattr(rivals, "find_spec", lambda name: name == rivals.OURS or None)


def test_who_is_not_installed_is_named_once(alone):
    found = rivals.missing(rivals.TRAINING)
    assert list(found) == ["torch", "jax"]
    assert found["jax"] == "not installed: pip install jax"


def test_packages_are_found_under_the_name_that_is_imported(monkeypatch):
    asked = []
    monkeypatch.setattr(rivals, "find_spec", asked.append)
    assert "scikit-learn" in rivals.missing(["scikit-learn MLPClassifier"])
    assert asked == ["sklearn"]


def test_steps_go_on_without_rivals(alone):
    lines: list[str] = []
    found = steps.measure(["tiny"], ["adam"], INSTANT, lines.append)
    row = found["optimizers"]["adam"]["tiny"]
    assert set(row["seconds"]) == {"tinygrad_bn eager", "tinygrad_bn compiled"}
    assert row["best rival"] is None
    assert row["ahead"] == {}
    assert set(found["absent"]) == {"torch", "jax"}
    assert "missing: torch (not installed: pip install torch)" in lines
    assert "torch: not installed: pip install torch" in rows.missing(found)
    (cells,) = rows.training(found, "adam").rows
    assert cells.count(rows.ABSENT) == 4 + 2  # four forms, two ratios


def test_inference_goes_on_without_rivals(alone):
    found = inference.measure(INSTANT, print)
    assert set(found["absent"]) == {"torch", "jax"}
    ours = [form for form in rivals.INFERENCE if form.startswith("tinygrad_bn")]
    assert list(found["batches"]["1"]["seconds"]) == ours
    assert len(rows.inference(found).rows) == len(rivals.INFERENCE)


def test_inference_leaves_out_who_gives_other_scores(monkeypatch, alone):
    make = rivals.inference

    def false(form, case):
        call = make(form, case)
        return (lambda: call() + 1e-3) if form == "tinygrad_bn folded" else call

    monkeypatch.setattr(rivals, "inference", false)
    row = inference.measured(1, INSTANT)
    assert "scores differ by 1.0e-03" in row["absent"]["tinygrad_bn folded"]
    assert "tinygrad_bn folded" not in row["seconds"]


def test_who_fails_is_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: name)  # everybody is installed

    def make(form: str) -> str:
        if form == "torch compiled":
            raise RuntimeError("no C++ compiler here")
        return form

    found, absent = rivals.made(["tinygrad_bn eager", "torch compiled"], make)
    assert list(found) == ["tinygrad_bn eager"]
    assert absent == {"torch compiled": "failed: RuntimeError: no C++ compiler here"}


def test_a_failure_of_ours_is_an_error():
    with pytest.raises(ZeroDivisionError):
        rivals.made(["tinygrad_bn eager"], lambda form: 1 / 0)


def test_processes_of_their_own_tell_why_they_failed():
    with pytest.raises(RuntimeError, match="KeyError"):
        memory.alone("no such case", "tinygrad_bn eager")
    with pytest.raises(RuntimeError, match="Error"):
        start.fresh(["-c", "raise ValueError('why')"], {})


@pytest.mark.slow
def test_memory_and_start_are_measured_in_processes():
    small = memory.alone("tiny", "tinygrad_bn eager")
    assert 0 <= small["grown"] < small["process"]
    # a network 130 times as large: its parameters, gradients, moments and batches must be seen
    assert memory.alone("b2", "tinygrad_bn eager")["grown"] > memory.needed(CASES["b2"]) > 4
    first = json.loads(start.fresh([start.__file__, "tinygrad_bn eager"], {}).stdout)
    assert first["first step"] > first["second step"] > 0


def test_compilers_are_told_where_to_keep_what_they_compile(tmp_path):
    code = "import numba; print(numba.config.CACHE_DIR)"
    said = start.fresh(["-c", code], start.caches(str(tmp_path))).stdout
    assert said.strip() == str(tmp_path / "numba")


@pytest.mark.torch
def test_scikit_learn_and_fit_take_the_same_steps():
    pytest.importorskip("sklearn")
    import whole_fit

    assert whole_fit.apart().within(whole_fit.SAME)
