"""Memory given to other libraries and taken from them: DLPack and ``__cuda_array_interface__``.

Capsules are real ones, NumPy's, that say a CUDA device is where the memory lies. Memory of a device
is the host's here, so that an address is all that the interface needs; whose it is, is remembered.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from .gpus import current_device, set_device, shown
from .streams import get_current_stream, stream_of

CPU, CUDA = 1, 2
BFLOAT, READ_ONLY = 4, 1
LEGACY = 1

_get = ctypes.pythonapi.PyCapsule_GetPointer
_get.argtypes, _get.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
_valid = ctypes.pythonapi.PyCapsule_IsValid
_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]


def tensor_in(capsule: Any) -> int:
    """The address of the DLTensor in a capsule."""
    if _valid(capsule, b"dltensor_versioned"):
        return int(_get(capsule, b"dltensor_versioned")) + 32
    return int(_get(capsule, b"dltensor"))


def device_in(capsule: Any) -> Any:
    """Kind and number of the device in a capsule, which may be assigned to."""
    return (ctypes.c_int32 * 2).from_address(tensor_in(capsule) + 8)


def to_capsule(
    host: np.ndarray[Any, Any], device: int, stream: Any, options: dict[str, Any]
) -> Any:
    """A capsule for a consumer that works on ``stream``, which waits for the current one."""
    if host.dtype.name == "bfloat16":
        raise BufferError("dtype is not supported for dlpack export")
    here = get_current_stream()
    stream = LEGACY if stream is None else stream
    if not isinstance(stream, int) or stream < -1 or stream == 0:
        raise ValueError(
            f"the valid stream for DLPack is -1, 1, 2 or larger, but {stream} was given"
        )
    if stream >= 0 and stream != (here.ptr or LEGACY):
        stream_of(stream).wait_event(here.record())
    versions = {"max_version": options["max_version"]} if "max_version" in options else {}
    capsule = host.__dlpack__(**versions)
    device_in(capsule)[:] = [CUDA, device]
    return capsule


class Taken:
    """A producer whose capsule says that the memory is the host's, for NumPy to take."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def from_capsule(producer: Any) -> tuple[np.ndarray[Any, Any], int]:
    """The memory of a producer and its device; the producer's work is waited for."""
    kind, device = producer.__dlpack_device__()
    if kind != CUDA:
        raise TypeError("CPU arrays cannot be directly imported to CuPy.")
    before = current_device()
    set_device(device)
    try:
        stream = get_current_stream().ptr or LEGACY
        capsule = producer.__dlpack__(stream=stream, max_version=(1, 0), copy=None)
    finally:
        set_device(before)
    if ctypes.c_uint8.from_address(tensor_in(capsule) + 20).value == BFLOAT:
        raise NotImplementedError("CuPy does not support bfloat16 yet")
    if _valid(capsule, b"dltensor_versioned"):  # CuPy does not look at the flag
        flags = ctypes.c_uint64.from_address(tensor_in(capsule) - 8)
        flags.value &= ~READ_ONLY
    device_in(capsule)[:] = [CPU, 0]
    return np.from_dlpack(Taken(capsule)), device


def interface_of(host: np.ndarray[Any, Any], device: int) -> dict[str, Any]:
    """What others see of an array."""
    address = host.ctypes.data if host.size else 0
    shown[address] = device
    return {
        "shape": host.shape,
        "typestr": host.dtype.str,
        "descr": host.dtype.descr,
        "strides": None if host.flags.c_contiguous else host.strides,
        "data": (address, False),
        "stream": get_current_stream().ptr or LEGACY,
        "version": 3,
    }


def from_interface(value: Any) -> tuple[np.ndarray[Any, Any], int]:
    """The memory that an interface describes, and its device; the host waits for its stream."""
    interface = value.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise ValueError("CuPy currently does not support masked arrays.")
    if (stream := interface.get("stream")) is not None:
        stream_of(stream).synchronize()
    dtype, (address, _) = np.dtype(interface["typestr"]), interface["data"]
    if dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {dtype}")
    seen = SimpleNamespace(
        __array_interface__={**interface, "version": 3, "data": (address, False)}
    )
    del seen.__array_interface__["stream"]
    if not address:
        return np.empty(interface["shape"], dtype), current_device()
    return np.asarray(seen), shown[address]
