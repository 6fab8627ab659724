"""Peak memory of a training step, each form in a process of its own.

    python benchmarks/memory.py b64 "torch fused"

is such a process. First it trains a small network, so that all libraries have loaded whatever they
load late; what is resident then is where counting begins. Then it builds the network and takes two
steps, in which compilers work, sets the kernel's high-water mark back, and takes more: the peak of
these, less the beginning, is what model, gradients, optimizer, two batches and a step need.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import rivals
from cases import CASES, Case
from steps import Report

LARGE = ("b64", "b1024", "b4096", "big")
"""The cases whose memory is more than noise."""
SMALL = Case("small", (128, 128, 128, 10), 64, most=2)
"""Wide enough for the kernels that larger networks take."""
STEPS = 10
MEGABYTE = 1 << 20


def trimmed() -> None:
    """Give back what the C library keeps of what was freed, so that nobody builds on it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes of this process in memory, counted exactly."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes in memory since the last reset."""
    text = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def grown(case: Case, form: str, optimizer: str = "adam") -> dict[str, float]:
    """Megabytes that a form's training takes at its peak."""
    small = rivals.training(form, SMALL, optimizer)
    for _ in range(4):
        small.step()
    del small
    trimmed()
    begin = resident()
    steps = rivals.training(form, replace(case, most=2), optimizer)
    steps.step()
    steps.step()
    trimmed()
    reset_peak()
    for _ in range(STEPS):
        steps.step()
    return {"grown": (peak() - begin) / MEGABYTE, "process": peak() / MEGABYTE}


def needed(case: Case) -> float:
    """Megabytes of parameters, gradients, two moments and two batches: what nobody does without."""
    return (16 * case.parameters + 2 * case.batch * (4 * case.widths[0] + 8)) / MEGABYTE


def measure(cases: Iterable[str], report: Report) -> dict[str, Any]:
    """All forms on some cases with Adam."""
    absent = rivals.missing(rivals.TRAINING)
    found: dict[str, Any] = {}
    for name in cases:
        sizes, failed = rivals.made(rivals.TRAINING, lambda form, name=name: alone(name, form))
        row = {"needed": needed(CASES[name]), "megabytes": sizes, "absent": failed}
        found[name] = row
        told = ", ".join(f"{form} {size['grown']:.1f}" for form, size in sizes.items())
        report(f"{name}: MiB needed {row['needed']:.1f}; {told}")
    return {"absent": absent, "cases": found}


def alone(case: str, form: str) -> Any:
    """What `grown` says in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, case, form], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(grown(CASES[sys.argv[1]], sys.argv[2])))
