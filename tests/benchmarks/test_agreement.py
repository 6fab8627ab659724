"""What is timed must compute the same, and what does not is refused."""

from __future__ import annotations

from dataclasses import replace

import agreement
import numpy as np
import pytest
import rivals
import steps
from agreement import EXACT, SAME, Disagreement, Exact, distance, require, walk
from cases import CASES, OPTIMIZERS
from compare import Pace

QUICK = [form for form in rivals.TRAINING if form not in ("torch compiled", "jax jit")]
INSTANT = Pace(rounds=1, warm=0, block=0)


def needed(form: str) -> None:
    pytest.importorskip(rivals.package(form))


def marked(form: str):
    return pytest.param(form, marks=pytest.mark.torch) if form.startswith("torch") else form


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", [*map(marked, QUICK), "jax jit"])
def test_forms_take_the_same_steps_in_float64(form, optimizer):
    needed(form)
    found = Exact().check(form, optimizer)
    assert found.within(EXACT)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", [*map(marked, QUICK)])
def test_forms_take_the_same_steps_in_float32(form, optimizer):
    needed(form)
    case = CASES["tiny"]
    reference = walk(rivals.training(agreement.REFERENCE, case, optimizer), optimizer)
    path = walk(rivals.training(form, case, optimizer), optimizer)
    assert distance(path, reference).within(SAME[optimizer])


def adam_at(rate_factor: float, monkeypatch: pytest.MonkeyPatch) -> agreement.Path:
    monkeypatch.setitem(agreement.RATES, "adam", agreement.RATES["adam"] * rate_factor)
    return walk(rivals.training(agreement.REFERENCE, CASES["tiny"], "adam"), "adam")


def test_another_learning_rate_is_refused(monkeypatch):
    reference = adam_at(1, monkeypatch)
    found = distance(adam_at(1.25, monkeypatch), reference)
    assert found.movement == pytest.approx(0.25, rel=0.05)  # of three steps that hardly turn
    with pytest.raises(Disagreement, match="expected jax jit to differ by"):
        require("jax jit", found, SAME["adam"])


def test_other_batches_are_refused():
    training = rivals.training(agreement.REFERENCE, CASES["tiny"], "sgd")
    reference = walk(training, "sgd")
    other = rivals.training(agreement.REFERENCE, CASES["tiny"], "sgd")
    next(other.batches)
    found = distance(walk(other, "sgd"), reference)
    assert found.loss > 10 * SAME["sgd"].loss
    assert found.movement > 10 * SAME["sgd"].movement


def test_running_statistics_count_beside_parameters():
    path = walk(rivals.training(agreement.REFERENCE, CASES["tiny"], "adam"), "adam")
    name = "1.running_var"
    biased = path.begin[name] + (path.end[name] - path.begin[name]) * 31 / 32
    other = replace(path, end={**path.end, name: biased})
    assert not distance(other, path).within(EXACT)
    missing = replace(path, end={k: x for k, x in path.end.items() if k != name})
    with pytest.raises(Disagreement, match=name):
        distance(missing, path)


def test_nan_is_no_agreement():
    path = walk(rivals.training(agreement.REFERENCE, CASES["tiny"], "sgd"), "sgd")
    broken = replace(path, losses=[np.nan] * len(path.losses))
    with pytest.raises(Disagreement, match="nan"):
        require("torch eager", distance(broken, path), SAME["sgd"])


@pytest.mark.torch
def test_who_computes_something_else_is_not_timed_but_named(monkeypatch):
    needed("torch")
    make = rivals.training

    def false(form, case, optimizer, dtype="float32"):
        training = make(form, case, optimizer, dtype)
        if form == "torch eager":
            for group in training.optimizer.param_groups:
                group["momentum"] = 0.8
        return training

    timed = {*steps.OURS, "torch fused"}
    monkeypatch.setattr(rivals, "TRAINING", (*steps.OURS, "torch eager", "torch fused"))
    monkeypatch.setattr(rivals, "training", false)
    monkeypatch.setattr(agreement, "training", false)
    lines: list[str] = []
    found = steps.measure(["tiny"], ["sgd"], INSTANT, lines.append)
    row = found["optimizers"]["sgd"]["tiny"]
    assert row["absent"]["torch eager"].startswith("computes something else: expected torch eager")
    assert set(row["seconds"]) == timed
    assert {found["rival"] for found in row["ahead"].values()} == {"torch fused"}
    assert any("torch eager: computes something else" in line for line in lines)


def test_a_false_step_of_ours_is_an_error(monkeypatch):
    make = rivals.training

    def false(form, case, optimizer, dtype="float32"):
        training = make(form, case, optimizer, dtype)
        if form == "tinygrad_bn compiled":
            next(training.batches)
        return training

    monkeypatch.setattr(rivals, "TRAINING", ("tinygrad_bn eager", "tinygrad_bn compiled"))
    monkeypatch.setattr(rivals, "training", false)
    with pytest.raises(Disagreement):
        steps.measure(["tiny"], ["sgd"], INSTANT, print)
