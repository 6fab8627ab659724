"""Kernels of a test's own, executed by the emulator on NumPy's arrays."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backends.cuda_kernels.compilation import expanded

from tests.cupy_standin.emulator import Library, Missing
from tests.cupy_standin.raw_module import give_up


def launch(
    source: str,
    kernel: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    *args: Any,
    shared: int = 0,
) -> None:
    """Execute a kernel of a source, which has the headers of the library before it."""
    text = f'{expanded("blocks.cuh")}\n#line 1 "test.cu"\n{source}'
    try:
        library = Library(text, (kernel,), ())
    except Missing as error:
        give_up(str(error))
    library.launch(kernel, grid, block, args, shared)
