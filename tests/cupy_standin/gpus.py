"""The machine that the stand-in imagines: two GPUs, a driver, and what crosses the bus, counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace, TracebackType
from typing import Any

SUCCESS, INVALID_VALUE, MEMORY_ALLOCATION = 0, 1, 2
INSUFFICIENT_DRIVER, NO_DEVICE, INVALID_DEVICE, ILLEGAL_ADDRESS = 35, 100, 101, 700
ILLEGAL_STATE, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_ISOLATION = 401, 900, 901, 905
CAPTURE_IMPLICIT, CAPTURED_EVENT = 906, 907
MEANINGS = {
    MEMORY_ALLOCATION: "cudaErrorMemoryAllocation: out of memory",
    ILLEGAL_ADDRESS: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    INSUFFICIENT_DRIVER: "cudaErrorInsufficientDriver: driver older than runtime",
    NO_DEVICE: "cudaErrorNoDevice: no CUDA-capable device is detected",
    INVALID_DEVICE: "cudaErrorInvalidDevice: invalid device ordinal",
    ILLEGAL_STATE: "cudaErrorIllegalState: not permitted in the present state",
    CAPTURE_UNSUPPORTED: "cudaErrorStreamCaptureUnsupported: not permitted while a stream captures",
    CAPTURE_INVALIDATED: "cudaErrorStreamCaptureInvalidated: failed by an earlier error in capture",
    CAPTURE_ISOLATION: "cudaErrorStreamCaptureIsolation: depends on work that is not captured",
    CAPTURE_IMPLICIT: "cudaErrorStreamCaptureImplicit: the legacy stream meets a capturing one",
    CAPTURED_EVENT: "cudaErrorCapturedEvent: the event was recorded in a capturing stream",
}


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, with its number as ``status``."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(MEANINGS.get(status, f"cudaError {status}"))


class CUDADriverError(RuntimeError):
    """An error of the driver, which loads and launches kernels, with its number as ``status``."""

    def __init__(self, status: int) -> None:
        self.status = status
        name = "OUT_OF_MEMORY: out of memory" if status == MEMORY_ALLOCATION else status
        super().__init__(f"CUDA_ERROR_{name}")


@dataclass
class Machine:
    """What a test may change, to see what the library says of another machine."""

    devices: int = 2
    driver: int = 13020
    status: int = SUCCESS
    """What every call of the runtime fails with, where it is not SUCCESS."""
    generation: int = 9
    """The major number of the GPUs' compute capability."""
    free_memory: int = 79 << 30
    """Bytes that the pool of device memory may still take."""
    free_pinned: int = 64 << 30
    """Bytes that may still be page-locked."""

    def require(self) -> None:
        if self.status:
            raise CUDARuntimeError(self.status)


@dataclass
class Traffic:
    """How often the program waited for the device, or sent it something."""

    d2h: int = 0
    h2d: int = 0
    synchronizations: int = 0
    """Waits for a stream or a device, without data."""


@dataclass
class Launches:
    """How often the device was given a kernel to execute, or memory to copy or to fill."""

    count: int = 0


at_launch: list[Callable[[], None]] = []
"""What hears of every launch."""
before_synchronization: list[Callable[[int], None]] = []
"""What may refuse a wait for a device."""
at_synchronization: list[Callable[[int], None]] = []
"""What a wait for a device does, with its number."""
machine = Machine()
traffic = Traffic()
_local = threading.local()


@contextmanager
def count_traffic() -> Generator[Traffic]:
    """What crosses the bus inside: the counts are there when the block ends."""
    before, inside = replace(traffic), Traffic()
    yield inside
    for name in vars(inside):
        setattr(inside, name, getattr(traffic, name) - getattr(before, name))


def launched() -> None:
    """The device is given something to do."""
    for hear in at_launch:
        hear()


@contextmanager
def count_launches() -> Generator[Launches]:
    """The launches of all threads inside, but for cuBLASLt's, which has a count of its own."""
    found = Launches()

    def hear() -> None:
        found.count += 1

    at_launch.append(hear)
    try:
        yield found
    finally:
        at_launch.remove(hear)


@contextmanager
def other_machine(**changes: int) -> Generator[None]:
    """Another machine for a while, by the names of `Machine`."""
    before = replace(machine)
    vars(machine).update(changes)
    try:
        yield
    finally:
        vars(machine).update(vars(before))


def current_device() -> int:
    """The device that this thread works on."""
    return getattr(_local, "device", 0)


def set_device(device: int) -> None:
    machine.require()
    if not 0 <= device < machine.devices:
        raise CUDARuntimeError(INVALID_DEVICE)
    _local.device = device


def get_device() -> int:
    machine.require()
    return current_device()


def get_device_count() -> int:
    machine.require()
    if machine.devices == 0:
        raise CUDARuntimeError(NO_DEVICE)
    return machine.devices


def get_device_properties(device: int) -> dict[str, Any]:
    """The few properties that anybody asks for."""
    machine.require()
    return {
        "name": f"Stand-in GPU {device}".encode(),
        "major": machine.generation,
        "minor": 0,
        "totalGlobalMem": 80 << 30,
        "multiProcessorCount": 132,
    }


class Device:
    """A GPU; inside ``with``, the current one."""

    def __init__(self, device: int | None = None) -> None:
        machine.require()
        self.id = current_device() if device is None else int(device)
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(current_device())
        set_device(self.id)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        set_device(self._before.pop())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        set_device(self.id)

    def synchronize(self) -> None:
        for refuse in before_synchronization:
            refuse(self.id)
        traffic.synchronizations += 1
        for finish in at_synchronization:
            finish(self.id)

    @property
    def mem_info(self) -> tuple[int, int]:
        return machine.free_memory, 80 << 30


shown: dict[int, int] = {}
"""The devices of memory that was shown to other libraries, by its address."""


def pointer_attributes(address: int) -> Any:
    """Whose memory it is, of those that were shown."""
    machine.require()
    if address not in shown:
        raise CUDARuntimeError(INVALID_VALUE)
    return SimpleNamespace(device=shown[address], type=2)


driver = SimpleNamespace(CUDADriverError=CUDADriverError)
runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    driverGetVersion=lambda: machine.driver,
    runtimeGetVersion=lambda: 13020,
    getDevice=get_device,
    setDevice=set_device,
    getDeviceCount=get_device_count,
    getDeviceProperties=get_device_properties,
    pointerGetAttributes=pointer_attributes,
)
