"""What a measurement must say about where it was made, and how its process is set up."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = "numpy scipy numba cupy-cuda13x torch jax scikit-learn".split()
POOLS = "OPENBLAS OMP MKL NUMBA".split()
"""Libraries that read how many threads they may have from ``<name>_NUM_THREADS``."""


def unpinned() -> None:
    """Let OpenBLAS choose its core type: a pinned one halves its speed. To be called before NumPy
    loads.
    """
    os.environ.pop("OPENBLAS_CORETYPE", None)


def surroundings(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which all libraries keep to so many threads, and NumPy's BLAS chooses its
    core type.
    """
    found = {name: value for name, value in environment.items() if name != "OPENBLAS_CORETYPE"}
    found |= {f"{pool}_NUM_THREADS": str(threads) for pool in POOLS}
    eigen = "true" if threads > 1 else "false"
    found["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    )
    found["JAX_PLATFORMS"] = "cpu"
    # or processes that wait to compile for PyTorch share the core with what is timed
    found["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    return found


def settle(threads: int) -> list[int]:
    """Start the program over unless it is in its `surroundings`, and keep it on as many cores as it
    may have threads; their numbers. To be called before NumPy loads.
    """
    wanted = surroundings(threads, os.environ)
    if wanted != dict(os.environ):
        pinned = os.environ.get("OPENBLAS_CORETYPE")
        without = f" without OPENBLAS_CORETYPE={pinned}, which pins NumPy's BLAS" if pinned else ""
        print(f"starting over{without} with threads of BLAS, OpenMP and XLA set to {threads}")
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    os.sched_setaffinity(0, cores)
    return cores


def processor() -> str:
    """The model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The commit that was measured, with a + where the tree had changes."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain"], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def description() -> dict[str, Any]:
    """Machine, versions, BLAS and commit."""
    from threadpoolctl import threadpool_info

    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "blas": [
            {
                key: pool.get(key)
                for key in ("internal_api", "version", "architecture", "num_threads")
            }
            for pool in threadpool_info()
        ],
    }


def write(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result with the machine's description beside it."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": description(), **content}, indent=1) + "\n")
    return path
