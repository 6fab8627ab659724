"""Calls as words in memory, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numba
import numpy as np
from llvmlite import ir

from tinygrad_bn.backend import Array

from ..numba_kernels.compilation import kept
from .entries import I32, addresses_of
from .objects import DATA, TUPLE_ITEMS, address_of, at, calling, directly, intrinsic, put

FINISHED = -1
"""What running code returns when no call has failed."""


@dataclass(frozen=True, slots=True)
class NativeCall:
    """One call of machine code.

    Attributes
    ----------
    target : the address of the function.
    kind : its type; calls of one type share an entry. Or the address of an entry of its own, which
        reads its operands itself.
    operands : numbers as they are, arrays for the addresses of their data.
    held : what must live as long as the call.
    """

    target: int
    kind: ir.FunctionType | int
    operands: tuple[Any, ...]
    held: Any = field(default=None, repr=False)


class Code:
    """Calls, ready to run on the inputs of the moment.

    Parameters
    ----------
    calls : in the order in which they run.
    inputs : arrays in whose places a run brings others of the same layout.
    """

    FINISHED = FINISHED

    def __init__(self, calls: Sequence[NativeCall], inputs: Sequence[Array]) -> None:
        self.calls = list(calls)
        entries = addresses_of([call.kind for call in calls])
        words: list[int] = []
        starts: list[int] = []
        patches: list[tuple[int, int, int]] = []
        bounds = [np.lib.array_utils.byte_bounds(x) for x in inputs]
        for call in calls:
            starts.append(len(words))
            words.append(call.target)
            for operand in call.operands:
                if isinstance(operand, np.ndarray):
                    address = address_of(operand)
                    found = which(address, bounds) if operand.size else None
                    if found is not None:
                        patches.append((len(words), found, address - address_of(inputs[found])))
                    words.append(address)
                else:
                    words.append(word(operand))
        self.words = np.array(words, np.int64)
        base = address_of(self.words)
        code = [(entry, base + 8 * start) for entry, start in zip(entries, starts, strict=True)]
        moves = [(base + 8 * place, 8 * number, shift) for place, number, shift in patches]
        self.code = np.array(
            [len(moves), len(code), *chain.from_iterable([*moves, *code])], np.int64
        )
        self._address = address_of(self.code)

    def run(self, inputs: tuple[Array, ...]) -> int:
        """Make the calls, on these inputs; `FINISHED`, or the number of the call that failed."""
        return run_directly(self._address, id(inputs))  # type: ignore[no-any-return]


def word(x: float | bool) -> int:
    """A number as the 64 bits that an entry reads."""
    if isinstance(x, (float, np.floating)):
        if isinstance(x, np.float32):
            return int(x.view(np.int32))
        return int(np.float64(x).view(np.int64))
    return int(x)


def which(address: int, bounds: Sequence[tuple[int, int]]) -> int | None:
    """The number of the array that an address lies in."""
    for number, (start, end) in enumerate(bounds):
        if start <= address < end:
            return number
    return None


@intrinsic  # type: ignore[untyped-decorator]
def call(typing: Any, entry: Any, operands: Any) -> Any:
    """Call the function at an address with the address of its operands; its status."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return calling(builder, I32, args[0], args[1:])

    return numba.int32(numba.int64, numba.int64), generate


@kept(numba.njit, "int64(int64, int64)", nogil=True)
def run(code: Any, inputs: Any) -> Any:
    """Put the addresses of the inputs' data in, and make the calls."""
    move = code + 16
    first = move + 24 * at(code)
    while move < first:
        put(at(move), at(at(inputs + TUPLE_ITEMS + at(move + 8)) + DATA) + at(move + 16))
        move += 24
    for i in range(at(code + 8)):
        if call(at(first + 16 * i), at(first + 16 * i + 8)) != 0:
            return i
    return FINISHED


run_directly = directly(run)
