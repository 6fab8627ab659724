"""The port over NumPy: arrays in the memory of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinygrad_bn.backend import VOCABULARY, Array, Backend, Kernel
from tinygrad_bn.errors import BackendError, DtypeError

HALF = ("float16", "bfloat16")


def is_half(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize == 2 and dtype.name in HALF


def wide_inside(function: Callable[..., Array]) -> Callable[..., Array]:
    """Run ``function`` on 16-bit floats in float32, and round once, at the end.

    NumPy would add float16 in float16, and multiply matrices of it without a BLAS.
    """

    @wraps(function)
    def run(x: Array, *args: Any, dtype: Any = None, **kwargs: Any) -> Array:
        if dtype is not None:
            return function(x, *args, dtype=dtype, **kwargs)
        if is_half(x.dtype):
            return np.asarray(function(x, *args, dtype=np.float32, **kwargs)).astype(x.dtype)
        return function(x, *args, **kwargs)

    return run


def matmul(a: Array, b: Array) -> Array:
    """The matrix product; of 16-bit floats in float32, rounded once."""
    if is_half(a.dtype):
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return np.matmul(a, b)


def einsum(equation: str, *operands: Array) -> Array:
    """Einstein summation, contracted pairwise; 16-bit floats in float32, rounded once."""
    if is_half(operands[0].dtype):
        wide = (x.astype(np.float32) for x in operands)
        return np.asarray(np.einsum(equation, *wide, optimize=True)).astype(operands[0].dtype)
    return np.einsum(equation, *operands, optimize=True)


def special(name: str) -> Callable[[Array], Array]:
    """A function of scipy.special, imported when it is first called."""

    def run(x: Array) -> Array:
        from scipy import special as functions  # 100 ms that most programs never need

        wide = x.astype(np.float32) if is_half(x.dtype) else x
        return np.asarray(getattr(functions, name)(wide)).astype(x.dtype, copy=False)

    return run


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)): the overflow of exp for very negative x is the right zero."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def add_at(shape: tuple[int, ...], index: Any, values: Array) -> Array:
    """Zeros of ``shape``, with ``values`` added at ``index``; where it repeats, they add up."""
    y = np.zeros(shape, values.dtype)
    if is_basic(index):
        y[index] = values
    else:
        np.add.at(y, index, values)
    return y


def is_basic(index: Any) -> bool:
    """Whether an index has only integers, slices, None and Ellipsis, and so reads every element at most once."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer)) for i in parts)


def add_along_axis(shape: tuple[int, ...], indices: Array, values: Array, axis: int) -> Array:
    """Zeros of ``shape``, with ``values`` added where `take_along_axis` would read ``indices``."""
    index = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    index[axis] = indices
    y = np.zeros(shape, values.dtype)
    np.add.at(y, tuple(index), values)
    return y


EXTRAS: Mapping[str, Callable[..., Any]] = {
    "erf": special("erf"),
    "erfinv": special("erfinv"),
    "sigmoid": sigmoid,
    "contiguous": np.ascontiguousarray,
    "add_at": add_at,
    "add_along_axis": add_along_axis,
    "matmul": matmul,
    "einsum": einsum,
    **{name: wide_inside(getattr(np, name)) for name in ("sum", "mean", "prod", "cumsum")},
}


class NumpyBackend:
    """NumPy on the CPU."""

    name = "numpy"
    device = "cpu"
    array_type = np.ndarray
    guard = None

    def __init__(self) -> None:
        self.xp = SimpleNamespace(
            **{name: EXTRAS.get(name) or getattr(np, name) for name in VOCABULARY}
        )
        self.kernels: Mapping[str, Kernel] = {}

    def asarray(self, value: object, dtype: object = None) -> Array:
        """An array from anything NumPy understands, but not from ragged lists or objects."""
        try:
            array = np.asarray(value, dtype=dtype)  # type: ignore[call-overload]
        except (TypeError, ValueError) as error:
            raise DtypeError(
                f"expected numbers in a regular shape, got {type(value).__name__}: {error}"
            ) from error
        if array.dtype.kind not in "biufV":
            raise DtypeError(
                f"expected numbers or booleans, got {array.dtype} from {type(value).__name__}"
            )
        return array

    def copy(self, array: Array) -> Array:
        return np.array(array, order="C")

    def to_numpy(self, array: Array) -> Array:
        return array

    def store(self, target: Array, value: Array) -> None:
        if target is not value:
            np.copyto(target, value, casting="unsafe")

    def accumulator(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(np.may_share_memory(a, b))

    def synchronize(self) -> None:
        """NumPy has always finished."""


def backend(index: int = 0) -> Backend:
    if index != 0:
        raise BackendError(f"expected device 0 of the CPU, got {index}")
    return NumpyBackend()
