"""NVRTC without a GPU, a driver or CuPy: what a kernel becomes, for each kind of GPU.

From the package ``nvidia-cuda-nvrtc`` (or ``nvidia-cuda-nvrtc-cu12``); what has been compiled once
is kept, by source and compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cupy_standin.emulator.building import folder

USED = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores"
    r".*?Used (\d+) registers([^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Usage:
    """What a thread or a block of a kernel takes."""

    registers: int
    stack: int
    """Bytes a thread keeps in memory: of arrays with an index known only when it runs, too."""
    spilled: int
    shared: int


@cache
def load() -> Any:
    """The library; a test that needs it is skipped without, and fails where CI is set."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(place).glob("**/libnvrtc.so.1[0-9]")):
            return ctypes.CDLL(str(path))
    reason = "compiling kernels needs NVRTC: pip install nvidia-cuda-nvrtc"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    load().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


class Program:
    """A source with the names of the kernels wanted, and what NVRTC makes of it."""

    def __init__(self, source: str, kernels: Sequence[str], options: Sequence[str]) -> None:
        self.nvrtc, self.kernels, self._program = load(), kernels, ctypes.c_void_p()
        self.nvrtc.nvrtcCreateProgram(
            ctypes.byref(self._program), source.encode(), b"source.cu", 0, None, None
        )
        for kernel in kernels:
            self.nvrtc.nvrtcAddNameExpression(self._program, kernel.encode())
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        self.failed = self.nvrtc.nvrtcCompileProgram(self._program, len(options), given) != 0

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.nvrtc.nvrtcDestroyProgram(ctypes.byref(self._program))

    @property
    def log(self) -> str:
        size = ctypes.c_size_t()
        self.nvrtc.nvrtcGetProgramLogSize(self._program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetProgramLog(self._program, text)
        return text.value.decode()

    @property
    def cubin(self) -> bytes:
        size = ctypes.c_size_t()
        self.nvrtc.nvrtcGetCUBINSize(self._program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetCUBIN(self._program, code)
        return code.raw

    def symbol(self, kernel: str) -> str:
        name = ctypes.c_char_p()
        self.nvrtc.nvrtcGetLoweredName(self._program, kernel.encode(), ctypes.byref(name))
        assert name.value is not None
        return name.value.decode()


def usage(
    source: str, kernels: Sequence[str], options: Sequence[str], architecture: str
) -> dict[str, Usage]:
    """What each kernel takes on GPUs of an architecture, ``"sm_90"``.

    Raises
    ------
    ValueError
        If the source does not compile, with the compiler's words.
    """
    given = (f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options)
    key = "\0".join((version(), source, *kernels, *given))
    kept = folder() / f"nvrtc-{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"
    if not kept.exists():
        found = {k: asdict(v) for k, v in compiled(source, kernels, given).items()}
        written = kept.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(found))
        written.replace(kept)
    return {name: Usage(**values) for name, values in json.loads(kept.read_text()).items()}


def compiled(source: str, kernels: Sequence[str], options: Sequence[str]) -> dict[str, Usage]:
    with Program(source, kernels, options) as program:
        if program.failed:
            raise ValueError(program.log)
        names = {program.symbol(kernel): kernel for kernel in kernels}
        found = {}
        for symbol, stack, spilled, registers, rest in USED.findall(program.log):
            shared = re.search(r"(\d+) bytes smem", rest)
            bytes_shared = int(shared[1]) if shared else 0
            found[names[symbol]] = Usage(int(registers), int(stack), int(spilled), bytes_shared)
        return found
