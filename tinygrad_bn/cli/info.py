"""``tinygrad-bn info``: what there is on this machine, for a look or a bug report."""

from __future__ import annotations

import json
import os
import platform
from argparse import Namespace
from collections.abc import Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from tinygrad_bn import __version__
from tinygrad_bn.data import datasets

REQUIRED = ("numpy", "scipy", "numba")
OPTIONAL = (
    *("ml_dtypes", "safetensors", "pandas", "rich", "matplotlib", "threadpoolctl"),
    *("torch", "scikit-learn"),
)
ABSENT = "not installed"


def run(args: Namespace) -> int:
    """Print it, for people or as JSON."""
    found = gather()
    print(json.dumps(found, indent=2) if args.json else "\n".join(lines(found)))
    return 0


def gather() -> dict[str, Any]:
    """Everything, by section."""
    cuda = import_module("tinygrad_bn.backends.cupy_backend").describe()
    return {
        "versions": versions(cuda["cupy"]),
        "machine": {
            "platform": platform.platform(),
            "cpus": len(os.sched_getaffinity(0)),
        },
        "backends": {
            "numpy": "cpu",
            "cupy": [device["device"] for device in cuda["devices"]] or cuda["problem"],
        },
        "blas": blas(),
        "numba": numba(),
        "cuda": cuda,
        "data": data(),
    }


def versions(cupy: str | None) -> dict[str, str]:
    """Of Python and of the packages that the library uses; CuPy's comes under several names."""
    return {
        "tinygrad-bn": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in (*REQUIRED, *OPTIONAL)},
        "cupy": cupy or ABSENT,
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT


def blas() -> list[dict[str, Any]]:
    """Every BLAS in this process: NumPy and SciPy may bring one each."""
    if find_spec("threadpoolctl") is None:
        return []
    from threadpoolctl import threadpool_info

    for user in REQUIRED[:2]:
        import_module(f"{user}.linalg")
    wanted = ("internal_api", "version", "architecture", "num_threads", "filepath")
    return [
        {name: library.get(name) for name in wanted}
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def numba() -> dict[str, Any]:
    """Whether kernels compile here, on how many threads, and where they are cached."""
    if find_spec("numba") is None:
        return {"available": False}
    config = import_module("numba").config
    return {
        "available": not config.DISABLE_JIT,
        "threads": config.NUMBA_NUM_THREADS,
        "threading_layer": config.THREADING_LAYER,
        "cpu": config.CPU_NAME or "host",
        "cache": config.CACHE_DIR or "beside the kernels",
    }


def data() -> dict[str, Any]:
    """Where data sets are looked for, and which are there."""
    sets = {"digits": "in the package"}
    for source in (datasets.MNIST, datasets.FASHION_MNIST):
        files = [datasets.find(source, name) for name in source.sums]
        sets[source.folder] = str(files[0].parent) if files[0] and all(files) else "not found"
    return {"folders": [str(folder) for folder in datasets.folders()], "sets": sets}


def lines(found: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Nested names and values, the values of each level in a column."""
    text, margin = [], "  " * depth
    width = max(map(len, found), default=0)
    for name, value in found.items():
        if isinstance(value, Mapping):
            text += [f"{margin}{name}", *lines(value, depth + 1)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                text += [f"{margin}{name}", *lines(item, depth + 1)]
        else:
            text.append(f"{margin}{name:{width}}  {shown(value)}")
        if not depth:
            text.append("")
    return text if depth else text[:-1]


def shown(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
