"""The array of a step that is being traced: a real one, whose every use is recorded."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.capture.destinations import OPERATORS
from tinygrad_bn.capture.values import Kind, Value, user_line
from tinygrad_bn.errors import CaptureError

if TYPE_CHECKING:
    from tinygrad_bn.capture.recorder import Recorder


WRITTEN = {ufunc: name for name, ufunc in OPERATORS.items() if hasattr(operator, name)}
"""NumPy's functions that are an operator, with which a scalar of NumPy's may begin a formula."""


class Traced:
    """An array and the value that it is of in the program.

    It answers for its shape, dtype and layout, which a replay shares. What is in it is for
    instructions only: Python may not look.
    """

    __slots__ = ("__weakref__", "array", "recorder", "value")

    def __init__(self, array: Array, value: Value, recorder: Recorder) -> None:
        self.array, self.value, self.recorder = array, value, recorder

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    strides = property(lambda self: self.array.strides)
    itemsize = property(lambda self: self.array.itemsize)
    nbytes = property(lambda self: self.array.nbytes)
    flags = property(lambda self: self.array.flags)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        return self.recorder.index(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.recorder.assign(self, index, value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            raise refusal(f"calls numpy.{ufunc.__name__} with more than arrays")
        name = WRITTEN.get(ufunc)
        if name is not None and self.recorder.native is not np.ndarray:
            return self.recorder.word(name, getattr(operator, name), args, {})  # as a GPU has it
        return self.recorder.word(ufunc.__name__, ufunc, args, {})

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self.recorder.foreign(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        error = refusal(f"asks a traced array for {name!r}")
        raise AttributeError(str(error)) if name.startswith("__") else error

    __hash__ = object.__hash__


class Elsewhere(Traced):
    """An array on another device than the step's: Python may ask for its shape alone."""

    __slots__ = ()

    def __init__(self, array: Array, device: str, found: str) -> None:
        nobody: Any = Refusing(
            f"computes on {device}, where its arguments are, or else its parameters, and reads a "
            f"tensor on {found}; move all to one device before the call"
        )
        super().__init__(array, nobody, nobody)

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        return self.value.kind

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name.startswith("__") else self.value.kind


class Refusing:
    """What refuses to be asked for anything."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        raise refusal(self._what)


class Either(type):
    """The class of what an array is an instance of while threads trace: a backend's, or traced."""

    native: Any

    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, (cls.native, Traced))


def either(native: type) -> type:
    """A class of the backend's arrays, and of traced ones."""
    return Either("AnyArray", (), {"native": native})


def native_of(backend: Backend) -> Any:
    """The class of a backend's arrays, also while threads trace."""
    kind = backend.array_type
    return kind.native if isinstance(kind, Either) else kind


def refusal(what: str) -> CaptureError:
    """The error for something that the running line of the user's does."""
    return CaptureError(f"expected a step that can be replayed, got one that {what}; {user_line()}")


def binary(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def run(self: Any, other: Any) -> Any:
        return self.recorder.word(name, function, (self, other), {})

    return run


def reflected(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def run(self: Any, other: Any) -> Any:
        return self.recorder.word(name, function, (other, self), {})

    return run


def unary(name: str) -> Callable[[Any], Any]:
    function = getattr(operator, name)

    def run(self: Any) -> Any:
        return self.recorder.word(name, function, (self,), {})

    return run


def unreadable(name: str) -> Callable[..., Any]:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.value.kind is Kind.CONSTANT:
            return getattr(self.array, name)(*args, **kwargs)
        raise refusal(f"reads values, by {name}, that every replay computes anew")

    return run


ARITHMETIC = (
    "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift lt le gt ge eq ne"
).split()
for _name in ARITHMETIC:
    setattr(Traced, f"__{_name.rstrip('_')}__", binary(_name))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Traced, f"__r{_name.rstrip('_')}__", reflected(_name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Traced, f"__{_name}__", unary(_name))
for _name in "bool float int index complex array contains".split():
    setattr(Traced, f"__{_name}__", unreadable(f"__{_name}__"))
for _name in "item tolist tobytes all any".split():
    setattr(Traced, _name, unreadable(_name))
