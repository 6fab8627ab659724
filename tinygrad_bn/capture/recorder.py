"""The traced interpreter: it executes a step, and writes down what it executes."""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, current
from tinygrad_bn.capture.memento import Memento
from tinygrad_bn.capture.traced import Traced, native_of, refusal
from tinygrad_bn.capture.values import (
    Action,
    Instruction,
    Kind,
    Value,
    leaves,
    replaced,
    user_line,
)
from tinygrad_bn.errors import CaptureError

WITHOUT_SHAPE = frozenset({"nonzero"})
"""Words whose result has a shape that depends on values."""
FOREIGN = frozenset(
    "all any argmax argmin argsort isfinite isinf isnan shape ndim size result_type".split()
)
"""NumPy's functions that reach traced arrays other than through ``xp``."""


ENTRANCES = frozenset(
    f"tinygrad_bn.{name}"
    for name in (
        "autograd.function creation ops.conversion ops.fresh ops.index ops.inplace tensors".split()
    )
)
"""Where arrays that are not this library's become tensors."""


def plain(tree: Any) -> Any:
    """The tree with arrays in the places of traced ones."""
    return replaced(tree, Traced, lambda x: x.array)


def values(tree: Any) -> Any:
    """The tree with values in the places of traced arrays."""
    return replaced(tree, Traced, lambda x: x.value)


def owner(array: Array) -> Array:
    """The array that memory belongs to."""
    while isinstance(array.base, type(array)):
        array = array.base
    return array


