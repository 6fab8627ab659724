"""How many threads work at once."""

from __future__ import annotations

from tinygrad_bn.errors import ArgumentError

ASKED: list[int | None] = [None]
"""The number that was set last, by which other kernels may take a product, with other last bits."""


def get_num_threads() -> int:
    """How many threads a product of matrices may take on the CPU."""
    from threadpoolctl import threadpool_info  # looks through all loaded libraries

    return max((x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"), default=1)


def set_num_threads(num_threads: int) -> None:
    """Let products of matrices take at most so many threads on the CPU: those of the BLAS libraries
    that NumPy and SciPy have loaded, for the whole process.

    Kernels run in the thread that calls them, and leave Python's lock to others meanwhile: several
    training loops in Python's threads run side by side, with one BLAS thread each best.

    Notes
    -----
    Until this is called the libraries decide, by ``OPENBLAS_NUM_THREADS`` or the number of cores.
    With one thread, products that stay in a cache are taken by kernels that are quicker then.
    Compiled steps are traced again for another number.
    PyTorch's counts the threads of its own kernels too.
    """
    if type(num_threads) is not int or num_threads < 1:
        raise ArgumentError(f"expected a number of threads ≥ 1, got {num_threads!r}")
    from threadpoolctl import threadpool_limits

    threadpool_limits(num_threads, user_api="blas")
    ASKED[0] = num_threads
