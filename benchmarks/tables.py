"""The tables of README.md, from the JSON files under results/.

    python benchmarks/tables.py

writes everything between <!-- name --> and <!-- /name --> anew; what stands around it is prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import kernel_rows
import rows
from machine import RESULTS
from rows import Results

README = Path(__file__).with_name("README.md")
SECTION = re.compile(r"(<!-- (?P<name>[\w-]+) -->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)

TABLES: dict[str, tuple[str, Callable[[Results], rows.Table]]] = {
    "adam": ("steps", partial(rows.training, optimizer="adam")),
    "sgd": ("steps", partial(rows.training, optimizer="sgd")),
    "inference": ("inference", rows.inference),
    "memory": ("memory", rows.memory),
    "imports": ("start", rows.imports),
    "start": ("start", rows.start),
    "fit": ("fit", rows.fit),
    "operations": ("per_operation", kernel_rows.operations),
    "accuracy": ("accuracy", kernel_rows.accuracy),
    "normalization": ("normalization", kernel_rows.normalization),
    "optimizers": ("kernels", kernel_rows.optimizers),
    "kernels": ("kernels", kernel_rows.kernels),
}
"""The section's name, the file that it is made from, and how."""
DEFEATS: dict[str, tuple[str, Callable[[Results], list[str]]]] = {
    "steps": ("training steps", rows.defeats),
    "inference": ("inference", rows.defeats),
    "memory": ("memory", rows.heavier),
    "fit": ("whole fits", rows.defeats),
    "per_operation": ("single operations", kernel_rows.slower_operations),
    "normalization": ("norms", kernel_rows.slower_norms),
}
"""What tells of each file where somebody else is better."""


def results(name: str, folder: Path = RESULTS) -> Results | None:
    """What was measured last; None if that has not happened."""
    path = folder / f"{name}.json"
    found: Results | None = json.loads(path.read_text()) if path.exists() else None
    return found


def section(name: str, folder: Path = RESULTS) -> str:
    """The text of a section."""
    if name == "defeats":
        return defeats(folder)
    if name not in TABLES:
        raise SystemExit(f"expected a section of {', '.join([*TABLES, 'defeats'])}, got {name}")
    source, table = TABLES[name]
    found = results(source, folder)
    if found is None:
        return f"`results/{source}.json` does not exist yet: nothing has been measured.\n"
    parts = [table(found).markdown(), rows.origin(found)]
    parts += [f"Missing: {line}." for line in rows.missing(found)]
    return "\n\n".join(parts) + "\n"


def defeats(folder: Path = RESULTS) -> str:
    """All rows in which somebody else is better."""
    lines: list[str] = []
    for source, (title, told) in DEFEATS.items():
        found = results(source, folder)
        lost = ["not measured yet"] if found is None else told(found)
        lines += [f"- {title}, {line}" for line in lost]
    return "\n".join(lines or ["Nowhere in the tables below."]) + "\n"


def rewritten(text: str, folder: Path = RESULTS) -> str:
    """A page with its sections made anew."""
    return SECTION.sub(lambda match: f"{match[1]}{section(match['name'], folder)}{match[3]}", text)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
    print("written:", README)
