"""Checks of values, by the names of the functions that refuse: a compiled step makes them without
Python, and lets the function itself say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_bn.backend import Array, Kernel

from .calling import Call
from .compilation import compiled


@compiled
def labels_within(labels: Any, classes: int, ignore_index: int) -> None:
    """Raise unless every label is a class or to be ignored."""
    for i in range(labels.size):
        label = labels[i]
        if not 0 <= label < classes and label != ignore_index:
            raise ValueError


@compiled
def known(loss: Any, target: Any) -> None:
    """Raise if a loss is NaN because a target is."""
    for i in range(loss.size):
        if loss[i] != loss[i]:
            for j in range(target.size):
                if target[j] != target[j]:
                    raise ValueError


@compiled
def indices_within(index: Any, low: int, high: int) -> None:
    """Raise unless every index is within [low, high)."""
    for i in range(index.size):
        if not low <= index[i] < high:
            raise ValueError


def check(compiled_check: Callable[..., None], arrays: int) -> Kernel:
    """The kernel of a check of some arrays and some numbers, which a backend comes before."""

    def into(outs: tuple[Array, ...], backend: Any, *args: Any) -> Call:
        flat = [x.reshape(-1) for x in args[:arrays]]
        return compiled_check, (*flat, *args[arrays:])

    def run(*args: Any) -> None:
        function, operands = into((), *args)
        function(*operands)

    def accepts(backend: Any, *args: Any) -> bool:
        return all(x.flags.c_contiguous and x.dtype.itemsize > 2 for x in args[:arrays])

    return Kernel(run, accepts, into)


KERNELS = {
    "refuse_others": check(labels_within, 1),
    "refuse_nan": check(known, 2),
    "refuse_beyond": check(indices_within, 1),
}
