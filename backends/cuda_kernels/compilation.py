"""Kernels compiled by NVRTC when they are first wanted, through ``cupy.RawModule``.

CuPy keeps what it has compiled on disk, by source and GPU: the second process compiles nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from tinygrad_bn.backend import Array
from tinygrad_bn.errors import BackendError

from ..current_gpu import give_back, lacks_memory, patiently

HERE = Path(__file__).parent
INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
OPTIONS = ("-std=c++17",)
TYPES = {"float32": "float", "float16": "f16", "bfloat16": "bf16", "float64": "double"}
"""The dtypes of NumPy and what ``numbers.cuh`` calls them."""

VECTOR_BYTES = 16
PER_THREAD_STREAM = 2
"""cudaStreamPerThread: one number for a stream of each thread."""

NULL = np.uint64(0)
"""The null pointer: CuPy has none for a kernel, and takes None for something else."""

i32, u32, i64, u64, f32, f64 = (
    np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64
)  # fmt: skip


class Source:
    """A ``.cu`` file, and the kernels of it that may be launched: templates with their arguments.

    Each is compiled by itself, for each GPU, when it is first launched there.
    """

    def __init__(self, file: str, kernels: Iterable[str]) -> None:
        self.file = file
        self.kernels = tuple(kernels)
        self._compiled: dict[tuple[str, int], Any] = {}
        self._compiling = threading.Lock()

    @property
    def text(self) -> str:
        """The source, with the headers of this folder in their places."""
        return expanded(self.file)

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int = 0,
    ) -> None:
        """Let the current GPU execute a kernel, in the order of its current stream.

        Parameters
        ----------
        args : arrays of the GPU in C order, and NumPy's scalars of exactly the dtypes that the
            kernel declares: CuPy sends as many bytes as they have, and 8 for a number of Python.
        shared : bytes of dynamic shared memory.

        Raises
        ------
        BackendError
            If the kernel cannot be compiled here.
        """
        key = kernel, cupy.cuda.runtime.getDevice()
        run = self._compiled.get(key) or self._compile(key)
        try:
            run(grid, block, args, shared_mem=shared)
        except RuntimeError as error:
            if not lacks_memory(error) or not give_back():
                raise
            run(grid, block, args, shared_mem=shared)

    def _compile(self, key: tuple[str, int]) -> Any:
        kernel, device = key
        assert kernel in self.kernels, f"{self.file} declares no {kernel}"
        with self._compiling:
            if key not in self._compiled:
                try:
                    self._compiled[key] = patiently(self._loaded, kernel)
                except (cupy.cuda.compiler.CompileException, RuntimeError, OSError) as error:
                    if lacks_memory(error):
                        raise
                    raise BackendError(why_not(self.file, kernel, device, error)) from error
        return self._compiled[key]

    def _loaded(self, kernel: str) -> Any:
        """A kernel in the memory of the current device."""
        module = cupy.RawModule(code=self.text, options=OPTIONS, name_expressions=(kernel,))
        module.compile()
        return module.get_function(kernel)


@cache
def expanded(file: str) -> str:
    """A source with its headers in it, each once, and lines that say which file they are from."""
    seen: set[str] = set()

    def text(name: str) -> str:
        seen.add(name)
        content = (HERE / name).read_text(encoding="utf-8")

        def header(match: re.Match[str]) -> str:
            line = content.count("\n", 0, match.start()) + 2
            inside = "" if match[1] in seen else text(match[1])
            return f'{inside}\n#line {line} "{name}"'

        return f'#line 1 "{name}"\n' + INCLUDE.sub(header, content)

    return text(file)


def why_not(file: str, kernel: str, device: int, error: Exception) -> str:
    """Why a kernel cannot be had, and what to do."""
    properties = cupy.cuda.runtime.getDeviceProperties(device)
    reason = str(error).strip().partition("\n")[0]
    return (
        f"cuda:{device} (compute capability {properties['major']}.{properties['minor']}) gets no "
        f"kernel {kernel} of {file}: {reason}; "
        "install tinygrad-bn[cuda13], or tinygrad-bn[cuda12] for an older driver, whose CuPy "
        "brings its compiler; `with tinygrad_bn.reference_kernels():` does without kernels"
    )


@cache
def multiprocessors(device: int) -> int:
    """How many of them a GPU has, over which blocks are spread."""
    return int(cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])


@cache
def _kept_tickets(device: int, stream: int, thread: int, count: int) -> Array:
    return cupy.zeros(count, np.uint32)


def tickets(count: int) -> Array:
    """Counters at zero, for blocks to learn which of them ends last; who uses them leaves them so.

    Each stream has its own, since kernels of one stream never run at once; and so has each launch
    that is captured, since graphs may be replayed at once: replays set them to zero.
    """
    stream = cupy.cuda.get_current_stream()
    if stream.is_capturing():
        return cupy.zeros(count, np.uint32)
    room = max(1024, 1 << (count - 1).bit_length())
    thread = threading.get_ident() if stream.ptr == PER_THREAD_STREAM else 0
    return _kept_tickets(cupy.cuda.runtime.getDevice(), stream.ptr, thread, room)


def vector_width(*arrays: Array, along: int, most: int = VECTOR_BYTES) -> int:
    """How many elements a thread may load at once, up to ``most``: 16 bytes of them, where the
    length ``along`` which they lie is a multiple of that, and all arrays begin at one; else 1.
    """
    itemsize = arrays[0].dtype.itemsize
    width = min(VECTOR_BYTES // itemsize, most)
    aligned = all(x.data.ptr % (width * itemsize) == 0 for x in arrays)
    return width if along % width == 0 and aligned else 1
