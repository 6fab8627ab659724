"""The functions of ``cupy``: NumPy's, for the arguments that CuPy's take, and those that differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from . import exchange
from .array import (
    SilentOnGPU,
    computed,
    from_host,
    host_of,
    ndarray,
    overwritten,
    seen,
    view_of,
    wrap,
)
from .record import signature
from .streams import capture_here, sending_of_the_host, wait_of_the_host
from .ufuncs import UFUNCS

AS_NUMPY = (
    "all", "any", "arange", "astype", "eye", "flip", "full", "full_like", "ones",
    "ones_like", "pad", "repeat", "result_type", "roll", "tile", "zeros", "zeros_like",
)  # fmt: skip
"""What NumPy does just as CuPy would."""

VIEWS = ("broadcast_to", "expand_dims", "moveaxis", "squeeze", "swapaxes", "transpose")
"""What sees memory anew, for which no device has work to do."""

UNTOUCHED = ("empty", "empty_like")
"""What takes memory, and gives the device nothing to do."""

FEW = 8
"""As many arrays CuPy joins by as many copies."""
REDUCTIONS = ("sum", "prod", "mean", "cumsum", "max", "min", "argmax", "argmin")


def checked(name: str, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function for the arguments that CuPy's of this name takes, and without NumPy's arrays."""
    expected = signature(name)
    inner = getattr(np, name) if function is None else function

    @wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        expected.bind(*args, **kwargs)
        given = {key: host_of(value) for key, value in kwargs.items()}
        hosts = [host_of(x) for x in args]
        return computed(lambda: inner(*hosts, **given), (*args, kwargs), name not in UNTOUCHED)

    return run


def view(name: str) -> Callable[..., Any]:
    """NumPy's function of this name, also where another device is current than the array's."""
    expected, inner = signature(name), getattr(np, name)

    @wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        a, *rest = expected.bind(*args, **kwargs).args
        if not isinstance(a, ndarray):
            raise TypeError(f"Unsupported type {type(a)}")
        return view_of(a, inner(a._a, *rest))

    return run


