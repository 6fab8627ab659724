"""The GPUs of this machine: ``tg.cuda.is_available()`` and its like, which are there without any.

CuPy is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tinygrad_bn.backend import Device, backend_for, current
from tinygrad_bn.config import get_default_device
from tinygrad_bn.errors import OutOfMemoryError as OutOfMemoryError
from tinygrad_bn.philox import manual_seed


def _adapter() -> Any:
    return import_module("tinygrad_bn.backends.cupy_backend")


def is_available() -> bool:
    """Whether CuPy is installed and finds a GPU."""
    return device_count() > 0


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy or a driver."""
    return int(_adapter().device_count())


def current_device() -> int:
    """The number of the GPU that ``"cuda"`` stands for: the default device's, or 0."""
    return Device(get_default_device()).index or 0


def get_device_name(device: object = None) -> str:
    """What the maker calls the GPU.

    Raises
    ------
    BackendError
        If there is no such GPU.
    """
    index = _index(device)
    backend_for(f"cuda:{index}")
    return str(_adapter().describe_device(index)["name"])


def synchronize(device: object = None) -> None:
    """Wait until the GPU has done all it was given; where there is none, it has."""
    if is_available():
        backend_for(f"cuda:{_index(device)}").synchronize()


def empty_cache() -> None:
    """Let CuPy give back the memory that it keeps for arrays to come, on the GPU that ``"cuda"``
    stands for; where there is none, there is nothing to give back.
    """
    if is_available():
        with current(backend_for(f"cuda:{current_device()}")):
            import_module("tinygrad_bn.backends.current_gpu").give_back()


def manual_seed_all(seed: int) -> None:
    """Seed the default generators, those of the GPUs among them."""
    manual_seed(seed)


def _index(device: object) -> int:
    if device is None:
        return current_device()
    return device if isinstance(device, int) else Device(device).index or 0
