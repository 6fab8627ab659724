"""One GPU made the current one: what fails there is the library's error, and says what to do.

Memory that is lacking is asked for once more, when CuPy has given back what it keeps. It does so by
itself where the GPU has none left; not where its pool has reached a limit that was set, and what
others allocate, as cuBLASLt and the driver, it knows nothing of.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import cupy

from tinygrad_bn.errors import BackendError, OutOfMemoryError

T = TypeVar("T")

NO_MEMORY = 2
"""cudaErrorMemoryAllocation, and the driver's CUDA_ERROR_OUT_OF_MEMORY."""
OF_CAPTURES = {401, *range(900, 908)}
"""Errors of a capture, for whoever captures to explain."""
RUINED = {700, 710, 714, 715, 716, 717, 718, 719, 214}
"""Errors of kernels and of the hardware after which CUDA refuses everything in this process."""
ADVICE = "free tensors, take smaller batches, or compute in 16 bits (tg.autocast)"


def cuda_errors() -> tuple[type[Exception], ...]:
    """What CUDA's runtime and its driver raise; both have a ``status``."""
    return cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError


def lacks_memory(error: BaseException) -> bool:
    """Whether a GPU, or page-locked memory, has no more of it to give; NumPy's is another."""
    if isinstance(error, MemoryError):
        return not type(error).__module__.startswith("numpy")
    return isinstance(error, cuda_errors()) and error.status == NO_MEMORY  # type: ignore[attr-defined]


def give_back() -> bool:
    """Let CuPy give back what it keeps of the current device's memory, and page-locked memory;
    whether it may: not while a stream captures.
    """
    if cupy.cuda.get_current_stream().is_capturing():
        return False
    gc.collect()  # of arrays that are in cycles
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()
    return True


def patiently(take: Callable[..., T], *args: Any) -> T:
    """What a function gives; where memory is lacking it is called once more."""
    try:
        return take(*args)
    except Exception as error:
        if not lacks_memory(error) or not give_back():
            raise
    return take(*args)


class Patient:
    """The allocator of CuPy's pool, asked twice."""

    def __init__(self, take: Callable[[int], Any]) -> None:
        self.take = take

    def __call__(self, size: int) -> Any:
        return patiently(self.take, size)


def be_patient() -> None:
    """Make every array of CuPy's so, unless somebody chose another allocator."""
    pool = cupy.get_default_memory_pool()
    if cupy.cuda.get_allocator() == pool.malloc:
        cupy.cuda.set_allocator(Patient(pool.malloc))


def failure(error: BaseException, index: int) -> BackendError | None:
    """The library's error for one of CUDA's; None for any other."""
    device = f"cuda:{index}"
    if isinstance(error, BackendError):
        return None
    if lacks_memory(error):
        return OutOfMemoryError(f"expected more memory on {device}, found none ({error}); {ADVICE}")
    if isinstance(error, cupy.cuda.compiler.CompileException):
        reason = str(error).strip().partition("\n")[0]
        return BackendError(
            f"{device} gets no kernel of CuPy's: {reason}; install tinygrad-bn[cuda13], or "
            "tinygrad-bn[cuda12] for an older driver, whose CuPy brings its compiler"
        )
    if not isinstance(error, cuda_errors()) or error.status in OF_CAPTURES:  # type: ignore[attr-defined]
        return None
    ruined = error.status in RUINED  # type: ignore[attr-defined]
    then = "; start the process anew: CUDA does nothing more in this one" if ruined else ""
    return BackendError(f"CUDA failed on {device}: {error}{then}")


class Current:
    """Make one device the current one; what CUDA says inside becomes a `BackendError`.

    It may be entered again while it is entered, and by several threads at once; CuPy's own
    ``Device`` keeps what was current before in one list for all threads.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._local = threading.local()

    def __enter__(self) -> None:
        try:
            before = cupy.cuda.runtime.getDevice()
            if before != self.index:
                cupy.cuda.runtime.setDevice(self.index)
        except cuda_errors() as error:
            raise failure(error, self.index) or error from error
        self._local.__dict__.setdefault("before", []).append(before)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._local.before.pop()
        try:
            if before != self.index:
                cupy.cuda.runtime.setDevice(before)
        except cuda_errors() as refused:  # as after an error that ruins the process
            error = error or refused
        if error is not None and (ours := failure(error, self.index)) is not None:
            raise ours from error
