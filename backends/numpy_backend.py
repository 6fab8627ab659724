"""The port over NumPy: arrays in the memory of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinygrad_bn.backend import VOCABULARY, Array, Backend, Kernel, Uploads
from tinygrad_bn.errors import BackendError, DtypeError

from .capsules import exported, imported
from .half import in_float32, is_half, wide_inside
from .indexing import is_basic
from .numba_kernels import Kernels
from .products import WORDS as PRODUCTS
from .products import matmul

einsum = partial(np.einsum, optimize=True)  # contracted pairwise


def special(name: str) -> Callable[[Array], Array]:
    """A function of scipy.special, imported when it is first called."""

    @in_float32
    def run(x: Array) -> Array:
        from scipy import special as functions  # 100 ms that most programs never need

        return np.asarray(getattr(functions, name)(x))

    return run


def reduction(ufunc: np.ufunc) -> Callable[..., Array]:
    """A ufunc's reduction under the arguments of `numpy.sum`, without what that costs to call."""
    reduce = ufunc.reduce

    def run(x: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
        return reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)

    return run


FLOAT64 = np.dtype(np.float64)
add_up: Any = np.add.reduce


def total(x: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """The sum, at what the ufunc costs to call; 16-bit floats add in float32."""
    if dtype is None and x.dtype.itemsize == 2 and is_half(x.dtype):
        y = add_up(x, axis=axis, dtype=np.float32, keepdims=keepdims)
        return y.astype(x.dtype)
    return add_up(x, axis=axis, dtype=dtype, keepdims=keepdims)


def mean(x: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
    """The sum over the count; an empty one is the caller's affair."""
    y = total(x, axis, dtype=dtype, keepdims=keepdims)
    return y / (x.size // y.size if y.size else 1)


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """A read-only view with axes of size 1 repeated; of one number without NumPy's long way."""
    if x.size != 1 or x.ndim > len(shape) or x.dtype.kind not in "biuf":
        return np.broadcast_to(x, shape)
    y = np.ndarray(shape, x.dtype, np.ascontiguousarray(x), 0, (0,) * len(shape))
    y.flags.writeable = False
    return y


def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


def transpose(x: Array, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


@lru_cache(maxsize=256)
def constant(value: float, dtype: np.dtype[Any]) -> Array:
    """A number as an array without axes: a ufunc takes it twice as fast as Python's."""
    return np.array(value, dtype)


def with_constants(ufunc: np.ufunc) -> Callable[[Array, Array], Array]:
    """A ufunc of two operands whose second is often a number."""

    def run(a: Array, b: Array) -> Array:
        if b.__class__ is int and a.dtype.kind == "f":
            b = constant(b, a.dtype)
        return ufunc(a, b)

    return run


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)): where exp overflows, for very negative x, the result is the right zero."""
    if x.dtype.itemsize == 2:
        return half_sigmoid(x)
    one = constant(1, x.dtype)
    with np.errstate(over="ignore"):
        return one / (one + np.exp(-x))


half_sigmoid = in_float32(sigmoid)


def astype(x: Array, dtype: np.dtype[Any]) -> Array:
    """The same values in another dtype, also of the scalars that NumPy makes of arrays without
    axes.
    """
    return x.astype(dtype, copy=False)


def contiguous(x: Array) -> Array:
    """The same values in C order; `numpy.ascontiguousarray` would give a scalar an axis."""
    return np.asarray(x, order="C")


@in_float32
def accumulate(shape: tuple[int, ...], index: Any, values: Array) -> Array:
    """Zeros of ``shape``, with ``values`` added up at ``index``."""
    y = np.zeros(shape, values.dtype)
    np.add.at(y, index, values)
    return y


def add_at(shape: tuple[int, ...], index: Any, values: Array) -> Array:
    """Zeros of ``shape``, with ``values`` added at ``index``; where it repeats, they add up."""
    if not is_basic(index):
        return accumulate(shape, index, values)
    y = np.zeros(shape, values.dtype)
    y[index] = values
    return y


def add_along_axis(shape: tuple[int, ...], indices: Array, values: Array, axis: int) -> Array:
    """Zeros of ``shape``, with ``values`` added where `take_along_axis` would read ``indices``."""
    index = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    index[axis] = indices
    return accumulate(shape, tuple(index), values)


EXTRAS: Mapping[str, Callable[..., Any]] = {
    "erf": special("erf"),
    "erfinv": special("erfinv"),
    "sigmoid": sigmoid,
    "astype": astype,
    "clip": in_float32(np.clip, ("bfloat16",)),  # which NumPy would widen
    "argsort": in_float32(np.argsort, ("bfloat16",)),  # where ml_dtypes leaves NaN in its place
    "sort": in_float32(np.sort, ("bfloat16",)),
    "maximum": with_constants(np.maximum),
    "minimum": with_constants(np.minimum),
    "contiguous": contiguous,
    "add_at": add_at,
    "add_along_axis": add_along_axis,
    "matmul": matmul,
    "einsum": in_float32(einsum),
    "sum": total,
    "mean": mean,
    "prod": wide_inside(reduction(np.multiply)),
    "max": reduction(np.maximum),
    "min": reduction(np.minimum),
    "cumsum": wide_inside(np.cumsum),
    "broadcast_to": broadcast_to,
    "reshape": reshape,
    "transpose": transpose,
}


class NumpyBackend:
    """NumPy on the CPU."""

    name = "numpy"
    device = "cpu"
    array_type: type = np.ndarray
    guard: AbstractContextManager[Any] | None = None

    def __init__(self) -> None:
        self.xp = SimpleNamespace(
            **{name: EXTRAS.get(name) or getattr(np, name) for name in VOCABULARY}
        )
        self.kernels: Mapping[str, Kernel | None] = Kernels(**PRODUCTS)

    @cached_property
    def threaded_code(self) -> Any:
        """What makes threaded code of calls; None where Numba is not installed."""
        if find_spec("numba") is None:
            return None
        return import_module(f"{__package__}.threaded_code")

    def graphs(self) -> None:
        """There are none: programs are threaded code and calls."""

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

    def from_dlpack(self, value: object) -> Array:
        return imported(np.from_dlpack, value)[0]  # type: ignore[arg-type]  # it asks less than it says

    def to_dlpack(self, array: Array, **options: Any) -> object:
        return exported(array, **options)

    def from_cuda_array(self, value: object) -> Array:
        raise BackendError("expected a GPU to share memory of, got the cpu")

    def copy(self, array: Array) -> Array:
        return np.array(array, order="C")

    def receive(self, array: Array, source: Backend, non_blocking: bool = False) -> Array:
        return source.to_numpy(array)

    def uploads(self) -> Uploads:
        raise BackendError("expected a GPU to copy to, got the cpu")

    def page_locked(self, shape: Sequence[int], dtype: object) -> Array:
        raise BackendError("expected a GPU for which to lock pages, got the cpu")

    def to_numpy(self, array: Array) -> Array:
        return array

    def store(self, target: Array, value: Array) -> None:
        if target is not value:
            target[...] = value  # numpy.copyto, in a third of the time

    def accumulator(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return FLOAT64

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(np.may_share_memory(a, b))

    def synchronize(self) -> None:
        """NumPy has always finished."""


def backend(index: int = 0) -> Backend:
    if index != 0:
        raise BackendError(f"expected device 0 of the CPU, got {index}")
    return NumpyBackend()
