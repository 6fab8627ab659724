"""`compile`: a step that is traced once for each kind of call, and replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from threading import RLock
from typing import Any, TypeVar, cast

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.capture.contents import NUMBERS
from tinygrad_bn.capture.glance import OTHER
from tinygrad_bn.capture.program import Program
from tinygrad_bn.capture.surroundings import StandIn
from tinygrad_bn.capture.traced import native_of
from tinygrad_bn.capture.tracing import Capture, mode
from tinygrad_bn.capture.values import replaced
from tinygrad_bn.capture.verification import verified
from tinygrad_bn.errors import ArgumentError, CaptureError, DtypeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.tensors import Buffer, Parameter

F = TypeVar("F", bound=Callable[..., Any])

CHECKED = 3
"""How many replays of each program ``verify`` checks."""
MISSED = object()
"""What the quick path returns where it does not know."""
MOST = 64
"""How many programs there may be for arguments of one kind before something is wrong."""


class Compiled(StandIn):
    """A function that runs as a program; see `compile`.

    Attributes
    ----------
    program : the program that ran last; None before the first call. It prints readably.
    """

    def __init__(self, function: Callable[..., Any], verify: bool) -> None:
        self.function, self.verify = function, verify
        self.program: Program | None = None
        self._recent: Recent | None = None
        self._captures: dict[Any, list[Capture]] = {}
        self._lock = RLock()
        if not isinstance(function, Module):
            update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if config.tracer.get() is not None:  # inside of another compiled step: part of it
            return self.function(*args, **kwargs)
        recent = self._recent
        if recent is not None and not kwargs:
            replayed = recent.replay(args)
            if replayed is not MISSED:
                self.program = recent.capture.program
                return replayed
        key, tensors = signature(args, kwargs)
        capture = self._capture_for(key)
        if capture is None:
            return self._trace(key, tensors, args, kwargs)
        self.program = capture.program
        if self.verify and capture.verified < CHECKED:
            capture.verified += 1
            return verified(self.function, capture, tensors, args, kwargs)
        self._recent = Recent.of(capture, args) if len(tensors) == len(args) else None
        return capture.replay(tensors)

    def _capture_for(self, key: Any) -> Capture | None:
        for capture in self._captures.get(key, ()):
            if capture.due() != OTHER:
                return capture
        return None

    def _trace(self, key: Any, tensors: list[Variable], args: Any, kwargs: Any) -> Any:
        with self._lock:
            if (found := self._capture_for(key)) is not None:  # another thread's, meanwhile
                self.program = found.program
                return found.replay(tensors)
            known = self._captures.setdefault(key, [])
            if len(known) >= MOST:
                raise CaptureError(
                    f"expected a step that at most {MOST} programs can stand for, got one that "
                    f"changes with every call: see {known[-1].surroundings.changed() or 'tensors'}"
                )
            brought = {id(x) for x in tensors}
            rest = replaced((args, kwargs), Variable, lambda x: None if id(x) in brought else x)
            for earlier in known:
                earlier.program.rest()
            capture = Capture(self.function, rest, self._lock)
            result = capture.trace(self.function, tensors, args, kwargs)
            known.insert(0, capture)
            self.program = capture.program
            return result

    def __getattr__(self, name: str) -> Any:
        """A compiled model has the methods of the model."""
        if name == "function":  # before there is one
            raise AttributeError(name)
        return getattr(self.function, name)

    def __repr__(self) -> str:
        return f"compiled({self.function!r})"


class Recent:
    """The capture that served last, for calls with tensors of the same kinds, and nothing else."""

    def __init__(self, capture: Capture, kinds: list[Any]) -> None:
        self.capture, self.kinds, self.mode = capture, kinds, mode()
        self.backend = capture.program.backend
        self.native = native_of(self.backend)

    @staticmethod
    def of(capture: Capture, args: tuple[Any, ...]) -> Recent | None:
        """For these arguments; None if they are not plain tensors, all different."""
        plain = all(type(x) is Variable.tensor_class for x in args)
        if not plain or len({*map(id, args)}) < len(args):
            return None
        arrays = [x.array for x in args]
        if any(x.requires_grad or x._grad is not None for x in args):
            return None
        if not all(map(is_aligned, arrays)):
            return None
        return Recent(capture, [(a.shape, a.dtype, a.strides) for a in arrays])

    def replay(self, args: tuple[Any, ...]) -> Any:
        """What the step returns; `MISSED` if another capture may have to serve."""
        if len(args) != len(self.kinds):
            return MISSED
        kind, backend = Variable.tensor_class, self.backend
        arrays: tuple[Array, ...] = ()
        for x in args:
            if (
                x.__class__ is not kind
                or x.backend is not backend
                or x.requires_grad
                or x._grad is not None
            ):
                return MISSED
            arrays += (x.array,)
        capture = self.capture
        if self.mode != mode() or (due := capture.due()) == OTHER:
            return MISSED
        if capture.program.takes(arrays := capture.with_gradients(arrays)):
            return capture.replay(args, arrays, due)
        return capture.replay(args, None, due) if self.fits(args) else MISSED

    def fits(self, args: tuple[Any, ...]) -> bool:
        """Whether the arguments, tensors here, are different ones, and have the same kinds."""
        if len({*map(id, args)}) < len(args):
            return False
        for x, (shape, dtype, strides) in zip(args, self.kinds, strict=True):
            a = x.array
            if (
                a.__class__ is not self.native
                or a.shape != shape
                or a.dtype != dtype  # NumPy has many objects of one dtype
                or a.strides != strides
                or not is_aligned(a)
            ):
                return False
        return True


def is_aligned(array: Array) -> bool:
    """Whether elements begin where the processor wants them, as all of a GPU's do."""
    return getattr(array.flags, "aligned", True)


