"""What containers held when a step was traced, and whether they do now, in as little time as the
step itself may take.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import is_
from types import CellType, FunctionType
from typing import Any, TypeAlias

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer

Row: TypeAlias = dict[Any, Any] | list[Any] | CellType | FunctionType | tuple[dict[Any, Any], str]
"""Where something stands: a dict, a list, a closure's variable, a function, a name in a dict."""
NUMBERS = (bool, int, float, complex, str, bytes, np.generic, np.dtype)


class Contents:
    """What a container held when the step was traced: a dict's, a list's, a module's.

    ``shown`` is the container itself, if one look at it tells; ``watched`` says that something else
    would: modules, which count their changes, or `Decisions`.
    """

    def __init__(
        self, path: str, read: Callable[[], Any], shown: Any = None, watched: bool = False
    ) -> None:
        self.path, self.read, self.shown, self.watched = path, read, shown, watched
        self.items: tuple[Any, ...] = tuple(read())

    def same(self) -> bool:
        """Whether it holds the same, or equal numbers."""
        now = tuple(self.read())
        if len(now) != len(self.items):
            return False
        if all(map(is_, now, self.items)):
            return True
        if not all(map(equal, now, self.items)):
            return False
        self.items = now
        return True

    def rows(self) -> Sequence[Row] | None:
        """Where all of it stands; None if only `same` can tell."""
        return [self.shown] if type(self.shown) in (dict, list) else None


class Cell(Contents):
    """What a variable of a closure refers to; nothing, where it is yet to be assigned."""

    def __init__(self, path: str, cell: CellType) -> None:
        self.cell = cell
        super().__init__(path, lambda: held_by(cell))

    def rows(self) -> Sequence[Row]:
        return [self.cell]


class Code(Contents):
    """What a function does, and its defaults, which whoever reloads a module exchanges in it."""

    def __init__(self, path: str, function: FunctionType) -> None:
        self.function = function
        super().__init__(path, lambda: held_by(function))

    def rows(self) -> Sequence[Row]:
        return [self.function]


class ClassAttributes(Contents):
    """What somebody wrote in a class."""

    def __init__(self, path: str, kind: type, names: Sequence[str]) -> None:
        self.kind, self.names = kind, names
        super().__init__(path, partial(map, vars(kind).get, names))

    def rows(self) -> Sequence[Row] | None:
        behind = gc.get_referents(vars(self.kind))  # the dict that the class shows a proxy of
        if [type(x) for x in behind] != [dict]:
            return None
        return [(behind[0], name) for name in self.names]


class Globals(Contents):
    """What the global variables of a function refer to."""

    def __init__(self, path: str, variables: dict[str, Any], names: Sequence[str]) -> None:
        self.variables, self.names = variables, names
        super().__init__(path, self.contents)

    def contents(self) -> list[Any]:
        """The objects; a variable that is gone has one that is nothing else."""
        return [self.variables.get(name, self) for name in self.names]

    def rows(self) -> Sequence[Row]:
        return [(self.variables, name) for name in self.names]


class Hooks(Contents):
    """The hooks of a tensor."""

    def __init__(self, path: str, tensor: Variable) -> None:
        self.tensor = tensor
        super().__init__(path, self.contents)

    def contents(self) -> list[Any]:
        """The hooks of both kinds, and nothing between."""
        return [*(self.tensor._hooks or ()), None, *(self.tensor._after or ())]

    def rows(self) -> Sequence[Row]:
        return [(vars(self.tensor), "_hooks"), (vars(self.tensor), "_after"), *self.lists()]

    def lists(self) -> list[Row]:
        """The lists that there are."""
        return [x for x in (self.tensor._hooks, self.tensor._after) if x is not None]


class Decisions(Contents):
    """What decides which update an optimizer computes: its groups, the runs of parameters that have
    been updated alike, and its options; of numbers that an update reads anew each time, only
    whether they are 0.
    """

    def __init__(self, path: str, optimizer: FlatOptimizer) -> None:
        self.optimizer = optimizer
        super().__init__(path, self.decide)

    def decide(self) -> Iterator[Any]:
        """The groups, their runs, and the options."""
        for group, bucket in self.buckets():
            yield from (group, group["params"], *bucket.runs)
            read = {*bucket.numbers, *(["betas"] if "beta1" in bucket.numbers else [])}
            for name, value in group.items():
                yield bool(value) if name in read else value

    def buckets(self) -> Iterator[tuple[Any, Any]]:
        """Each group with each of its buckets."""
        optimizer = self.optimizer
        for group, buckets in zip(optimizer.param_groups, optimizer._buckets, strict=True):
            for bucket in buckets:
                yield group, bucket

    def rows(self) -> Sequence[Row] | None:
        """Where all of it stands, and what tells whether an update has read the options."""
        rows: list[Any] = [self.optimizer.param_groups]
        for group, bucket in self.buckets():
            rows += [bucket.runs, group, group["params"]]
        if not all(type(row) in (dict, list) for row in rows):
            return None
        buckets = [vars(bucket) for _, bucket in self.buckets()]
        return rows + [(x, name) for x in buckets for name in ("group", "_read", "_fixed")]

    def is_read(self) -> bool:
        """Whether an update that reads its options again would find what it read last."""
        return self.rows() is not None and all(
            bucket._fixed
            and bucket.group is group
            and len(group) == len(bucket._read)
            and all(map(is_, group.values(), bucket._read))
            for group, bucket in self.buckets()
        )


def equal(a: Any, b: Any) -> bool:
    """Whether two values are one object, or numbers or strings that no step can tell apart."""
    if a is b:
        return True
    if type(a) is not type(b) or not isinstance(a, NUMBERS):
        return False
    return bool(a == b or (a != a and b != b))


# Looking, where there is no machine code to look


class Held:
    """What containers hold, as `backends/threaded_code` has it, in Python."""

    def __init__(self, sections: Sequence[Iterable[Row]]) -> None:
        self._sections = [[(row, [*held_by(row)]) for row in section] for section in sections]

    def changed(self) -> int:
        """A bit for each section, which is set if something in it is not what it was."""
        found = 0
        for number, section in enumerate(self._sections):
            for row, held in section:
                now = [*held_by(row)]
                if len(now) != len(held) or not all(map(is_, now, held)):
                    found |= 1 << number
                    break
        return found


def held_by(row: Row) -> Iterable[Any]:
    """The objects that a row stands for."""
    if isinstance(row, dict):
        return chain(row.keys(), row.values())
    if isinstance(row, tuple):
        mapping, name = row
        return (mapping.get(name, held_by),)  # which no attribute is
    if isinstance(row, FunctionType):
        return row.__code__, row.__defaults__, row.__kwdefaults__
    if isinstance(row, CellType):
        try:
            return (row.cell_contents,)
        except ValueError:
            return ()
    return row
