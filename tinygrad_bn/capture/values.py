"""What a program is made of: values, and the instructions that make, view or overwrite them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tinygrad_bn.backend import Array


class Kind(Enum):
    """Where the memory of a value is."""

    RESULT = "result"
    """In the program's arena: an instruction fills it."""
    STATE = "state"
    """In a tensor or an optimizer that exists apart from the program, which reads and writes it."""
    CONSTANT = "constant"
    """In an array that the step made of nothing but Python's numbers."""
    INPUT = "input"
    """In what the caller brings, elsewhere at every call."""


@dataclass(eq=False, slots=True)
class Value:
    """One array of a program, known by its place among the values and not by what is in it."""

    number: int
    kind: Kind
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    base: Value | None = None
    """The value whose memory this one is a view of."""
    array: Array = None
    """The memory itself, where it stays in its place."""

    @property
    def root(self) -> Value:
        """The value that the memory belongs to."""
        value = self
        while value.base is not None:
            value = value.base
        return value

    def __str__(self) -> str:
        return f"{self.kind.value[0]}{self.number}"

    @property
    def described(self) -> str:
        """Its name, dtype and shape."""
        return f"{self} {self.dtype}[{', '.join(map(str, self.shape))}]"


class Action(Enum):
    """What an instruction does with memory."""

    MAKE = "make"
    VIEW = "view"
    WRITE = "write"
    """Overwrites its targets, which are operands; no other result."""
    CALL = "call"
    """Calls back into Python, which keeps state of its own."""


@dataclass(eq=False, slots=True)
class Instruction:
    """One call: a word of the vocabulary, an operator, an index, a kernel, or a call into Python.

    ``args`` and ``kwargs`` hold values in the places of arrays, also inside of tuples, lists, dicts
    and slices.
    """

    name: str
    action: Action
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Value, ...]
    places: tuple[int, ...] = ()
    """Which of what the function returns the results are; the rest are operands again."""
    line: str = ""
    """The user's line that it comes from."""
    targets: tuple[Value, ...] = ()
    """What a write overwrites."""
    operands: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.operands = tuple(values_in((self.args, self.kwargs)))

    def __str__(self) -> str:
        left = ", ".join(value.described for value in self.results)
        given = [written(x) for x in self.args]
        given += [f"{name}={written(x)}" for name, x in self.kwargs.items()]
        return f"{left} = " * bool(left) + f"{self.name}({', '.join(given)})"


def replaced(tree: Any, kind: type | tuple[type, ...], by: Callable[[Any], Any]) -> Any:
    """The tree of tuples, lists, dicts and slices with ``by`` of every leaf of that kind."""
    if isinstance(tree, kind):
        return by(tree)
    if isinstance(tree, tuple):
        parts = [replaced(x, kind, by) for x in tree]
        return tuple(parts) if type(tree) is tuple else type(tree)(*parts)
    if isinstance(tree, list):
        return [replaced(x, kind, by) for x in tree]
    if isinstance(tree, dict):
        return {name: replaced(x, kind, by) for name, x in tree.items()}
    if isinstance(tree, slice):
        return slice(*(replaced(x, kind, by) for x in (tree.start, tree.stop, tree.step)))
    return tree


def leaves(tree: Any, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """The leaves of that kind."""
    found: list[Any] = []
    replaced(tree, kind, found.append)
    return iter(found)


def values_in(tree: Any) -> Iterator[Value]:
    """The values in a tree."""
    return leaves(tree, Value)


def written(x: Any) -> str:
    """An argument as a program shows it, in short."""
    if isinstance(x, (tuple, list)):
        inside = ", ".join(written(part) for part in x)
        kind = type(x).__name__ if hasattr(x, "_fields") else ""
        return f"[{inside}]" if isinstance(x, list) else f"{kind}({inside})"
    if isinstance(x, slice):
        bounds = ["" if b is None else str(b) for b in (x.start, x.stop, x.step)]
        return ":".join(bounds if x.step is not None else bounds[:2])
    if x is Ellipsis:
        return "..."
    named = getattr(x, "__qualname__", None)
    text = str(x) if named is None else named
    return text if len(text) < 60 else f"<{type(x).__name__}>"


_package = Path(__file__).resolve().parent.parent
OURS = (str(_package), str(_package.parent / "backends"))


def user_line() -> str:
    """The nearest line below which only this library is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    if frame is None:
        return ""
    code = frame.f_code
    return f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}'