def signature(args: Any, kwargs: Any) -> tuple[Any, list[Variable]]:
    """What calls that one program may serve have in common, and the tensors that differ.

    Raises
    ------
    DtypeError
        For NumPy arrays, which could not be told from constants.
    """
    tensors: list[Variable] = []
    key = (described(args, tensors), described(kwargs, tensors) if kwargs else (), *mode())
    return key, tensors


def described(x: Any, tensors: list[Variable]) -> Any:
    """An argument as a part of the signature; tensors that may differ are collected."""
    if isinstance(x, Variable):
        if x.requires_grad or x._grad is not None or isinstance(x, (Parameter, Buffer)):
            return ("tensor", id(x))
        for position, known in enumerate(tensors):
            if x is known:
                return ("again", position)
        tensors.append(x)
        array = x.array
        kind = array.shape, array.dtype, array.strides, is_aligned(array)
        return (x.backend.device, *kind)
    if isinstance(x, (tuple, list)):
        return (type(x), *(described(part, tensors) for part in x))
    if isinstance(x, dict):
        return (dict, *((name, described(part, tensors)) for name, part in x.items()))
    if isinstance(x, np.ndarray):
        raise DtypeError("expected tensors as arguments of a compiled step, got a NumPy array")
    if isinstance(x, NUMBERS):
        return (type(x), x)
    return ("object", id(x))


def compile(function: F | None = None, *, verify: bool = False) -> F:
    """A training step, a model or any function of tensors as a program that runs without the tape.

    The first call runs as ever and is traced: forward, backward, clipping, the optimizer's step,
    running statistics, random numbers. Further calls run the program, with the same results bit
    for bit. See ``compiled.program``.

    Another shape, dtype or layout of an argument, another mode of a module, a frozen parameter, or
    any other number that the step reads from variables and attributes is traced again. Learning
    rates and the other options of optimizers, and schedules, are read at every call.

    On a GPU a program is CUDA graphs: one, unless Python has something to do in between, as to
    check indices. All tensors of the step are there, and a call waits for nothing that the step
    itself does not wait for.

    Parameters
    ----------
    function : the step. It may be a `Module`, and ``@compile`` may stand above a definition.
    verify : check the first three replays of each program against the function itself, which goes
        on from its results; the comparison is bit for bit.

    Raises
    ------
    CaptureError
        From the first call, for what a program could not do again: values that Python reads
        (``item()``, ``bool()``, ``numpy()``), Python variables that the step changes, tensors that
        it keeps; tensors on several devices, and on a GPU operations that no CUDA graph can hold.
        The message names the line. Tensors are then as before the call.

    Notes
    -----
    A returned tensor has no history: a step runs ``backward`` itself. A tensor that requires a
    gradient is known by its identity, other arguments by their kind. They may not share memory with
    tensors that the step writes to; on a GPU they are copied to where the graphs read them. Threads
    that call one compiled step take turns.
    """
    if function is None:
        return cast(F, lambda given: compile(given, verify=verify))
    if not callable(function):
        raise ArgumentError(f"expected a function or a module, got {type(function).__name__}")
    return cast(F, Compiled(function, verify))