def reduction(name: str) -> Callable[..., Any]:
    """A reduction; none is known for bfloat16, and float16 is summed in float32, rounded once."""
    inner = getattr(np, name)

    def run(a: Any, axis: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
        if not isinstance(a, np.ndarray):
            raise AttributeError(f"{type(a).__name__!r} object has no attribute {name!r}")
        if dtype is None and a.dtype.name == "bfloat16":
            raise TypeError(f"Wrong type ((dtype(bfloat16),)) of arguments for cupy_{name}")
        if dtype is None and a.dtype == np.float16 and name in ("sum", "prod", "mean"):
            return inner(a, axis=axis, dtype=np.float32, **kwargs).astype(np.float16)
        given = kwargs if dtype is None else {**kwargs, "dtype": dtype}
        return inner(a, axis=axis, **given)

    return checked(name, run)


def ordering(name: str) -> Callable[..., Any]:
    """Sorting, which is always stable; there is none for bfloat16."""

    def run(a: Any, axis: Any = -1, kind: Any = None) -> Any:
        if kind not in (None, "stable"):
            raise ValueError(f"kind can only be None or 'stable', got {kind!r}")
        if a.dtype.name == "bfloat16":
            raise TypeError(f"cupy.{name} has no loop for bfloat16")
        return getattr(np, name)(a, axis=axis, kind="stable")

    return checked(name, run)


def poisoned(name: str) -> Callable[..., Any]:
    """An array of which nothing is known: all bits set, NaN or -1, for whoever forgets to write."""

    def run(*args: Any, **kwargs: Any) -> Any:
        result = getattr(np, name)(*args, **kwargs)
        if result.size:
            np.ndarray(result.nbytes, np.uint8, result).fill(0xFF)
        return result

    return checked(name, run)


def joining(name: str) -> Callable[..., Any]:
    """Several arrays as one; where they are many of one dtype, CuPy sends their addresses first."""
    inner = checked(name)

    @wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        arrays = args[0] if args and isinstance(args[0], (tuple, list)) else ()
        if len(arrays) > FEW and len({getattr(x, "dtype", None) for x in arrays}) == 1:
            sending_of_the_host()
        return inner(*args, **kwargs)

    return run


def triangle(name: str) -> Callable[..., Any]:
    """A triangle, which CuPy cuts with `where`, so that bfloat16 becomes float32."""

    def run(m: Any, k: int = 0) -> Any:
        cut = getattr(np, name)(m, k)
        return cut.astype(np.float32) if m.dtype.name == "bfloat16" else cut

    return checked(name, run)


def array(
    obj: Any,
    dtype: Any = None,
    copy: Any = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = on_device(*exchange.from_interface(obj))
    if not isinstance(obj, ndarray):
        return from_host(obj, dtype)
    host = host_of(obj)
    if not copy and np.array(host, dtype=dtype, order=order or "K", copy=None) is host:
        return obj
    return computed(lambda: np.array(host, dtype=dtype, order=order or "K"), (None, obj))


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> Any:
    return array(a, dtype, copy, order)


def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    return array(a, dtype, None, "C")


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> Any:
    return on_device(*exchange.from_capsule(array))


def on_device(host: np.ndarray[Any, Any], device: int) -> Any:
    """Memory of a device, whichever is current."""
    found = seen(host)
    found._device = device
    return found


def reshape(a: ndarray, newshape: Any, order: str = "C", *, copy: Any = None) -> Any:
    return a.reshape(newshape, order=order)


def clip(a: ndarray, a_min: Any, a_max: Any, out: Any = None) -> Any:
    low, high = limits(a.dtype)
    return UFUNCS["clip"](a, low if a_min is None else a_min, high if a_max is None else a_max)


def limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """What CuPy puts for a limit of None; for bfloat16 it leaves the None, and fails."""
    if dtype.kind == "f":
        return dtype.type("-inf"), dtype.type("inf")
    return (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (None, None)


def round(a: ndarray, decimals: int = 0, out: Any = None) -> Any:
    if a.dtype.name == "bfloat16":
        raise TypeError("cupy.round has no loop for bfloat16")
    host = host_of(a)
    return computed(lambda: np.round(host, decimals), (a,))


def where(condition: ndarray, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return nonzero(condition)
    return UFUNCS["where"](condition.astype("?", copy=False), x, y)


def nonzero(a: ndarray) -> Any:
    """Where an array is not zero: the host waits to learn how many elements that are."""
    wait_of_the_host()
    return wrap(np.nonzero(host_of(a)))


def take(a: ndarray, indices: Any, axis: int | None = None, out: Any = None) -> Any:
    return taken(np.take, a, indices, axis)


def take_along_axis(a: ndarray, indices: ndarray, axis: int | None) -> Any:
    return taken(np.take_along_axis, a, indices, axis)


def taken(function: Callable[..., Any], a: ndarray, indices: Any, axis: int | None) -> Any:
    """Elements by their indices, which CuPy does not check."""
    host, places = host_of(a), host_of(indices)
    try:
        return computed(lambda: function(host, places, axis), (None, a, indices))
    except IndexError as error:
        if "out of bounds" in str(error):
            raise SilentOnGPU(f"CuPy would wrap this around: {error}") from error
        raise


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    if isinstance(src, np.ndarray) and src.size != 1:
        raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
    inside = True if where is None else host_of(where)
    copy = partial(np.copyto, casting=casting, where=inside)
    overwritten(dst, copy, src, where)


def may_share_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    return a._device == b._device and bool(np.may_share_memory(a._a, b._a))


def refuse_cublas_in_capture(*arrays: Any) -> None:
    """CuPy calls cuBLAS for products of floats, and refuses to while a stream captures."""
    if capture_here() is not None and any(x.dtype.kind not in "biu" for x in arrays):
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )


def matmul(x1: ndarray, x2: ndarray) -> Any:
    """The product: cuBLAS sums 16-bit floats in float32, the kernel for two vectors does not."""
    a, b = host_of(x1), host_of(x2)
    for x in (a, b):
        if not isinstance(x, np.ndarray):
            raise TypeError(f"Unsupported type {type(x)}")
    refuse_cublas_in_capture(a, b)
    half = a.dtype == b.dtype and a.dtype.itemsize == 2 and a.dtype.kind in "fV"

    def product() -> Any:
        if not half:
            return np.matmul(a, b)
        if a.size == b.size == a.shape[-1]:
            rounded = (a.ravel() * b.ravel()).astype(np.float32).sum()
            return np.full((1,) * max(a.ndim, b.ndim), rounded, a.dtype)
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)

    return computed(product, (None, x1, x2))


def einsum(*operands: Any, dtype: Any = None, optimize: Any = False) -> Any:
    subscripts, *arrays = operands
    refuse_cublas_in_capture(*arrays)
    hosts = host_of(arrays)
    return computed(
        lambda: np.einsum(subscripts, *hosts, dtype=dtype, optimize=optimize), (None, *arrays)
    )


def get_array_module(*args: Any) -> Any:
    import sys

    return sys.modules["cupy"] if any(isinstance(x, ndarray) for x in args) else np


def scatter_add(a: ndarray, slices: Any, value: Any) -> None:
    a.scatter_add(slices, value)


OWN = (
    array, from_dlpack, asarray, ascontiguousarray, asnumpy, reshape, clip, round, where, nonzero,
    take, take_along_axis, copyto, may_share_memory, get_array_module,
)  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: checked(name) for name in AS_NUMPY},
    **{name: view(name) for name in VIEWS},
    **{name: reduction(name) for name in REDUCTIONS},
    **{name: joining(name) for name in ("concatenate", "stack")},
    **{name: ordering(name) for name in ("sort", "argsort")},
    **{name: triangle(name) for name in ("tril", "triu")},
    **{name: poisoned(name) for name in ("empty", "empty_like")},
    **{function.__name__: function for function in OWN},
    "amax": reduction("max"),
    "amin": reduction("min"),
    "matmul": matmul,
    "einsum": einsum,
}


def as_method(name: str) -> Callable[..., Any]:
    """A reduction as a method of an array."""
    function = FUNCTIONS[name]
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


for _name in REDUCTIONS:
    setattr(ndarray, _name, as_method(_name))
setattr(ndarray, "__matmul__", lambda self, other: matmul(self, other))  # noqa: B010
