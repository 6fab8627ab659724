"""Checks of values, by the names of the functions that refuse: a compiled step makes them without
Python, and lets the function itself say what is wrong.
"""

from __future__ import annotations

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


def refuse_others(
    outs: tuple[Array, ...], backend: Any, labels: Array, classes: int, ignore_index: int
) -> Call:
    return labels_within, (labels.reshape(-1), classes, ignore_index)


def accepts(backend: Any, labels: Array, classes: int, ignore_index: int) -> bool:
    return bool(labels.flags.c_contiguous)


def run(backend: Any, labels: Array, classes: int, ignore_index: int) -> None:
    labels_within(labels.reshape(-1), classes, ignore_index)


KERNELS = {"refuse_others": Kernel(run, accepts, refuse_others)}
