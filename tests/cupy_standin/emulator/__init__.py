"""CUDA C++ executed on the CPU: the same source that a GPU gets, built with g++, a fiber a thread.

A launch fails with a `KernelFault` where a kernel

- reads or writes outside of its arrays, or of a shared array of known size, or unaligned;
- waits at two barriers at once, at a barrier that others have left behind, or forever;
- adds floats atomically, whose sum would depend on the order (it does not compile);
- gets arguments other than it declares, or more threads than its launch bounds say.

Shared memory is poisoned with NaN before each block, so that what is read before it is written
shows in the result; so does a missing barrier, under some order of the threads (`thread_order`).
What this cannot show: how fast a kernel is, its registers (see ``tests/cuda/test_nvrtc.py``), how a
GPU's memory reorders what no fence holds, and how a GPU rounds functions such as exp.
"""

from __future__ import annotations

from .building import Missing, compiler
from .launching import KernelFault, Library, launched, thread_order

__all__ = ["KernelFault", "Library", "Missing", "compiler", "launched", "thread_order"]
