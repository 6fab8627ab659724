"""How long it takes to begin: imports, and the first step of a small network in a fresh process.

    python benchmarks/start.py "torch fused"

is such a process. Compilers find a cache that is empty, then the one that was filled. Kernels that
are loaded late belong to the first step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from time import perf_counter
from typing import Any

import rivals

IMPORTED = ("numpy", "tinygrad_bn", "torch", "jax", "sklearn.neural_network")
FORMS = ("tinygrad_bn eager", "tinygrad_bn compiled", "torch fused", "torch compiled", "jax jit")
IMPORT = "from time import perf_counter as t; a = t(); import {}; print(t() - a)"


def caches(folder: str) -> dict[str, str]:
    """The settings that make all compilers keep what they compile in a folder."""
    return {
        "NUMBA_CACHE_DIR": f"{folder}/numba",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "TRITON_CACHE_DIR": f"{folder}/triton",
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def first_steps(form: str) -> dict[str, float]:
    """Seconds from the import to the end of the first step, and of the second step."""
    from cases import CASES

    import_module(rivals.package(form))
    began = perf_counter()
    training = rivals.training(form, CASES["tiny"], "adam")
    training.step()
    first = perf_counter()
    training.step()
    return {"first step": first - began, "second step": perf_counter() - first}


def fresh(words: list[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a new interpreter says."""
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **settings},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done


def imports(repeats: int) -> dict[str, float]:
    """Median seconds of an import, in turns; the first turn reads the files from the disk."""
    packages = {"sklearn.neural_network": "scikit-learn"}
    absent = rivals.missing(packages.get(name, name) for name in IMPORTED)
    names = [name for name in IMPORTED if packages.get(name, name) not in absent]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            taken = float(fresh(["-c", IMPORT.format(name)], {}).stdout)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def started(form: str, repeats: int) -> dict[str, Any]:
    """A form's steps with an empty cache, and the median of some runs with the filled one; and what
    the first of them said to whoever waited for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = caches(folder)
        empty = fresh([__file__, form], settings)
        warm = [json.loads(fresh([__file__, form], settings).stdout) for _ in range(repeats)]
    return {
        "empty": json.loads(empty.stdout),
        "warm": {key: statistics.median(run[key] for run in warm) for key in warm[0]},
        "said": empty.stderr.splitlines(),
    }


def measure(repeats: int, report: Any) -> dict[str, Any]:
    """Imports and first steps."""
    found = imports(repeats)
    report("import: " + ", ".join(f"{name} {taken:.2f} s" for name, taken in found.items()))
    rows, absent = rivals.made(FORMS, lambda form: started(form, repeats))
    for form, row in rows.items():
        empty, warm = (row[key]["first step"] for key in ("empty", "warm"))
        report(f"{form}: first step {empty:.2f} s, with a warm cache {warm:.2f} s")
    return {"absent": absent, "imports": found, "first steps": rows}


if __name__ == "__main__":
    print(json.dumps(first_steps(sys.argv[1])))
