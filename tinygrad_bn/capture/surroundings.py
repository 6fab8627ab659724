"""What a step finds in Python when it runs: the modes of modules, options, numbers in variables.

A program holds for one such state. What the step can reach is walked once, when it is traced; later
calls compare, which costs some nanoseconds a variable.
"""

from __future__ import annotations

import builtins
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Kernel, KernelPoint
from tinygrad_bn.capture.contents import (
    NUMBERS,
    Cell,
    ClassAttributes,
    Code,
    Contents,
    Decisions,
    Globals,
    Hooks,
)
from tinygrad_bn.nn.normalization import base
from tinygrad_bn.nn.parts import Parts
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer
from tinygrad_bn.optim.scheduler import LRScheduler
from tinygrad_bn.philox import Generator

SELF_KEPT = (Generator, LRScheduler, np.ndarray)
"""What a replay calls again, so that nothing in it is taken for fixed."""
LIBRARIES = {*sys.stdlib_module_names, "numpy", "numba", "scipy", "cupy", "cupyx", "tinygrad_bn"}


class StandIn:
    """What is called in the place of a function."""

    function: Callable[..., Any]


class Surroundings:
    """All that a step can reach through its closure, globals, arguments and their attributes.

    Attributes
    ----------
    contents : what must be as it was.
    tensors : the tensors found.
    optimizers : the optimizers found whose parameters lie in flat buffers.
    """

    def __init__(self, step: Any, args: Any) -> None:
        self.contents: list[Contents] = []
        self.tensors: dict[int, Variable] = {}
        self.optimizers: list[FlatOptimizer] = []
        self._streams: list[tuple[str, Callable[[], Any], Any]] = []
        self._seen: dict[int, Any] = {}
        self.walk(step, getattr(step, "__name__", type(step).__name__))
        self.walk(args, "arguments")
        self.mapping(base._gathered, "accumulated statistics")
        self.stream("random", random.getstate)
        self.stream("numpy.random", lambda: np.random.get_state(legacy=True))  # noqa: NPY002

    def same(self) -> bool:
        """Whether a program that was traced here holds now."""
        return all(part.same() for part in self.contents)

    def traced(self) -> None:
        """Note what the optimizers did, once the step has been traced."""
        for optimizer in self.optimizers:
            path = f"{type(optimizer).__name__}'s options"
            self.contents.append(Decisions(path, optimizer))

    def keeps(self, buckets: Sequence[Any]) -> bool:
        """Whether changes to the options of all these buckets would be seen."""
        decisions = [part for part in self.contents if isinstance(part, Decisions)]
        known = {id(bucket) for part in decisions for _, bucket in part.buckets()}
        return known >= {*map(id, buckets)}

    def changed(self) -> str | None:
        """The first thing that is no longer as it was, by its path; None if all is."""
        for part in self.contents:
            if not part.same():
                return part.path
        for path, read, before in self._streams:
            if repr(read()) != before:
                return path
        return None

    def stream(self, path: str, read: Callable[[], Any]) -> None:
        self._streams.append((path, read, repr(read())))

    def walk(self, x: Any, path: str) -> None:
        """Take in what x is, and what it refers to."""
        if x is None or isinstance(x, (*NUMBERS, type, ModuleType, BuiltinFunctionType, np.ufunc)):
            return
        if id(x) in self._seen:
            return
        self._seen[id(x)] = x
        if isinstance(x, Variable):
            self.tensors[id(x)] = x
            self.contents.append(hooks := Hooks(f"the hooks of {path}", x))
            for hook in hooks.items:
                self.walk(hook, hooks.path)
        elif isinstance(x, FlatOptimizer):
            self.optimizer(x, path)
        elif isinstance(x, np.random.Generator):
            self.stream(path, lambda: x.bit_generator.state)
        elif isinstance(x, random.Random):
            self.stream(path, x.getstate)
        elif isinstance(x, FunctionType):
            self.function(x, path)
        elif isinstance(x, StandIn):
            self.walk(x.function, path)
        elif isinstance(x, MethodType):
            self.walk(x.__self__, path.rpartition(".")[0] or path)
            self.walk(x.__func__, path)
        elif isinstance(x, partial):
            for part in (x.func, x.args, x.keywords):
                self.walk(part, path)
        elif isinstance(x, Mapping):
            self.mapping(x, path)
        elif isinstance(x, (list, tuple, set, frozenset, deque)):
            self.sequence(x, path)
        elif isinstance(x, LRScheduler):
            self.walk(x.optimizer, f"{path}.optimizer")
        elif not (
            isinstance(x, (*SELF_KEPT, Kernel, KernelPoint, CodeType))
            or hasattr(type(x), "__cuda_array_interface__")
            or type(x).__module__.startswith("tinygrad_bn.backends")
        ):
            self.instance(x, path)

    def keep(
        self, path: str, read: Callable[[], Any], shown: Any = None, watched: bool = False
    ) -> None:
        self.contents.append(Contents(path, read, shown, watched))

    def mapping(self, x: Mapping[Any, Any], path: str) -> None:
        self.keep(path, lambda: (*x.keys(), *x.values()), x)
        for key, value in list(x.items()):
            self.walk(value, f"{path}[{key!r}]")

    def sequence(self, x: Any, path: str) -> None:
        if not isinstance(x, (tuple, frozenset)):
            self.keep(path, lambda: x, x)
        for number, value in enumerate(x):
            self.walk(value, f"{path}[{number}]")

    def instance(self, x: Any, path: str) -> None:
        """The attributes of an object, and of its class."""
        attributes = getattr(x, "__dict__", None)
        if attributes is not None:
            watched = isinstance(x, Parts)
            self.keep(path, attributes.values, attributes, watched)
            for name, value in list(attributes.items()):
                if not (watched and name == "_kinds"):
                    self.walk(value, f"{path}.{name}")
        self.classes(x, path)

    def classes(self, x: Any, path: str) -> None:
        """What the user wrote of an object's class."""
        for kind in users(type(x)):
            names = [n for n in vars(kind).get("__slots__", ()) if hasattr(x, n)]
            if names:
                self.keep(path, partial(slots_of, x, names))
            for name in names:
                self.walk(getattr(x, name), f"{path}.{name}")
            if id(kind) not in self._seen:
                self._seen[id(kind)] = kind
                self.class_attributes(kind, path)

    def class_attributes(self, kind: type, path: str) -> None:
        """The attributes of a class, and whether it hides some of its bases'."""
        names = {name for found in users(kind) for name in vars(found) if is_read(name)}
        self.contents.append(ClassAttributes(f"{path}'s class", kind, sorted(names)))
        for name in sorted(names & vars(kind).keys()):
            value = vars(kind)[name]
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            if isinstance(value, property):
                value = value.fget
            self.walk(value, f"{path}.{name}")

    def function(self, x: FunctionType, path: str) -> None:
        """The variables that a function reads from around it."""
        ours = (x.__module__ or "").partition(".")[0] in LIBRARIES
        if ours and x.__closure__ is None:
            return
        if not ours:
            self.contents.append(Code(path, x))
        self.walk(x.__defaults__, path)
        self.walk(x.__kwdefaults__, path)
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            self.contents.append(found := Cell(name, cell))
            for value in found.items:
                self.walk(value, name)
        if ours:
            return
        read = {*names_in(x.__code__)}
        names = sorted(read & x.__globals__.keys())
        hidden = sorted((read & vars(builtins).keys()) - x.__globals__.keys())
        if names or hidden:  # what is built in until a global has its name
            self.contents.append(Globals(path, x.__globals__, names + hidden))
        for name in names:
            self.walk(x.__globals__[name], name)

    def optimizer(self, x: FlatOptimizer, path: str) -> None:
        """The groups and the parameters in them: what numbers there are a replay reads again; and
        what else the user gave it, as another ``step``.
        """
        self.optimizers.append(x)
        self.keep(path, vars(x).values, vars(x))
        for name, value in list(vars(x).items()):
            if name not in ("param_groups", "defaults", "_state", "_buckets"):
                self.walk(value, f"{path}.{name}")
        self.classes(x, path)
        self.keep(path, lambda: (x.param_groups, *x.param_groups), watched=True)
        for number, group in enumerate(x.param_groups):
            here = f"{path}.param_groups[{number}]"
            params = group["params"]
            self.keep(here, partial(structure_of, group), watched=True)
            self.sequence(params, f"{here}['params']")


def users(kind: type) -> Iterator[type]:
    """Those of a class and its bases that are no library's."""
    for found in kind.__mro__:
        if found.__module__.partition(".")[0] not in LIBRARIES:
            yield found


def is_read(name: str) -> bool:
    """Whether a step may read an attribute of this name of a class, or call it unnamed."""
    return not name.startswith("__") or name in ("__call__", "__enter__", "__exit__")


def slots_of(x: Any, names: list[str]) -> list[Any]:
    """The attributes of an object that has no dict of them."""
    return [getattr(x, name, None) for name in names]


def structure_of(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of an optimizer's group no update reads again: the rest are options, read each time."""
    return group["params"], group.get("train_mode")


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function, and in those inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
