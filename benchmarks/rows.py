"""What the results of run.py say, as tables: the same rows for the terminal and for README.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import rivals

Results = dict[str, Any]
ABSENT = "–"
LEVEL = 0.98
"""A ratio from which on nobody loses: below it a difference is more than what runs differ by."""


@dataclass
class Table:
    """A table whose first column names its rows."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float | None) -> str:
    """A time in three digits, in the unit that suits it."""
    if seconds is None:
        return ABSENT
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{three(seconds / size)} {unit}"
    return f"{three(seconds)} s"


def three(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"


def times(found: dict[str, Any] | None, named: bool = False) -> str:
    """A ratio with its quartiles, and whose it is."""
    if found is None:
        return ABSENT
    low, high = found["quartiles"]
    rival = f", {found['rival']}" if named else ""
    return f"{found['median']:.2f}× ({low:.2f}–{high:.2f}){rival}"


def median(found: dict[str, Any], form: str) -> str:
    return duration(found[form]["median"] if form in found else None)


def short(form: str) -> str:
    """A form in a column's head."""
    return form.replace("tinygrad_bn", "ours")


def training(results: Results, optimizer: str) -> Table:
    """Times of a step, who is ahead by how much, and how near to the floor."""
    ours = ("tinygrad_bn compiled", "tinygrad_bn eager")
    forms = [*ours, *(form for form in rivals.TRAINING if form not in ours)]
    header = ["", *map(short, forms), "floor", "floor over ours compiled"]
    header += ["best of all over ours compiled", "best of PyTorch over ours eager"]
    table = Table(f"A training step with {optimizer}", header)
    for name, row in results["optimizers"].get(optimizer, {}).items():
        cells = [median(row["seconds"], form) for form in forms]
        cells += [duration(row["floor"]["total"]), f"{100 * row['of the floor'][ours[0]]:.0f} %"]
        table.rows.append([name, *cells, *(times(row["ahead"].get(form), True) for form in ours)])
    return table


def inference(results: Results) -> Table:
    """Latencies, a row a form."""
    batches = list(results["batches"])
    header = ["", *(f"batch {b}" for b in batches)]
    header += [f"best rival over it, batch {b}" for b in batches]
    table = Table("Inference", header)
    for form in rivals.INFERENCE:
        found = [results["batches"][b] for b in batches]
        cells = [median(row["seconds"], form) for row in found]
        table.rows.append([short(form), *cells, *(times(row["ahead"].get(form)) for row in found)])
    return table


def memory(results: Results) -> Table:
    """Megabytes at the peak of a step."""
    table = Table("Peak memory of a step, MiB", ["", "needed", *map(short, rivals.TRAINING)])
    for name, row in results["cases"].items():
        sizes = row["megabytes"]
        cells = [f"{sizes[f]['grown']:.1f}" if f in sizes else ABSENT for f in rivals.TRAINING]
        table.rows.append([name, f"{row['needed']:.1f}", *cells])
    return table


def imports(results: Results) -> Table:
    """Seconds of imports."""
    found = results["imports"]
    return Table("Import", ["", *found], [["seconds", *(f"{s:.2f}" for s in found.values())]])


def start(results: Results) -> Table:
    """First and second steps."""
    table = Table("First step", ["", "empty cache", "warm cache", "second step, warm"])
    for form, row in results["first steps"].items():
        empty, warm = row["empty"], row["warm"]
        cells = (empty["first step"], warm["first step"], warm["second step"])
        table.rows.append([short(form), *map(duration, cells)])
    return table


def fit(results: Results) -> Table:
    """Whole fits, and how good they are."""
    tasks = results["tasks"]
    forms = list(next(iter(tasks.values()))["seconds"])
    header = ["", *(short(form) for form in forms)]
    ours = [form for form in forms if form.startswith(rivals.OURS)]
    header += [f"scikit-learn over {short(form)}" for form in ours]
    table = Table("A whole fit: seconds, and test accuracy", header)
    for name, row in tasks.items():
        cells = [
            f"{median(row['seconds'], form)}, {100 * row['test accuracy'][form]:.1f} %"
            for form in forms
        ]
        table.rows.append([name, *cells, *(times(row["ahead"].get(form)) for form in ours)])
    return table


def missing(results: Results) -> list[str]:
    """Who is absent, where, and why."""
    everywhere = results.get("absent", {})
    found = [f"{name}: {why}" for name, why in everywhere.items()]
    for place, row in rows_of(results):
        for form, why in row.get("absent", {}).items():
            if form not in everywhere:
                found.append(f"{form} at {place}: {why}")
    return found


def rows_of(results: Results) -> Iterable[tuple[str, Any]]:
    """All rows of a result, with their names."""
    for optimizer, cases in results.get("optimizers", {}).items():
        for name, row in cases.items():
            yield f"{name}, {optimizer}", row
    yield from ((f"batch {b}", row) for b, row in results.get("batches", {}).items())
    for key in ("cases", "tasks"):
        yield from results.get(key, {}).items()


def defeats(results: Results) -> list[str]:
    """Where ours are slower than the best of all rivals, a line a form."""
    found: dict[str, list[str]] = {}
    for name, row in rows_of(results):
        case, _, optimizer = name.partition(", ")
        rival = row.get("best rival")
        for form, own in row["seconds"].items():
            if rival and rivals.package(form) == rivals.OURS:
                ratio = own["median"] / row["seconds"][rival]["median"]
                if ratio > 1 / LEVEL:
                    title = f"{short(form)}, {optimizer}" if optimizer else short(form)
                    found.setdefault(title, []).append(f"{case} {ratio:.2f}× {rival}")
    return [f"{title}: {', '.join(lost)}" for title, lost in found.items()]


def heavier(results: Results) -> list[str]:
    """Where ours take more memory than PyTorch's leanest form, a line a form."""
    found: dict[str, list[str]] = {}
    for name, row in results["cases"].items():
        sizes = {form: size["grown"] for form, size in row["megabytes"].items()}
        theirs = [size for form, size in sizes.items() if form.startswith("torch")]
        for form, size in sizes.items():
            if form.startswith(rivals.OURS) and theirs and size > min(theirs):
                found.setdefault(short(form), []).append(f"{name} {size / min(theirs):.2f}×")
    return [
        f"{form}, over PyTorch's leanest form: {', '.join(lost)}" for form, lost in found.items()
    ]


def origin(results: Results) -> str:
    """When, where and of what the figures are."""
    machine, how = results["machine"], results.get("how", {})
    cores = {x["architecture"] for x in machine["blas"] if x["architecture"]}
    versions = machine["versions"]
    used = " ".join(f"{name} {versions[name]}" for name in versions if versions[name])
    quick = "; **a quick run, for its form only**" if how.get("quick") else ""
    disturbed = how.get("disturbed")
    if how.get("clock") == "cpu":
        quick += "; times are the processor's, not the wall's"
    shared = f"; the core was shared in {disturbed} of turns" if disturbed else ""
    return (
        f"Measured {machine['made'][:10]} at `{machine['commit']}` on {machine['processor']}, "
        f"BLAS for {', '.join(sorted(cores)) or 'an unknown core'}, {used}{quick}{shared}."
    )
