"""``cupy.RawModule``: kernels of the user's own, executed by the `emulator`.

A launch comes back before the device has done it, as far as counting goes: nobody has waited.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NoReturn

import pytest

from . import emulator
from .array import host_of, ndarray
from .emulator.building import CompileError
from .emulator.launching import STATIC_SHARED_MEMORY
from .gpus import current_device, launched, machine
from .races import wrote
from .streams import capture_here

MOST_SHARED_MEMORY = 227 << 10


class CompileException(Exception):
    """NVRTC refuses the source."""


def give_up(reason: str) -> NoReturn:
    """Skip the test that needs what is missing; where everything must run, fail."""
    if os.environ.get("CI"):
        raise RuntimeError(reason)
    pytest.skip(reason)


class RawModule:
    """CUDA C++ and the names of the kernels wanted from it."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: Any = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type, got {type(options)}")
        if code is None or backend != "nvrtc" or enable_cooperative_groups or jitify:
            raise NotImplementedError("the stand-in compiles plain source with NVRTC's options")
        self.code, self.options = code, options
        self.name_expressions = tuple(name_expressions or ())
        self._library: emulator.Library | None = None

    def compile(self, log_stream: Any = None) -> None:
        machine.require()
        if self._library is None:
            try:
                self._library = emulator.Library(self.code, self.name_expressions, self.options)
            except emulator.Missing as error:
                give_up(str(error))
            except CompileError as error:
                raise CompileException(str(error)) from error

    def get_function(self, name: str) -> RawKernel:
        if name not in self.name_expressions:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        self.compile()
        assert self._library is not None
        return RawKernel(self._library, name)


class RawKernel:
    """One kernel, to be called with a grid, a block and arguments."""

    def __init__(self, library: emulator.Library, name: str) -> None:
        self._library, self.name = library, name
        self._most_shared: dict[int, int] = {}

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Any,
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        machine.require()
        launched()
        arrays = [host_of(value) for value in args]
        launch = partial(
            self._library.launch,
            self.name, grid, block, arrays, shared_mem, self.max_dynamic_shared_size_bytes,
        )  # fmt: skip
        declared = self._library.parameters[self.name]
        targets = [
            x
            for x, parameter in zip(args, declared, strict=True)
            if parameter.pointer and not parameter.const and isinstance(x, ndarray)
        ]
        if (capture := capture_here()) is not None:
            capture.overwrite([x._a for x in targets], launch, list(args))
            return
        launch()
        for x in targets:
            wrote(x)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._most_shared.get(current_device(), STATIC_SHARED_MEMORY)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, bytes: int) -> None:
        if bytes > MOST_SHARED_MEMORY:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._most_shared[current_device()] = bytes
