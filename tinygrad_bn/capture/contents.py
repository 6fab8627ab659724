"""What containers held when a step was traced, and whether they do now, in as little time as the
step itself may take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import is_
from types import CellType
from typing import Any

import numpy as np

from tinygrad_bn.nn.parts import CHANGES
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer

NUMBERS = (bool, int, float, complex, str, bytes, np.generic, np.dtype)


class Contents:
    """What a container held when the step was traced: a dict's, a list's, a module's.

    ``living`` says that what ``read`` returns goes on showing what there is; ``watched``, that
    something else would tell: modules, which count their changes, or `Decisions`.
    """

    def __init__(
        self, path: str, read: Callable[[], Any], living: bool = False, watched: bool = False
    ) -> None:
        self.path, self.read, self.living, self.watched = path, read, living, watched
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


class Cell(Contents):
    """What a variable of a closure refers to; nothing, where it is yet to be assigned."""

    def __init__(self, path: str, cell: CellType) -> None:
        self.cell = cell
        super().__init__(path, self.contents)

    def contents(self) -> tuple[Any, ...]:
        """The object, or nothing."""
        try:
            return (self.cell.cell_contents,)
        except ValueError:
            return ()


class Globals(Contents):
    """What the global variables of a function refer to."""

    def __init__(self, path: str, variables: Mapping[str, Any], names: Sequence[str]) -> None:
        self.variables, self.names = variables, names
        super().__init__(path, self.contents)

    def contents(self) -> list[Any]:
        """The objects; a variable that is gone has one that is nothing else."""
        return [self.variables.get(name, self) for name in self.names]


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

    def containers(self) -> list[Any]:
        """Containers that all of it is in, a mark after each, so that no item changes its place."""
        views: list[Any] = [self.optimizer.param_groups]
        for group, bucket in self.buckets():
            views += [bucket.runs, group.values(), group["params"]]
        return [part for view in views for part in (view, (self,))]


def equal(a: Any, b: Any) -> bool:
    """Whether two values are one object, or numbers or strings that no step can tell apart."""
    if a is b:
        return True
    if type(a) is not type(b) or not isinstance(a, NUMBERS):
        return False
    return bool(a == b or (a != a and b != b))


class Glance:
    """Whether everything is the very same as at a certain time: a quick look, which nearly always
    suffices.
    """

    def __init__(self, contents: Sequence[Contents]) -> None:
        self.changes = CHANGES[0]
        self.cells: list[tuple[CellType, Any]] = []
        self.globals: list[tuple[Mapping[str, Any], str, Any]] = []
        self.views: list[Any] = []
        self.items: list[Any] = []
        self.decisions: list[Decisions] = []
        self.computed: list[Contents] = []
        for part in contents:
            if isinstance(part, Decisions):
                self.decisions.append(part)
            elif isinstance(part, Cell) and part.items:
                self.cells.append((part.cell, part.items[0]))
            elif isinstance(part, Globals):
                for name, held in zip(part.names, part.items, strict=True):
                    self.globals.append((part.variables, name, held))
            elif part.living and not part.watched:
                self.views += [part.read(), (part,)]  # a mark, so that no item changes its place
                self.items += [*part.items, part]
            elif not part.watched:
                self.computed.append(part)
        self.look_at_options()

    def look_at_options(self) -> None:
        """Note the options of optimizers as they are: a schedule changes them at every step."""
        self.options = [view for part in self.decisions for view in part.containers()]
        self.option_items = [*chain.from_iterable(self.options)]

    def same(self) -> bool:
        """Whether nothing has changed; False is no answer."""
        if CHANGES[0] != self.changes:
            return False
        for cell, held in self.cells:
            try:
                if cell.cell_contents is not held:
                    return False
            except ValueError:
                return False
        for variables, name, held in self.globals:
            if variables.get(name) is not held:
                return False
        if not all(map(is_, chain.from_iterable(self.views), self.items)):
            return False
        if not all(map(is_, chain.from_iterable(self.options), self.option_items)):
            if not all(part.same() for part in self.decisions):
                return False
            self.look_at_options()
        return all(part.same() for part in self.computed) if self.computed else True
