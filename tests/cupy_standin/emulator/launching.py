"""Launches: arguments as the kernel declares them, and the machine that executes it."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from . import building

DTYPES = {
    "float": "float32", "double": "float64", "f16": "float16", "bf16": "bfloat16", "bool": "bool",
    "signed char": "int8", "unsigned char": "uint8", "short int": "int16",
    "short unsigned int": "uint16", "int": "int32", "unsigned int": "uint32", "long int": "int64",
    "long unsigned int": "uint64", "long long int": "int64", "long long unsigned int": "uint64",
}  # fmt: skip
"""What the compiler calls a type of C++, and NumPy."""

STATIC_SHARED_MEMORY, GRID_LIMITS, BLOCK_LIMITS = (
    48 << 10,
    (2**31 - 1, 65535, 65535),
    (1024, 1024, 64),
)
SECONDS = 20.0
"""Of computing time, after which a launch is taken to hang."""


class KernelFault(Exception):
    """A kernel did, or was asked for, what a GPU refuses or leaves undefined."""


class Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("most_threads", ctypes.c_uint),
    ]


class Region(ctypes.Structure):
    _fields_ = [
        ("host", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("written", ctypes.c_size_t),
        ("copy", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Parameter:
    """One that a kernel declares."""

    dtype: str
    """NumPy's name; of what a pointer points to."""
    pointer: bool
    const: bool

    def __str__(self) -> str:
        return f"an array of {self.dtype}" if self.pointer else f"a {self.dtype}"


def parameters(signature: str) -> list[Parameter]:
    """The parameters, from the compiler's spelling of a pointer to the kernel."""
    inside = re.search(r"\(\*\)\((.*)\)[;\]]", signature)
    assert inside is not None, signature
    found = []
    for text in re.split(r", (?![^<]*>)", inside[1]):
        const, pointer = text.startswith("const "), text.endswith("*")
        name = text.removeprefix("const ").removesuffix("*")
        if name not in DTYPES:
            raise KernelFault(f"expected a parameter of a plain type, got {text}")
        found.append(Parameter(DTYPES[name], pointer, const))
    return found


_lock = threading.Lock()  # the machine has one state
_seed = 0
launched: set[str] = set()
"""The names of all kernels that have been launched."""


@contextmanager
def thread_order(seed: int) -> Generator[None]:
    """Another order of threads and blocks: 0 natural, 1 reversed, any other a shuffle."""
    global _seed
    before, _seed = _seed, seed
    try:
        yield
    finally:
        _seed = before


@cache
def machine() -> ctypes.CDLL:
    library = ctypes.CDLL(str(building.machine()))
    library.emu_launch.restype = ctypes.c_char_p
    return library


class Library:
    """The kernels of one source."""

    def __init__(self, source: str, names: Sequence[str], options: Sequence[str]) -> None:
        path = building.library(source, names, options)
        machine()
        self._library = ctypes.CDLL(str(path))
        self._library.emu_anchor.restype = ctypes.c_void_p
        table = (Kernel * len(names)).in_dll(self._library, "emu_kernels")
        self.kernels = {kernel.name.decode(): kernel for kernel in table}
        self.parameters = {
            name: parameters(kernel.signature.decode()) for name, kernel in self.kernels.items()
        }

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int = 0,
        most_shared: int = STATIC_SHARED_MEMORY,
    ) -> None:
        """Execute a kernel; arrays among ``args`` are NumPy's.

        Raises
        ------
        KernelFault
            If it goes wrong, with the reason.
        """
        kernel = self.kernels[name]
        grid, block = sizes(name, grid, GRID_LIMITS), sizes(name, block, BLOCK_LIMITS)
        require_resources(name, int(np.prod(block)), kernel.most_threads, shared, most_shared)
        values, places, regions = laid_out(name, self.parameters[name], args)
        with _lock:
            launched.add(name)
            problem = machine().emu_launch(
                ctypes.byref(kernel),
                (ctypes.c_uint * 3)(*grid),
                (ctypes.c_uint * 3)(*block),
                ctypes.c_size_t(shared),
                len(args),
                (ctypes.c_ulonglong * len(args))(*values),
                (ctypes.c_int * len(args))(*places),
                (Region * len(regions))(*regions),
                len(regions),
                ctypes.c_void_p(self._library.emu_anchor()),
                ctypes.c_uint(_seed),
                ctypes.c_double(SECONDS),
            )
        if problem is not None:
            raise KernelFault(f"{name}: {explained(problem.decode(), places, args)}")