class Recorder:
    """Executes a step on real arrays and records the instructions that would do it again.

    Arrays that the step finds in tensors and optimizers become state: the program will read and
    write that memory. What is made of Python's numbers alone becomes a constant.

    Attributes
    ----------
    backend : where all of the step's arrays are.
    instructions : what has been executed so far.
    initial : constants that the step overwrites, each with what a replay must begin with.
    undo : what takes the step back, to be called from the last to the first.
    read : tensors whose arrays the step found there, each with that array.
    generators : of random numbers, that the step draws from.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.native = native_of(backend)
        self.thread = threading.get_ident()
        self.instructions: list[Instruction] = []
        self.initial: list[tuple[Array, Array]] = []
        self._wrapped: dict[int, ref[Variable]] = {}
        self.read: dict[int, tuple[Variable, Array]] = {}
        self.undo: list[Callable[[], None]] = []
        self.generators: list[Any] = []
        self._known: dict[int, Traced] = {}  # by id, while they hold the array
        self._made: dict[int, Array] = {}
        self._written: set[int] = set()
        self._count = 0

    # Values

    def wrap(self, x: Variable) -> None:
        """Note that a tensor holds a traced array now."""
        self._wrapped[id(x)] = ref(x)

    @property
    def wrapped(self) -> list[Variable]:
        """The living tensors that hold traced arrays, or did."""
        return [x for found in list(self._wrapped.values()) if (x := found()) is not None]

    def value(self, kind: Kind, array: Array, base: Value | None = None) -> Value:
        """A new value, of the shape and layout of ``array``."""
        self._count += 1
        kept = array if kind in (Kind.STATE, Kind.CONSTANT) else None
        return Value(
            self._count, kind, array.shape, array.dtype, array.strides, base=base, array=kept
        )

    def traced(self, array: Array, value: Value) -> Traced:
        return Traced(array, value, self)

    def lift(self, array: Array) -> Traced:
        """The traced array for one that exists apart from the program; always the same.

        Raises
        ------
        CaptureError
            If it is not on the step's device.
        """
        if not isinstance(array, self.native):
            raise refusal(
                f"computes on {self.backend.device}, and reads an array that is not there; move "
                "all to one device before the call"
            )
        known = self._known.get(id(array))
        if known is None:
            kind = Kind.CONSTANT if self.is_made(array) else Kind.STATE
            known = self._known[id(array)] = self.traced(array, self.value(kind, array))
        return known

    def bring(self, array: Array) -> Traced:
        """The traced array for one that is another at every call."""
        return self.traced(array, self.value(Kind.INPUT, array))

    def bring_gradient(self, array: Array) -> Traced:
        """The same, for one that the step will find where a gradient is."""
        known = self._known[id(array)] = self.bring(array)
        return known

    def constant(self, result: Any) -> Any:
        """What was made of constants: arrays, traced as such; anything else as it is."""
        if isinstance(result, tuple):
            return tuple(self.constant(x) for x in result)
        if not isinstance(result, (self.native, np.generic)):
            return result
        array = self.whole(result)
        if not isinstance(array, self.native):
            return array  # a number, for a GPU's kernels
        self._made[id(owner(array))] = owner(array)
        return self.lift(array)

    def whole(self, result: Any) -> Any:
        """A scalar of NumPy's as an array, where arrays are NumPy's."""
        return np.asarray(result) if self.native is np.ndarray else result

    def is_made(self, array: Array) -> bool:
        """Whether the step made it, of constants, and has not overwritten it."""
        found = owner(array)
        return id(found) in self._made and id(found) not in self._written

    # Instructions

    def word(
        self, name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Execute and record one call without side effects."""
        self.check_thread()
        found = [*leaves((args, kwargs), Traced)]
        if all(x.value.root.kind is Kind.CONSTANT for x in found):
            return self.constant(function(*plain(args), **plain(kwargs)))
        if name in WITHOUT_SHAPE:
            raise refusal(f"needs the values that {name} finds to know a shape")
        return self.executed(name, Action.MAKE, function, args, kwargs)

    def executed(
        self, name: str, action: Action, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        result = function(*plain(args), **plain(kwargs))
        found = [*leaves((args, kwargs), Traced)]
        several = isinstance(result, tuple)
        outputs = [self.output(x, found) for x in (result if several else (result,))]
        places = tuple(i for i, (_, is_new) in enumerate(outputs) if is_new)
        fresh = [outputs[i][0].value for i in places]
        if fresh or action is Action.CALL:
            if any(value.base is not None for value in fresh):
                action = Action.VIEW
            given = values(args), values(kwargs)
            self.instructions.append(
                Instruction(name, action, function, *given, tuple(fresh), places, user_line())
            )
        wrapped = tuple(x for x, _ in outputs)
        return wrapped if several else wrapped[0]

    def output(self, result: Any, operands: list[Traced]) -> tuple[Any, bool]:
        """One result as a traced array, and whether it is a new value."""
        if result is None:
            return None, False
        if not isinstance(result, (self.native, np.generic, bool, int, float)):
            raise refusal(f"computes {type(result).__name__}, which is no array")
        array = self.whole(result)
        if not isinstance(array, self.native):
            raise refusal(f"computes {type(result).__name__}, which a GPU would have to wait for")
        for x in operands:
            if x.array is array:
                return x, False
        for x in operands:
            if array.size and self.backend_overlap(array, x.array):
                shared = x.value
                kind = shared.root.kind
                return self.traced(array, self.value(kind, array, shared)), True
        return self.traced(array, self.value(Kind.RESULT, array)), True

    def index(self, x: Traced, index: Any) -> Any:
        """``x[index]``."""
        for part in leaves(index, Traced):
            if part.dtype.kind == "b" and part.value.kind is not Kind.CONSTANT:
                raise refusal("selects by a mask, whose values decide a shape")
        return self.word("getitem", operator.getitem, (x, index), {})

    def assign(self, target: Traced, index: Any, value: Any) -> None:
        """``target[index] = value``."""
        self.write("setitem", operator.setitem, target, (index, value))

    def store(self, target: Array | Traced, value: Any) -> None:
        """Overwrite ``target`` with ``value``, cast and broadcast."""
        to = target if isinstance(target, Traced) else self.lift(target)
        value = self.lift(value) if isinstance(value, self.native) else value
        if to is not value:
            self.write("store", self.backend_store, to, (value,))

    def write(
        self, name: str, function: Callable[..., Any], target: Traced, rest: tuple[Any, ...]
    ) -> None:
        self.check_thread()
        self.remember(target)
        function(target.array, *plain(rest))
        given = (target.value, *values(rest))
        self.instructions.append(
            Instruction(
                name, Action.WRITE, function, given, {}, (), (), user_line(), (target.value,)
            )
        )

    def update(
        self,
        name: str,
        function: Callable[..., Any],
        places: Sequence[int],
        args: Any,
        kwargs: dict[str, Any],
    ) -> Any:
        """Execute and record a kernel that overwrites the arguments in these places."""
        self.check_thread()
        targets = [args[i] for i in places if args[i] is not None]
        for target in targets:
            self.remember(target)
        function(*plain(args), **plain(kwargs))
        given = values(args), values(kwargs)
        overwritten = tuple(target.value for target in targets)
        self.instructions.append(
            Instruction(name, Action.WRITE, function, *given, (), (), user_line(), overwritten)
        )
        return tuple(args[i] for i in places)

    def remember(self, target: Traced) -> None:
        """Keep what is overwritten: of a constant for replays, of state in case of refusal."""
        memory = owner(target.array)
        if id(memory) in self._written:
            return
        self._written.add(id(memory))
        root = target.value.root
        if root.kind is Kind.RESULT:
            return
        with current(self.backend):
            before = memory.copy(order="K")
        if root.kind is Kind.CONSTANT:
            self.initial.append((memory, before))
            for known in self._known.values():
                if known.value.kind is Kind.CONSTANT and owner(known.array) is memory:
                    known.value.kind = Kind.STATE
        else:
            self.undo.append(partial(self.backend_store, memory, before))

    def call(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call into Python, now and at every replay: arrays come back as new values."""
        self.check_thread()
        with suspended():
            self.undo.append(
                Memento(self.backend, (), [getattr(function, "__self__", None), *args]).restore
            )
            result = self.executed(
                name_of(function),
                Action.CALL,
                function,
                *self.without_tensors(args, kwargs),
            )
        return result

    def without_tensors(self, args: Any, kwargs: Any) -> Any:
        """Arguments with the arrays of tensors in their places."""

        def array_of(x: Variable) -> Any:
            held = vars(x)["array"]
            return held if isinstance(held, Traced) else x

        return replaced((args, kwargs), Variable, array_of)

    # What the backend does beside its vocabulary

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        """The backend's ``asarray``: of traced arrays recorded, of numbers a constant.

        Raises
        ------
        CaptureError
            For an array that the user brings: a replay would go on with the same values. What
            operations make of Python's numbers, such as tables of places, is theirs to know.
        """
        if isinstance(value, Traced):
            if dtype is None or value.dtype == dtype:
                return value
            return self.word("asarray", self.backend_asarray, (value, dtype), {})
        foreign = (
            isinstance(value, (np.ndarray, self.native)) and value.ndim and not self.is_made(value)
        )
        if foreign and sys._getframe(2).f_globals["__name__"] in ENTRANCES:
            raise refusal(
                "makes a tensor of an array, whose values every replay would see again; give it to "
                "the step as a tensor"
            )
        if isinstance(value, (list, tuple)) and any(True for _ in leaves(value, Traced)):
            raise refusal("makes an array of a list of traced ones; use stack or cat")
        return self.constant(self.backend_asarray(value, dtype))

    def copy(self, array: Any) -> Any:
        """The backend's ``copy``."""
        given = array if isinstance(array, Traced) else self.lift(array)
        if given.value.kind is Kind.CONSTANT:
            return self.constant(self.backend_copy(given.array))
        return self.executed("copy", Action.MAKE, self.backend_copy, (given,), {})

    def to_numpy(self, array: Any) -> Array:
        """The backend's ``to_numpy``, which a constant alone permits."""
        if isinstance(array, Traced):
            if array.value.kind is not Kind.CONSTANT:
                raise refusal("reads values, or moves them, that every replay computes anew")
            return array.array
        return array

    def foreign(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A function of NumPy's that was called on traced arrays, not through ``xp``."""
        name = function.__name__
        if name not in FOREIGN or self.native is not np.ndarray:
            raise refusal(f"calls numpy.{name} on a tensor's array")
        return self.word(name, function, args, kwargs)

    def draws_from(self, generator: Any) -> None:
        """A replay moves this generator's counter, and no one else may meanwhile."""
        if generator not in self.generators:
            self.generators.append(generator)

    def check_thread(self) -> None:
        """Refuse what another thread does with this one's arrays."""
        if threading.get_ident() != self.thread:
            raise CaptureError("expected a step that runs in one thread, got one that uses another")

    backend_asarray: Callable[..., Any]
    backend_copy: Callable[..., Any]
    backend_store: Callable[..., Any]
    backend_overlap: Callable[..., bool]
    """What the backend does without a recorder; `interception` sets them."""


def name_of(function: Callable[..., Any]) -> str:
    """A function's name, and of a method the class of what it is called on."""
    kind = type(getattr(function, "__self__", None)).__name__
    name: str = getattr(function, "__qualname__", repr(function))
    return name if kind == "NoneType" else f"{kind}.{name.rpartition('.')[2]}"


@contextmanager
def suspended() -> Generator[None]:
    """Nothing is recorded inside: tensors show real arrays."""
    token = config.tracer.set(None)
    try:
        yield
    finally:
        config.tracer.reset(token)
