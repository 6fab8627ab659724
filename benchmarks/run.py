"""How fast this library is, and who is faster.

    python benchmarks/run.py [--quick] [--sections steps ...] [--cases tiny,b64] [--optimizers adam]

Training steps, inference, memory, start, whole fits, norms and single operations, beside PyTorch,
JAX and scikit-learn in their best forms; README.md says how each figure is made. A rival that is
not installed, fails, or computes something else is named. On one core, unless --threads says more.

Prints tables, writes a JSON file for each section to results/, and plots to plots/. A quick run, or
one of some cases only, leaves those alone: it writes to --out, or to a temporary folder.
Afterwards, `python benchmarks/tables.py` brings README.md up to date.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from machine import RESULTS, settle, write

SECTIONS = {
    "steps": "steps",
    "inference": "inference",
    "memory": "memory",
    "start": "start",
    "fit": "fit",
    "norms": "normalization",
    "operations": "per_operation",
}
"""The sections, and the name of the file that each writes."""
PLOTS = Path(__file__).parent / "plots"
WIDTH = 190
"""Columns of a table that goes into a file."""
SHARED = 0.9
"""Cores kept busy below which something else had a part of the core."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = partial(parser.add_argument, type=lambda text: text.split(","), metavar="A,B")
    words("--sections", default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    words("--cases", help="some of tiny,b2,b16,b64,b256,b1024,b4096,big; for steps and memory")
    words("--optimizers", help="adam, sgd or both, for steps")
    parser.add_argument("--quick", action="store_true", help="few rounds: for a first look")
    parser.add_argument("--threads", type=int, default=1, help="of everything; 1 by default")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="of steps, inference and fits; cpu for a first look on a machine that others use",
    )
    parser.add_argument("--out", type=Path, help="the folder for JSON files and plots")
    found = parser.parse_args()
    unknown = sorted(set(found.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"expected sections from {','.join(SECTIONS)}, got {','.join(unknown)}")
    return found


def measurements(asked: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    """What measures each section. Imports come here: the environment is settled by now."""
    import inference
    import memory
    import norms
    import per_operation
    import start
    import steps
    import whole_fit
    from cases import CASES, OPTIMIZERS
    from compare import QUICK, Pace

    cases, optimizers = asked.cases or list(CASES), asked.optimizers or list(OPTIMIZERS)
    for given, known in ((cases, CASES), (optimizers, OPTIMIZERS)):
        if unknown := sorted(set(given) - set(known)):
            raise SystemExit(f"expected some of {','.join(known)}, got {','.join(unknown)}")
    pace = replace(QUICK if asked.quick else Pace(), cpu=asked.clock == "cpu")
    clock = process_time if pace.cpu else perf_counter
    large = [case for case in cases if case in memory.LARGE]
    return {
        "steps": partial(steps.measure, cases, optimizers, pace, report),
        "inference": partial(inference.measure, pace, report),
        "memory": partial(memory.measure, large, report),
        "start": partial(start.measure, 1 if asked.quick else 3, report),
        "fit": partial(whole_fit.measure, 1 if asked.quick else 5, clock, report),
        "norms": partial(norms.measure, 3 if asked.quick else 11, asked.threads, report),
        "operations": partial(per_operation.measure, 3 if asked.quick else 31, report),
    }


def disturbed(results: dict[str, Any]) -> str | None:
    """In which part of all turns something else had the core."""
    from rows import rows_of

    cores = [x for _, row in rows_of(results) for x in row.get("cores", {}).values()]
    below = sum(x < SHARED for x in cores)
    return f"{100 * below / len(cores):.0f} %" if below else None


def folder_of(asked: argparse.Namespace) -> Path:
    """Where results go: what is not the whole must not take the place of what is."""
    if asked.out:
        return Path(asked.out).resolve()
    partly = asked.quick or asked.cases or asked.optimizers
    if partly or asked.threads != 1 or asked.clock != "wall":
        return Path(tempfile.mkdtemp(prefix="benchmarks-"))
    return RESULTS


def show(sections: list[str], folder: Path, console: Any) -> None:
    """Tables, who is missing and where we lose, of what has just been written."""
    import rows
    import tables
    from rich.table import Table

    for source in (SECTIONS[name] for name in sections):
        results = tables.results(source, folder) or {}
        for kind, make in tables.TABLES.values():
            if kind != source:
                continue
            made = make(results)
            shown = Table(*made.header, title=made.title)
            for row in made.rows:
                shown.add_row(*row)
            console.print(shown)
        lost = tables.DEFEATS[source][1](results) if source in tables.DEFEATS else []
        told = [f"missing: {line}" for line in rows.missing(results)]
        for line in [*told, *(f"we lose: {line}" for line in lost)]:
            console.print(line, highlight=False, soft_wrap=True)


def main() -> None:
    asked = options()
    pinned = settle(asked.threads)
    from plots import drawn
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    folder = folder_of(asked)
    how = {"threads": asked.threads, "on cores": pinned}
    how |= {"clock": asked.clock, "quick": asked.quick}
    measures = measurements(asked, partial(console.print, highlight=False, soft_wrap=True))
    failed = []
    for name in asked.sections:
        console.rule(name)
        try:
            results = measures[name]()
        except Exception:  # what the other sections take minutes for is not lost
            console.print_exception()
            failed.append(name)
            continue
        told = {**how, "disturbed": disturbed(results), "load": os.getloadavg()[0]}
        path = write(SECTIONS[name], {"how": told, **results}, folder)
        console.print("written:", str(path), soft_wrap=True)
    show([name for name in asked.sections if name not in failed], folder, console)
    for path in drawn(folder, PLOTS if folder == RESULTS.resolve() else folder):
        console.print("drawn:", str(path), soft_wrap=True)
    if failed:
        raise SystemExit(f"expected all sections to run, but {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