def require_resources(
    name: str, threads: int, most_threads: int, shared: int, most_shared: int
) -> None:
    """Refuse a block that is larger than its kernel was compiled for."""
    if threads > most_threads:
        raise KernelFault(f"{name}: expected blocks of up to {most_threads} threads, got {threads}")
    if shared > most_shared:
        raise KernelFault(f"{name}: {shared} bytes of shared memory, allowed are {most_shared}")


def sizes(name: str, given: tuple[int, ...], limits: tuple[int, ...]) -> tuple[int, ...]:
    """Three sizes of a grid or a block."""
    if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
        raise KernelFault(f"{name}: expected a tuple of one to three sizes, got {given!r}")
    whole = given + (1,) * (3 - len(given))
    if not all(1 <= n <= limit for n, limit in zip(whole, limits, strict=True)):
        raise KernelFault(f"{name}: expected sizes from 1 to {limits}, got {given}")
    return whole


def laid_out(
    name: str, declared: list[Parameter], args: Sequence[Any]
) -> tuple[list[int], list[int], list[Region]]:
    """The bytes of each argument, or its offset in a region; which region that is, or -1; and the
    regions: one for each array, or for several that overlap.
    """
    if len(args) != len(declared):
        raise KernelFault(f"{name}: expected {len(declared)} arguments, got {len(args)}")
    for i, (value, parameter) in enumerate(zip(args, declared, strict=True)):
        if not matches(value, parameter):
            raise KernelFault(f"{name}: expected {parameter} as argument {i}, got {shown(value)}")
    spans = []
    for value, parameter in zip(args, declared, strict=True):
        if isinstance(value, np.ndarray):
            spans.append((value.ctypes.data, value.nbytes, not parameter.const))
    regions = merged(spans)
    values, places = [], []
    for value in args:
        if isinstance(value, np.ndarray):
            at, size = value.ctypes.data, value.nbytes
            place = next(
                i for i, r in enumerate(regions) if r.host <= at and at + size <= r.host + r.bytes
            )
            values.append(at - regions[place].host)
            places.append(place)
        else:
            values.append(int.from_bytes(value.tobytes(), "little"))
            places.append(-1)
    return values, places, regions


def merged(spans: list[tuple[int, int, bool]]) -> list[Region]:
    """Regions of memory that do not overlap."""
    found: list[list[int]] = []
    for at, size, written in sorted(spans):
        if found and (at < found[-1][1] or at == found[-1][0]):
            found[-1][1] = max(found[-1][1], at + size)
            found[-1][2] |= written
        else:
            found.append([at, at + size, written])
    return [Region(at, end - at, written) for at, end, written in found]


def matches(value: Any, parameter: Parameter) -> bool:
    """Whether CuPy would hand the kernel what it declares: numbers go as the bytes they have."""
    if isinstance(value, np.ndarray):
        plain = value.flags.c_contiguous or value.size == 0
        return parameter.pointer and value.dtype.name == parameter.dtype and plain
    if parameter.pointer:  # the null pointer, for which CuPy has no other name
        return isinstance(value, np.uint64) and value == 0
    return isinstance(value, np.generic) and value.dtype.name == parameter.dtype


def shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        order = "" if value.flags.c_contiguous else " not in C order"
        return f"{value.dtype} {value.shape}{order}"
    return f"{value!r}, a {type(value).__name__}"


def explained(problem: str, places: list[int], args: Sequence[Any]) -> str:
    """A problem, with the arguments for the numbers of their regions."""
    found = re.search(r"array (\d+)$", problem)
    if found is None:
        return problem
    here = [
        f"{i} ({shown(value)})"
        for i, (place, value) in enumerate(zip(places, args, strict=True))
        if place == int(found[1])
    ]
    return problem[: found.start()] + "argument " + " or ".join(here)
