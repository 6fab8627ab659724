"""A stand-in for CuPy on machines without a GPU: NumPy inside, CuPy's rules outside.

What works here is meant to work on a GPU, so wherever CuPy is stricter than NumPy the stand-in is
as strict, and where CuPy would do something silently wrong, or slow, the stand-in raises:

- names and arguments that CuPy has not are refused (`api.json` records them from the real module);
- arrays of NumPy are never taken for those of the device, nor the other way round;
- what NumPy returns as a scalar is an array without axes;
- dtypes of results are those of CuPy's kernels;
- an array belongs to a device, and can be used while that is the current one;
- every transfer and every wait is counted (`count_traffic`), and every launch (`count_launches`);
- indices that CuPy would wrap around, unnoticed, raise `SilentOnGPU`;
- memory that is only allocated holds NaN;
- copies from page-locked memory on other streams wait until somebody waits for them (`ordering`);
- reading what another stream was given to write, without having waited for that, raises (`races`);
- what a stream captures is done when its graph is launched, and only then (`capturing`);
- pools of a user's own lend memory again, poisoned (`pools`);
- kernels (``cupy.RawModule``) are executed, by the `emulator`, and may do nothing undefined.

Names that CuPy has and the stand-in has not yet raise NotImplementedError: add them to `functions`.
"""

from __future__ import annotations

from .array import SilentOnGPU
from .emulator import KernelFault, thread_order
from .gpus import Traffic, count_launches, count_traffic, other_machine
from .modules import install, is_installed

__all__ = [
    "KernelFault",
    "SilentOnGPU",
    "Traffic",
    "count_launches",
    "count_traffic",
    "install",
    "is_installed",
    "other_machine",
    "thread_order",
]
