"""What the results of the other programs say, as tables for README.md."""

from __future__ import annotations

import statistics
from typing import Any

from rows import ABSENT, LEVEL, Results, Table, duration

LIBRARIES = ("tinygrad_bn", "torch")
SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


def torch_name(results: Results) -> str:
    """PyTorch with the version that was measured."""
    version = results["machine"]["versions"].get("torch") or "(missing)"
    return f"PyTorch {'.'.join(version.split('.')[:2])}"


def accuracy(results: Results) -> Table:
    """What the command's defaults reach."""
    table = Table("", ["data", "test accuracy, mean ± s.d.", "lowest of the seeds"])
    for name, title in SETS.items():
        if name in results:
            found = [100 * run["test_accuracy"] for run in results[name]["runs"]]
            mean, spread = statistics.mean(found), statistics.stdev(found)
            table.rows.append([title, f"{mean:.2f} ± {spread:.2f} %", f"{min(found):.2f} %"])
    return table


def operations(results: Results) -> Table:
    """Microseconds an operation, forward and with backward."""
    corner = f"µs an operation, tinygrad_bn / {torch_name(results)}"
    header = [corner, "forward", "ratio", "forward and backward", "ratio"]
    table = Table("Eager operations on 16 numbers", header)
    ratios: dict[str, list[float]] = {"forward": [], "both": []}
    for name, row in results["microseconds an operation"].items():
        cells = [name]
        for phase, known in ratios.items():
            found = [
                row[f"{lib} {phase}"]["median"] for lib in LIBRARIES if f"{lib} {phase}" in row
            ]
            cells.append(" / ".join(f"{x:.1f}" for x in found))
            if len(found) == len(LIBRARIES):
                known.append(found[1] / found[0])
                cells.append(f"{known[-1]:.2f}×")
            else:
                cells.append(ABSENT)
        table.rows.append(cells)
    if all(ratios.values()):
        forward, both = (f"{statistics.geometric_mean(r):.2f}×" for r in ratios.values())
        table.rows.append(["geometric mean", "", forward, "", both])
    return table


def normalization(results: Results) -> Table:
    """Microseconds of a norm's call, through the tape and alone."""
    corner = f"µs a call, tinygrad_bn / alone / {torch_name(results)}"
    phases = [
        head
        for name in ("forward", "forward and backward")
        for head in (name, "ratio", "ratio alone")
    ]
    table = Table("", [corner, *phases])
    for name, row in results["microseconds"].items():
        cells = [name.replace("_", " ")]
        for phase in ("forward", "both"):
            found = [row.get(f"{who} {phase}") for who in ("tinygrad_bn", "alone", "torch")]
            cells.append(" / ".join(spaced(x["median"]) for x in found if x))
            ratios = [x.get("PyTorch takes, times") for x in found[:2] if x]
            cells += [ABSENT if ratio is None else f"{ratio:.2f}×" for ratio in ratios]
        table.rows.append(cells)
    return table


def spaced(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def kernel_ratio(row: dict[str, Any], other: str) -> str:
    """How many times the call with kernels fits into another form."""
    if other not in row:
        return ABSENT
    return f"{row[other]['median'] / row['kernel']['median']:.1f}×"


def optimizers(results: Results) -> Table:
    """Steps of optimizers: with kernels, against the reference and PyTorch."""
    header = ["a step of", "parameters", "time", "of a copy", "reference bodies", "PyTorch"]
    table = Table("", header)
    for name, row in results["microseconds a call"].items():
        if "speed of a copy" in row:
            optimizer, parameters = name.split(", ")
            cells = [optimizer, parameters, duration(row["kernel"]["median"] * 1e-6)]
            cells += [f"{row['speed of a copy']:.1f}"]
            table.rows.append([*cells, *(kernel_ratio(row, x) for x in ("reference", "torch"))])
    return table


def kernels(results: Results) -> Table:
    """The other calls with kernels, against the reference and PyTorch."""
    table = Table("", ["", "time", "reference bodies", "PyTorch"])
    for name, row in results["microseconds a call"].items():
        if "speed of a copy" not in row:
            reference = kernel_ratio(row, "reference")
            if "norms only" in row:
                reference += f" (with the norms' kernels {kernel_ratio(row, 'norms only')})"
            cells = [name, duration(row["kernel"]["median"] * 1e-6)]
            table.rows.append([*cells, reference, kernel_ratio(row, "torch")])
    return table


def slower_operations(results: Results) -> list[str]:
    """Operations that PyTorch does quicker, a line a phase."""
    found = []
    for phase, title in (("forward", "forward"), ("both", "forward and backward")):
        ratios = {
            name: row[f"torch {phase}"]["median"] / row[f"tinygrad_bn {phase}"]["median"]
            for name, row in results["microseconds an operation"].items()
            if f"torch {phase}" in row
        }
        found += listed(title, ratios)
    return found


def slower_norms(results: Results) -> list[str]:
    """Norms that PyTorch does quicker, a line a phase."""
    found = []
    for phase, title in (("forward", "forward"), ("both", "forward and backward")):
        ratios = {
            name.replace("_", " "): row[f"tinygrad_bn {phase}"]["PyTorch takes, times"]
            for name, row in results["microseconds"].items()
            if f"torch {phase}" in row
        }
        found += listed(title, ratios)
    return found


def listed(title: str, ratios: dict[str, float]) -> list[str]:
    """One line of all ratios at which we lose."""
    lost = [f"{name} {1 / x:.2f}×" for name, x in ratios.items() if x < LEVEL]
    return [f"{title}, over PyTorch: {', '.join(lost)}"] if lost else []
