"""Kernels that are one compiled call each, on memory that is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tinygrad_bn.backend import Array, Kernel

Call: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
"""A compiled function and what it is called with."""


def in_one_call(
    made: Callable[..., tuple[Array, ...]],
    into: Callable[..., Call],
    accepts: Callable[..., bool],
) -> Kernel:
    """The kernel whose results go into ``made(*args)``, arrays yet without values, by the call that
    ``into(results, *args)`` says.
    """

    def run(*args: Any) -> Any:
        outs = made(*args)
        function, operands = into(outs, *args)
        function(*operands)
        return outs if len(outs) > 1 else outs[0]

    return Kernel(run, accepts, into)


def place(out: Array, operand: Array) -> Array | None:
    """Where a result goes; None where that is the operand's own place.

    Of one array under two names compiled code could not know that iterations do not meet, and would
    take them one by one.
    """
    if out.base is None or operand.base is None:  # as quick as a run has it
        return None if out is operand else out
    here, there = out.__array_interface__["data"][0], operand.__array_interface__["data"][0]
    return None if here == there else out
