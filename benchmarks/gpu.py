"""How fast this library is on the GPU of this machine, and who is faster.

    python benchmarks/gpu.py [--quick] [--seconds 240] [--out FOLDER]

Measures what the GPU can do (copies, products, launches), kernels against the time that moving
their bytes takes, those of batch norm beside PyTorch's too, and training steps beside PyTorch as
written, compiled, and as CUDA graphs: in this process, in turns, by CUDA's events. TF32 is off on
both sides. A rival that is missing or fails is named.

Prints tables in plain text and writes results/<the GPU's name>.json; a quick run writes to --out,
or to a temporary folder. Needs an NVIDIA GPU and CuPy, else it says what is missing and ends with
the exit code 2. PyTorch is compared with where it is installed; Numba is not needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from machine import RESULTS, commit, processor, version

NO_GPU = 2
"""The exit code where there is no GPU; 1 where something of ours failed."""
PACKAGES = "numpy cupy-cuda13x cupy-cuda12x torch triton ml-dtypes numba".split()
TF32 = {"tinygrad_bn": False, "torch": False}
say = partial(print, flush=True)


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: for a first look")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="after which no training step is begun"
    )
    parser.add_argument("--out", type=Path, help="the folder for the JSON file")
    return parser.parse_args(words)


def problem() -> str | None:
    """What is missing of a GPU; None if nothing is."""
    from tinygrad_bn.backends import cupy_backend

    from tinygrad_bn.errors import BackendError

    try:
        cupy_backend.count_devices()
    except BackendError as error:
        return str(error)
    return None


def pytorch() -> tuple[Any, dict[str, str]]:
    """PyTorch, without TF32; or None, and why."""
    if find_spec("torch") is None:
        return None, {"torch": "not installed: pip install torch"}
    import torch

    if not torch.cuda.is_available():
        return None, {"torch": f"version {torch.__version__} finds no GPU: install one with CUDA"}
    torch.backends.cuda.matmul.allow_tf32 = TF32["torch"]
    torch.backends.cudnn.allow_tf32 = TF32["torch"]
    return torch, {}


def measurements(bench: Any) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """What measures each section, from what the sections before it found."""
    from on_gpu import batch_norms, passes, rates, training

    def bandwidth(found: dict[str, Any]) -> float:
        if "rates" not in found:
            raise RuntimeError("floors need the copy bandwidth, which could not be measured")
        return float(found["rates"]["copy"]["bytes a second"])

    return {
        "rates": lambda _: rates.measure(bench),
        "batch norms": lambda found: batch_norms.measure(bench, bandwidth(found)),
        "kernels": lambda found: passes.measure(bench, bandwidth(found)),
        "steps": lambda _: training.measure(bench),
    }


def measured(
    bench: Any, measures: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
) -> dict[str, Any]:
    """All sections; what fails takes no other with it, but those that need it."""
    from on_gpu import reason

    found: dict[str, Any] = {"absent": dict(bench.absent), "failed": {}}
    for name, measure in measures.items():
        try:
            found[name] = measure(found)
        except Exception as error:
            found["failed"][name] = reason(error)
            bench.report(f"{name} failed: {reason(error)}")
    return found


def description() -> dict[str, Any]:
    """The GPU, its driver, the machine around it, versions and commit."""
    from tinygrad_bn.backends import cupy_backend

    cuda = cupy_backend.describe()
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "gpu": cupy_backend.describe_device(0),
        "driver": cuda["driver"],
        "runtime": cuda["runtime"],
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def file_of(gpu: str) -> str:
    """The name of a GPU's file: ``nvidia_h100_80gb_hbm3.json``."""
    return re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_") + ".json"


def written(results: dict[str, Any], folder: Path) -> Path:
    """Write what was found, with the machine's description before it."""
    machine = description()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_of(machine["gpu"]["name"])
    path.write_text(json.dumps({"machine": machine, **results}, indent=1) + "\n")
    return path


def folder_of(asked: argparse.Namespace) -> Path:
    """Where the file goes: what is quick must not take the place of what is not."""
    if asked.out:
        return Path(asked.out)
    return Path(tempfile.mkdtemp(prefix="benchmarks-")) if asked.quick else RESULTS


def ours_failed(results: dict[str, Any]) -> bool:
    """Whether a section failed, or something of ours."""
    from on_gpu.tables import rows_of

    return bool(results["failed"]) or any(
        name.startswith("tinygrad_bn")
        for _, row in rows_of(results)
        for name, why in row.get("absent", {}).items()
        if not why.startswith("no time left")
    )


def main(words: Sequence[str] | None = None) -> int:
    asked = options(words)
    if why := problem():
        print(f"benchmarks/gpu.py: {why}", file=sys.stderr)
        return NO_GPU
    if asked.check:
        say("found:", description()["gpu"]["name"])
        return 0
    from on_gpu import Bench, Budget, tables, timing

    import tinygrad_bn as tg

    tg.backends.cuda.matmul.allow_tf32 = TF32["tinygrad_bn"]
    torch, absent = pytorch()
    pace = timing.QUICK if asked.quick else timing.Pace()
    budget = Budget(asked.seconds)
    bench = Bench(timing.Events(), pace, say, torch, absent=absent, budget=budget)
    results = {"how": {"quick": asked.quick, "TF32": TF32}, **measured(bench, measurements(bench))}
    results["missing"] = tables.missing(results)
    path = written(results, folder_of(asked))
    for table in tables.tables(results):
        say(tables.padded(table))
    for line in results["missing"]:
        say("missing:", line)
    say("written:", path)
    return int(ours_failed(results))


if __name__ == "__main__":
    sys.exit(main())
