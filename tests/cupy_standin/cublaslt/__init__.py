"""cuBLASLt without a GPU: a library with its functions, built with g++, that checks every call.

It computes on the stand-in's memory, returns the statuses that the real one would, and reports what
on a GPU would be undefined (``library.cpp``). `failing`, `refusing`, `count_calls` are for tests.
"""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..emulator import Missing
from ..emulator.building import compiler, compiler_version, folder, run
from ..gpus import current_device
from ..raw_module import give_up
from ..streams import capture_here, get_current_stream

HERE = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC")
FUNCTIONS = ("Create", "MatmulDescCreate", "MatmulAlgoGetHeuristic", "Matmul")


@cache
def built() -> Path:
    """The library, which is kept for the next time."""
    files = [(HERE / name).read_text() for name in ("library.cpp", "problems.h", "numbers.h")]
    ingredients = "\0".join((*files, *OPTIONS, compiler_version()))
    path = folder() / f"cublaslt-{hashlib.sha256(ingredients.encode()).hexdigest()[:20]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as place:
            made = Path(place) / "cublaslt.so"
            run(compiler(), *OPTIONS, str(HERE / "library.cpp"), "-o", str(made))
            made.replace(path)  # at once, for whoever builds the same beside us
    return path


def noted(number: int, *places: Any) -> None:
    """Note a product that the current stream captures, and what it will write to."""
    capture = capture_here()
    assert capture is not None
    for start, size in zip(places[::2], places[1::2], strict=True):
        if size:
            capture.keep([np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start))])
    capture.note(lambda: shared().standin_launch(ctypes.c_long(number)), ())


OBSERVERS = tuple(
    ctypes.CFUNCTYPE(kind)(function)
    for kind, function in (
        (ctypes.c_int, current_device),
        (ctypes.c_uint64, lambda: get_current_stream().ptr),
        (ctypes.c_int, lambda: int(get_current_stream().is_capturing())),
    )
)
NOTE = ctypes.CFUNCTYPE(None, ctypes.c_long, *(ctypes.c_void_p, ctypes.c_size_t) * 2)(noted)


@cache
def shared() -> Any:
    """The library, loaded; it asks the stand-in what is current."""
    loaded = ctypes.CDLL(str(built()))
    loaded.standin_observe(*OBSERVERS, NOTE)
    loaded.standin_calls.restype = loaded.standin_alive.restype = ctypes.c_long
    return loaded


class DynamicLibNotFoundError(RuntimeError):
    """As in cuda.pathfinder."""


def load_nvidia_dynamic_lib(libname: str) -> Any:
    """Of cuda.pathfinder: where a library is, which is loaded."""
    if libname != "cublasLt":
        raise DynamicLibNotFoundError(f"the stand-in has no {libname}")
    try:
        shared()
    except Missing as error:
        give_up(str(error))
    return SimpleNamespace(abs_path=str(built()))


PATHFINDER = {
    "DynamicLibNotFoundError": DynamicLibNotFoundError,
    "load_nvidia_dynamic_lib": load_nvidia_dynamic_lib,
}


@contextmanager
def failing(name: str, status: int, times: int = 1) -> Generator[None]:
    """Let the next calls of a function return a status, as long as the block lasts."""
    shared().standin_fail(name.encode(), status, times)
    try:
        yield
    finally:
        shared().standin_fail(name.encode(), 0, 0)


@contextmanager
def refusing(*epilogues: int) -> Generator[None]:
    """Find no algorithm that ends with these epilogues."""
    shared().standin_refuse(sum(epilogues))
    try:
        yield
    finally:
        shared().standin_refuse(0)


@contextmanager
def count_calls() -> Generator[Counter[str]]:
    """How often each function is called inside: known when the block ends."""
    counted: Counter[str] = Counter()
    before = {name: shared().standin_calls(name.encode()) for name in FUNCTIONS}
    yield counted
    for name in FUNCTIONS:
        counted[name] = shared().standin_calls(name.encode()) - before[name]


def descriptions() -> int:
    """How many handles and descriptions there are."""
    alive: int = shared().standin_alive()
    return alive
