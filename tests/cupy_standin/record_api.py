"""Record what the real CuPy offers, so that the stand-in can refuse everything else.

Run where CuPy is installed, without a GPU too: ``python -m tests.cupy_standin.record_api``
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("api.json")
HIDDEN_UFUNCS = {
    "where": ("cupy._sorting.search", "_where_ufunc"),
    "clip": ("cupy._core._routines_math", "clip"),
    "round": ("cupy._core.core", "_round_ufunc"),
}
"""Elementwise kernels behind plain functions."""
CLASSES = {
    "Stream": "begin_capture end_capture is_capturing wait_event record synchronize",
    "Event": "record synchronize",
    "Graph": "launch upload",
    "MemoryPool": "malloc free_all_blocks total_bytes used_bytes",
    "MemoryPointer": "copy_from_device_async",
}
"""Methods of classes of ``cupy.cuda``."""


def signature(function: Any) -> str:
    """The signature as source text: from Python, or from the first line of a compiled docstring."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        line = (function.__doc__ or "").partition("\n")[0]
        inside = re.search(r"\((.*?)\)(?: ->|$)", line)
        # Cython writes types into it, `int device`; those of its own types it keeps to itself.
        text = re.sub(
            r"\b(?:int|bint|bool|size_t|Py_ssize_t|str|tuple|MemoryPointer) (?=\w)",
            "",
            inside[1] if inside else "",
        )
        return f"({text})"
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(inspect.Signature(plain))
    return re.sub(r"<class '(\w+)'>", r"\1", text)


def ufunc_types() -> dict[str, list[str]]:
    """The dtype characters of every elementwise kernel, in CuPy's order of trying them."""
    import importlib

    import cupy
    import cupyx.scipy.special as special

    found = {n: f.types for n, f in vars(cupy).items() if isinstance(f, cupy.ufunc)}
    for name in ("erf", "erfinv", "expit"):
        found[f"special.{name}"] = getattr(special, name).types
    for name, (module, attribute) in HIDDEN_UFUNCS.items():
        found[name] = getattr(importlib.import_module(module), attribute).types
    return found


def record() -> dict[str, Any]:
    """Public names, signatures and elementwise kernels of the installed CuPy."""
    import cupy
    import cupyx

    functions = {n: getattr(cupy, n) for n in dir(cupy) if not n.startswith("_")}
    methods = {n: getattr(cupy.ndarray, n) for n in dir(cupy.ndarray) if not n.startswith("_")}
    runtime = {n: getattr(cupy.cuda.runtime, n) for n in dir(cupy.cuda.runtime) if n[0].islower()}
    plain = {n: f for n, f in functions.items() if inspect.isroutine(f)}
    raw = {"RawModule": cupy.RawModule, "RawKernel": cupy.RawKernel}
    raw |= {f"RawModule.{n}": getattr(cupy.RawModule, n) for n in ("compile", "get_function")}
    cuda = {
        f"{kind}.{name}": getattr(getattr(cupy.cuda, kind), name)
        for kind, names in CLASSES.items()
        for name in names.split()
    }
    cuda["using_allocator"] = cupy.cuda.using_allocator
    called = {n: f for n, f in methods.items() if callable(f)}
    drive = {n: f for n, f in runtime.items() if callable(f) and n.startswith(("get", "set"))}
    return {
        "version": cupy.__version__,
        "cupy": " ".join(sorted(functions)),
        "cupyx": " ".join(sorted(n for n in dir(cupyx) if not n.startswith("_"))),
        "cuda": " ".join(sorted(n for n in dir(cupy.cuda) if not n.startswith("_"))),
        "ndarray": " ".join(sorted(methods)),
        "signatures": {n: signature(f) for n, f in plain.items()},
        "cupyx_signatures": {"scatter_add": signature(cupyx.scatter_add)},
        "raw": {n: signature(f) for n, f in raw.items()},
        "cuda_signatures": {n: signature(f) for n, f in cuda.items()},
        "methods": {n: signature(f) for n, f in called.items()},
        "runtime": {n: signature(f) for n, f in sorted(drive.items())},
        "ufuncs": {n: " ".join(types) for n, types in sorted(ufunc_types().items())},
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(), indent=1, ensure_ascii=False) + "\n")
