"""Every source of kernels that the library has."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tinygrad_bn.backends.cuda_kernels import FAMILIES

from tests import cupy_standin

cupy_standin.install()


def sources() -> dict[str, Any]:
    """Them by the names of their files, from the modules of all families."""
    found = {}
    for family in sorted(set(FAMILIES.values())):
        module = import_module(f"tinygrad_bn.backends.cuda_kernels.{family}")
        for value in vars(module).values():
            if type(value).__name__ == "Source":
                found[value.file] = value
    return found
