"""Whether an array is nobody else's: it may then be kept where a copy would be made.

An array has one reference while only the caller has it. Others may also hold its memory through
views, each of which has a reference to the array that owns the memory.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

from tinygrad_bn.backend import Array, Backend


def references(held: list[Any]) -> int:
    """What Python counts for a value that was taken out of a list which alone held it."""
    value = held.pop()
    return getrefcount(value)


ALONE = references([object()])


def taken(held: list[Any], backend: Backend) -> Array:
    """The array at the end of a list, taken out of there, if nobody else has its memory; else a
    copy. It is in C order.
    """
    kind: Any = backend.array_type
    array = held.pop()
    if array.__class__ is not kind or not array.flags.c_contiguous:
        return backend.copy(array)
    owner = array.base
    if getrefcount(array) == ALONE:
        if owner is None:
            if array.flags.owndata:
                return array
        elif (
            owner.__class__ is kind
            and owner.nbytes == array.nbytes
            and owner.flags.owndata
            and getrefcount(owner) == ALONE + 1  # the view's reference
        ):
            return array
    return backend.copy(array)
