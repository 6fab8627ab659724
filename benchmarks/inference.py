"""Inference: how long a trained model takes for a batch of one, and of 64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import rivals
from cases import CASES
from compare import Pace, best, compare, spread
from steps import Report, ahead, times_of

BATCHES = (1, 64)
REFERENCE = "tinygrad_bn eager"
BOUND = 1e-4
"""How far scores, which are around 1, may be apart: folding rounds weights anew."""


def measure(pace: Pace, report: Report) -> dict[str, Any]:
    """The scores of the MNIST network in evaluation mode, without a graph."""
    found: dict[str, Any] = {}
    for batch in BATCHES:
        row = found[str(batch)] = measured(batch, pace)
        report(f"batch {batch}: {times_of(row)}")
    return {"absent": rivals.missing(rivals.INFERENCE), "batches": found}


def measured(batch: int, pace: Pace) -> dict[str, Any]:
    """One batch size; a form that gives other scores is left out, and named."""
    case = replace(CASES["b64"], batch=batch)
    calls, absent = rivals.made(rivals.INFERENCE, lambda form: rivals.inference(form, case))
    with ExitStack() as stack:
        for library in {rivals.package(form) for form in calls} & {rivals.OURS, "torch"}:
            stack.enter_context(import_module(library).inference_mode())
        for form, apart in differences(calls).items():
            if not apart <= BOUND:
                absent[form] = f"computes something else: scores differ by {apart:.1e}"
                del calls[form]
        times = compare(calls, pace)
    rivals.forget()
    theirs = [form for form in calls if rivals.package(form) != rivals.OURS]
    ours = [form for form in calls if form not in theirs]
    return {
        "seconds": {form: spread(times.seconds[form]) for form in calls},
        "cores": {form: spread(times.cores[form])["median"] for form in calls},
        "best rival": best(times.seconds, theirs),
        "ahead": ahead(times.seconds, dict.fromkeys(ours, theirs)),
        "absent": absent,
    }


def differences(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """How far the scores of the first batch are from those of our eager model."""
    found = {form: np.asarray(array(call())) for form, call in calls.items()}
    return {form: float(np.max(np.abs(x - found[REFERENCE]))) for form, x in found.items()}


def array(scores: Any) -> Any:
    return scores.numpy() if hasattr(scores, "numpy") else scores
