"""Elementwise functions, with CuPy's own choice of dtypes; the operators are the same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .array import computed, host_of, ndarray, overwritten
from .record import API, loops

BFLOAT16 = "E"
KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}


def dtype_of(char: str) -> Any:
    """The dtype of a type character; None for bfloat16 without ml_dtypes."""
    if char != BFLOAT16:
        return np.dtype(char)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return None
    return np.dtype(bfloat16)


def weak_kind(value: Any) -> type | None:
    """The Python type of a number that takes its dtype from the arrays it meets."""
    return type(value) if type(value) in (int, float, complex) else None


def choose_loop(name: str, values: list[Any]) -> tuple[list[np.dtype[Any]], np.dtype[Any]]:
    """The first loop that every input can be cast to safely, as CuPy takes it.

    Numbers of Python give way, unless all arrays are of a lesser kind than they: integers beside
    the number 0.5 become floats.
    """
    given = [np.asarray(v).dtype for v in values]
    weak = [weak_kind(v) for v in values]
    arrays = [KINDS[d.kind] for d, w in zip(given, weak, strict=True) if w is None]
    scalars = [KINDS[d.kind] for d, w in zip(given, weak, strict=True) if w is not None]
    gives_way = bool(arrays) and max(arrays) >= max(scalars, default=0)
    for inputs, output in loops(name):
        wanted = [dtype_of(char) for char in inputs]
        if any(want is None for want in wanted):  # `in` would find NumPy's float64 equal to None
            continue
        fits = (
            np.can_cast(have, want)
            or (w is not None and gives_way and np.result_type(w(0), want) == want)
            for have, want, w in zip(given, wanted, weak, strict=True)
        )
        if all(fits):
            return wanted, dtype_of(output)
    raise TypeError(f"Wrong type ({tuple(given)}) of arguments for cupy_{name}")


class ufunc:
    """An elementwise function; ``numpy_function`` computes on inputs that are cast already."""

    def __init__(self, name: str, numpy_function: Callable[..., Any]) -> None:
        self.__name__ = name
        self.numpy_function = numpy_function
        self.nin = len(loops(name)[0][0])

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
        if set(kwargs) - {"casting"}:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) != self.nin:
            raise TypeError(
                f"Wrong number of arguments for 'cupy_{self.__name__}', got {len(args)}"
            )
        values = [host_of(x) for x in args]
        for value in values:
            if not isinstance(value, (np.ndarray, np.generic, bool, int, float, complex)):
                raise TypeError(f"Unsupported type {type(value)}")
        wanted, output = choose_loop(self.__name__, values)
        if dtype is not None:
            output = np.dtype(dtype)
            wanted = [output] * self.nin

        def run() -> Any:
            cast = [np.asarray(v).astype(w) for v, w in zip(values, wanted, strict=True)]
            return np.asarray(self.compute(cast)).astype(output)

        if out is None:
            return computed(run, (None, *args))
        overwritten(out, lambda y, _: np.copyto(y, run(), casting="same_kind"), None, args)
        return out

    def compute(self, values: list[np.ndarray[Any, Any]]) -> Any:
        """The kernel: 16-bit floats are computed in 32 bits, as the GPU does."""
        return self.numpy_function(
            *(v.astype(np.float32) if v.dtype.char in (BFLOAT16, "e") else v for v in values)
        )

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        if self.__name__ != "add":
            raise NotImplementedError(f"the stand-in has no {self.__name__}.at")
        a.scatter_add(indices, b)


def from_scipy(name: str) -> Callable[..., Any]:
    """A function of scipy.special, imported when it is first called."""

    def run(x: Any) -> Any:
        from scipy import special

        return getattr(special, name)(x)

    return run


def where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)


def clip(x: Any, low: Any, high: Any) -> Any:
    """The limits first, as CuPy has it: NaN stays, and the high limit wins."""
    return np.where(low > high, high, np.where(x < low, low, np.where(x > high, high, x)))


def remainder(a: Any, b: Any) -> Any:
    """CuPy's formula, which loses digits, and is NaN for infinite b."""
    if a.dtype.kind == "f":
        return a - np.floor(a / b) * b
    return np.remainder(a, b)


KERNELS: dict[str, Callable[..., Any]] = {"where": where, "clip": clip, "remainder": remainder}
SPECIAL = {
    name.removeprefix("special."): ufunc(name, from_scipy(name.removeprefix("special.")))
    for name in API["ufuncs"]
    if name.startswith("special.")
}
UFUNCS = {
    name: ufunc(name, KERNELS.get(name) or getattr(np, name))
    for name in API["ufuncs"]
    if (name in KERNELS or hasattr(np, name)) and len(loops(name)[0][1]) == 1
}

BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "eq": "equal", "ne": "not_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def operator(function: ufunc, kind: str = "") -> Callable[..., Any]:
    """A method for an operator: forward, ``"reflected"`` or ``"in-place"``."""

    def forward(self: ndarray, other: Any) -> Any:
        return NotImplemented if defers_to(other) else function(self, other)

    def reflected(self: ndarray, other: Any) -> Any:
        return function(other, self)

    def in_place(self: ndarray, other: Any) -> Any:
        return function(self, other, out=self)

    return {"": forward, "reflected": reflected, "in-place": in_place}[kind]


def defers_to(other: Any) -> bool:
    """Whether the other operand is of a class that wants to be asked first (NEP 13)."""
    if isinstance(other, ndarray):
        return False
    return getattr(type(other), "__array_ufunc__", False) is None


def unary(function: ufunc) -> Callable[[ndarray], Any]:
    return lambda self: function(self)


for _operator, _name in BINARY.items():
    setattr(ndarray, f"__{_operator}__", operator(UFUNCS[_name]))
    setattr(ndarray, f"__r{_operator}__", operator(UFUNCS[_name], "reflected"))
    setattr(ndarray, f"__i{_operator}__", operator(UFUNCS[_name], "in-place"))
for _operator, _name in COMPARISONS.items():
    setattr(ndarray, f"__{_operator}__", operator(UFUNCS[_name]))
for _operator, _name in UNARY.items():
    setattr(ndarray, f"__{_operator}__", unary(UFUNCS[_name]))
