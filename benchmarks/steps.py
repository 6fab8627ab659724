"""Training steps: forward, loss, backward and update, in every form of every library."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import floor
import rivals
from agreement import REFERENCE, SAME, Disagreement, Distance, Exact, distance, require, walk
from cases import CASES, Case
from compare import Measured, Pace, Times, best, compare, ratio, spread

RATE = 1e-6
"""The learning rate while it is timed: so slow that the loss stays where it is."""
OURS = ("tinygrad_bn compiled", "tinygrad_bn eager")
LARGE = 1e10
"""FLOPs of a step from which on five rounds must do."""

Report = Callable[[str], None]


def measure(
    cases: Iterable[str], optimizers: Iterable[str], pace: Pace, report: Report
) -> dict[str, Any]:
    """Every case with every optimizer; who is absent, and why, stands beside the figures."""
    absent = rivals.missing(rivals.TRAINING)
    for name, why in absent.items():
        report(f"missing: {name} ({why})")
    exact = Exact()
    found: dict[str, Any] = {}
    for optimizer in optimizers:
        for name in cases:
            row = measured(CASES[name], optimizer, pace, exact)
            found.setdefault(optimizer, {})[name] = row
            report(line(f"{name}, {optimizer}", row))
            for form, why in row["absent"].items():
                if form not in absent:
                    report(f"  {form}: {why}")
    return {"absent": absent, "optimizers": found}


def measured(case: Case, optimizer: str, pace: Pace, exact: Exact) -> dict[str, Any]:
    """One case: made, checked, timed."""
    trainings, absent = rivals.made(
        rivals.TRAINING, lambda form: rivals.training(form, case, optimizer)
    )
    agreed, differing = agreeing(trainings, optimizer, exact)
    calls: dict[str, Callable[[], Any]] = {form: trainings[form].step for form in agreed}
    calls |= floor.references(case, optimizer)
    if case.flops > LARGE:
        pace = replace(pace, rounds=min(pace.rounds, 5))
    times = compare(calls, pace)
    row = summary(times, list(agreed), case, optimizer)
    row["agreement"] = {form: asdict(found) for form, found in agreed.items()}
    row["absent"] = absent | differing
    del trainings, calls
    rivals.forget()
    gc.collect()
    return row


def agreeing(
    trainings: dict[str, rivals.Training], optimizer: str, exact: Exact
) -> tuple[dict[str, Distance], dict[str, str]]:
    """The forms that compute what ours does, how closely, and why the others are left out."""
    paths = {form: walk(steps, optimizer) for form, steps in trainings.items()}
    agreed: dict[str, Distance] = {}
    differing: dict[str, str] = {}
    for form, path in paths.items():
        trainings[form].learn(RATE)
        try:
            exact.check(form, optimizer)
            agreed[form] = require(form, distance(path, paths[REFERENCE]), SAME[optimizer])
        except Disagreement as error:
            if rivals.package(form) == rivals.OURS:
                raise
            differing[form] = f"computes something else: {error}"
    return agreed, differing


def summary(times: Measured, forms: list[str], case: Case, optimizer: str) -> dict[str, Any]:
    """Times and the floor, and how far ours are ahead: the compiled step of the best of all, the
    eager one of the best of PyTorch, which also compiles.
    """
    seconds = times.seconds
    rates = floor.rates(seconds, case, optimizer)
    bound = floor.floor(case, optimizer, rates)
    row: dict[str, Any] = {
        "seconds": {form: spread(seconds[form]) for form in forms},
        "cores": {form: spread(times.cores[form])["median"] for form in forms},
        "rates": rates,
        "floor": bound,
    }
    theirs = [form for form in forms if rivals.package(form) != rivals.OURS]
    row["best rival"] = best(seconds, theirs)
    eager = [form for form in theirs if rivals.package(form) == "torch"] or theirs
    row["ahead"] = ahead(seconds, {OURS[0]: theirs, OURS[1]: eager})
    row["of the floor"] = {
        form: round(bound["total"] / row["seconds"][form]["median"], 3) for form in forms
    }
    return row


def ahead(seconds: Times, rivals_of: dict[str, list[str]]) -> dict[str, Any]:
    """For each of our forms the best of its rivals, and how many times as long that takes."""
    return {
        form: {"rival": rival, **ratio(seconds, rival, form)}
        for form, theirs in rivals_of.items()
        if (rival := best(seconds, theirs))
    }


def line(title: str, row: dict[str, Any]) -> str:
    """A row while the others are still to come."""
    found = [f"{r['rival']} {r['median']}× {form}" for form, r in row["ahead"].items()]
    return f"{title}: {times_of(row)}; {', '.join(found)}"


def times_of(row: dict[str, Any]) -> str:
    return ", ".join(f"{form} {s['median'] * 1e6:.0f} µs" for form, s in row["seconds"].items())
