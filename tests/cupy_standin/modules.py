"""The modules ``cupy`` and ``cupyx`` as the stand-in offers them."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from . import gpus, memory, pools, streams
from .array import ndarray
from .cublaslt import PATHFINDER
from .functions import FUNCTIONS, scatter_add
from .raw_module import CompileException, RawModule
from .record import API, names
from .ufuncs import SPECIAL, UFUNCS, ufunc

CONSTANTS = ("inf", "nan", "pi", "e", "newaxis")
SCALAR_TYPES = (
    "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64", "dtype", "iinfo", "finfo", "generic", "floating", "integer",
)  # fmt: skip


class StandIn(ModuleType):
    """A module that tells what CuPy has not from what the stand-in has not."""

    def __init__(self, name: str, record: frozenset[str], content: dict[str, Any]) -> None:
        super().__init__(name, "A stand-in without a GPU.")
        self.__path__: list[str] = []  # a package, so that `import cupyx.scipy.special` finds it
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__dict__.update(content)
        self._record = record

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_record", ()):
            raise NotImplementedError(f"the stand-in has no {self.__name__}.{name} yet")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def build() -> dict[str, StandIn]:
    """Every module by its name."""
    cuda = {
        "Device": gpus.Device,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "get_current_stream": streams.get_current_stream,
        "Graph": streams.Graph,
        "MemoryPool": pools.MemoryPool,
        "MemoryPointer": pools.MemoryPointer,
        "alloc": memory.alloc,
        "get_allocator": memory.get_allocator,
        "set_allocator": memory.set_allocator,
        "using_allocator": memory.using_allocator,
        "alloc_pinned_memory": memory.alloc_pinned_memory,
        "PinnedMemoryPointer": memory.PinnedMemoryPointer,
        "is_available": lambda: gpus.machine.devices > 0 and not gpus.machine.status,
        "runtime": gpus.runtime,
        "driver": gpus.driver,
        "compiler": SimpleNamespace(CompileException=CompileException),
    }
    modules = {"cupy.cuda": StandIn("cupy.cuda", names("cuda"), cuda)}
    plain = {name: getattr(np, name) for name in CONSTANTS + SCALAR_TYPES}
    content = {
        **plain,
        **UFUNCS,
        **FUNCTIONS,
        "ndarray": ndarray,
        "ufunc": ufunc,
        "RawModule": RawModule,
    }
    content |= {"cuda": modules["cupy.cuda"], "__version__": API["version"]}
    content["is_available"] = cuda["is_available"]
    content["get_default_memory_pool"] = memory.get_default_memory_pool
    content["get_default_pinned_memory_pool"] = memory.get_default_pinned_memory_pool
    special = StandIn("cupyx.scipy.special", frozenset(SPECIAL), dict(SPECIAL))
    scipy = StandIn("cupyx.scipy", frozenset(), {"special": special})
    extra = {"scatter_add": scatter_add, "scipy": scipy, "empty_pinned": memory.empty_pinned}
    cupyx = StandIn("cupyx", names("cupyx"), extra)
    modules["cupy"] = StandIn("cupy", names("cupy"), content)
    return modules | {m.__name__: m for m in (cupyx, scipy, special)}


def is_installed() -> bool:
    """Whether ``cupy`` is the stand-in."""
    return isinstance(sys.modules.get("cupy"), StandIn)


def install() -> bool:
    """Make ``import cupy`` give the stand-in, unless the real one has a GPU; say which it is.

    To be called before anything loads the adapter, which imports ``cupy`` once.
    """
    if is_installed():
        return True
    if importlib.util.find_spec("cupy") is not None:
        import cupy

        if cupy.is_available():
            return False
        for name in [n for n in sys.modules if n.split(".")[0] in ("cupy", "cupyx")]:
            del sys.modules[name]
    sys.modules.update(build())
    pathfinder = StandIn("cuda.pathfinder", frozenset(), PATHFINDER)
    if importlib.util.find_spec("cuda") is None:
        sys.modules["cuda"] = StandIn("cuda", frozenset(), {"pathfinder": pathfinder})
    sys.modules["cuda.pathfinder"] = pathfinder
    return True
