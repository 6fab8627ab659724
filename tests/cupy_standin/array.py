"""The array of the stand-in: a NumPy array that keeps to CuPy's rules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import exchange
from .gpus import Device, current_device, launched
from .memory import PinnedMemoryPointer, memory_of, require
from .ordering import SilentOnGPU, late_copy, now
from .pools import MemoryPointer, placed
from .races import require_written, wrote
from .record import names, signature
from .streams import capture_here, get_current_stream, sending_of_the_host, wait_of_the_host

NO_CONVERSION = (
    "Implicit conversion to a NumPy array is not allowed. "
    "Please use `.get()` to construct a NumPy array explicitly."
)


class ndarray:
    """Memory of one device; what brings it to the host, as `get` and `item` do, is counted."""

    __array_priority__ = 100
    __array_ufunc__ = None  # CuPy would take numpy.exp(x); the library has no business to call it
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("__weakref__", "_a", "_born", "_by", "_device", "_memory", "_when", "base")
    base: ndarray | None
    """The array that owns the memory, if it is not this one."""

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        self._memory = memptr
        if memptr is not None:
            self._a = memptr.seen(shape, dtype, strides)
        else:
            self._a, self._memory = placed(np.empty(shape, dtype, order=order))  # type: ignore[call-overload]
            require(self._a.nbytes)
        self._device, self._born = current_device(), now()
        self.base = None
        wrote(self)

    def __array__(self, *args: object, **kwargs: object) -> Any:
        raise TypeError(NO_CONVERSION)

    def __getattr__(self, name: str) -> Any:
        if name in names("ndarray"):
            raise NotImplementedError(f"the stand-in has no ndarray.{name} yet: see array.py")
        raise AttributeError(f"'ndarray' object has no attribute {name!r}")

    @property
    def shape(self) -> Any:
        return self._a.shape

    @property
    def dtype(self) -> Any:
        return self._a.dtype

    @property
    def ndim(self) -> Any:
        return self._a.ndim

    @property
    def size(self) -> Any:
        return self._a.size

    @property
    def itemsize(self) -> Any:
        return self._a.itemsize

    @property
    def nbytes(self) -> Any:
        return self._a.nbytes

    @property
    def strides(self) -> Any:
        return self._a.strides

    @property
    def flags(self) -> Any:
        return self._a.flags

    @property
    def device(self) -> Device:
        return Device(self._device)

    @property
    def data(self) -> Any:
        return MemoryPointer.to(self, self._a.ctypes.data)

    @property
    def T(self) -> Any:
        return view_of(self, self._a.T)

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        wait_of_the_host()
        host = np.array(self._a, order=order)  # type: ignore[call-overload]
        if out is None:
            return host
        np.copyto(out, host)
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray) or arr.shape != self.shape or arr.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same shape and dtype can be set")
        sending_of_the_host()
        here = get_current_stream()
        late = stream is not None and stream.is_non_blocking and stream is not here
        if not late or not isinstance(memory_of(arr), PinnedMemoryPointer):
            self._a[...] = arr
            return
        owner = self if self.base is None else self.base
        if stream._queue.waited.get(here._key(), -1) < owner._born:
            raise SilentOnGPU(
                "a copy on another stream into memory that the current one may still use: the "
                "other has not waited for an event recorded since the memory was taken"
            )
        stream._queue.put(late_copy(self._a, arr))

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size == 0:
            return False
        return bool(self.item())

    def __repr__(self) -> str:
        return repr(self.get())

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return from_host, (self.get(),)

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        return exchange.to_capsule(self._a, self._device, stream, options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return exchange.CUDA, self._device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return exchange.interface_of(self._a, self._device)

    def copy(self, order: str = "C") -> Any:
        a = self._a
        return computed(lambda: np.array(a, order=order), (None, self))  # type: ignore[call-overload]

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise ValueError("a numpy.ndarray cannot be used for fill")
        overwritten(self, lambda a, x: operator.setitem(a, ..., x), value)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Any:
        a = self._a
        return computed(lambda: a.reshape(*shape, order=order), (self,))

    def transpose(self, *axes: Any) -> Any:
        return view_of(self, self._a.transpose(*axes))

    def scatter_add(self, slices: Any, value: Any) -> None:
        """Add where indices repeat too, atomically; CUDA has atomics for few dtypes."""
        if self.dtype.char not in "iefdIQL":
            raise TypeError(
                f"scatter_add only supports int32, floats and unsigned, not {self.dtype}"
            )
        index = index_of(slices)
        overwritten(self, lambda a, x: np.add.at(a, index, x), value, slices)

    def __getitem__(self, index: Any) -> Any:
        inside, a = index_of(index), self._a
        try:
            return computed(lambda: a[with_ellipsis(inside)], (self, index))
        except IndexError as error:
            raise out_of_bounds(error, inside) from error

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            raise TypeError(f"Unsupported type {type(value)}")
        inside = index_of(index)
        try:
            overwritten(self, lambda a, x: operator.setitem(a, inside, x), value, index)
        except IndexError as error:
            raise out_of_bounds(error, inside) from error


def out_of_bounds(error: IndexError, index: Any) -> Exception:
    """CuPy checks numbers in an index; those in arrays it takes modulo the size."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, np.ndarray) for i in parts) and "out of bounds" in str(error):
        return SilentOnGPU(f"CuPy would wrap this around: {error}")
    return error


def wrap(result: Any) -> Any:
    """A result of NumPy as one of CuPy, on the current device: an array, also without axes."""
    if isinstance(result, (np.ndarray, np.generic)):
        require(result.nbytes)
        return seen(*placed(np.asarray(result)))
    if isinstance(result, (tuple, list)):
        return type(result)(wrap(x) for x in result)
    return result


def seen(result: Any, memory: MemoryPointer | None = None) -> Any:
    """An array over memory that is there."""
    array = ndarray.__new__(ndarray)
    array._a, array._memory = np.asarray(result), memory
    array._device, array._born = current_device(), now()
    array.base = None
    wrote(array)
    return array


def view_of(array: ndarray, result: Any) -> Any:
    """A result; it needs no work of the device where it is the memory of ``array``, seen anew."""
    if not isinstance(result, np.ndarray) or not np.may_share_memory(result, array._a):
        return wrap(result)
    view = seen(result)
    view._device = array._device
    view.base = array if array.base is None else array.base
    return view


def computed(compute: Callable[[], Any], operands: tuple[Any, ...], work: bool = True) -> Any:
    """The results of a computation as arrays of CuPy, the first operand's memory where it is that;
    a graph computes them at every launch. ``work`` says whether new memory is written to.
    """
    with np.errstate(all="ignore"):
        result = compute()
    first = operands[0] if operands else None
    found = view_of(first, result) if isinstance(first, ndarray) else wrap(result)
    if work and getattr(found, "base", found) is None:
        launched()
    if (capture := capture_here()) is not None:
        capture.made(compute, found, operands)
    return found


def overwritten(
    target: ndarray, write: Callable[[Any, Any], Any], value: Any = None, *operands: Any
) -> None:
    """Let ``write`` change an array's memory by a value; a graph does at every launch."""
    host, given = host_of(target), host_of(value)
    launched()

    def run() -> None:
        with np.errstate(all="ignore"):
            write(host, given)

    if (capture := capture_here()) is None:
        run()
        wrote(target)
    else:
        capture.overwrite([host], run, (target, value, operands))


def host_of(value: Any) -> Any:
    """What NumPy may compute with, if CuPy would: arrays of the current device, and scalars.

    CuPy reads the arrays of another device across the bus, with a warning, and puts the result
    on the wrong device; the stand-in refuses.
    """
    if isinstance(value, ndarray):
        if value._device != current_device():
            raise ValueError(
                f"The device where the array resides ({value._device}) is different from the "
                f"current device ({current_device()})."
            )
        require_written(value)
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}")
    if isinstance(value, (tuple, list)):
        return type(value)(host_of(x) for x in value)
    return value


def index_of(index: Any) -> Any:
    """An index for NumPy; for a mask the host waits to learn its sum, a list is sent over."""
    if isinstance(index, tuple):
        return tuple(index_of(i) for i in index)
    if isinstance(index, ndarray):
        if index.dtype.kind == "b":
            wait_of_the_host()
        return host_of(index)
    if isinstance(index, (list, np.ndarray)):
        sending_of_the_host()
        return np.asarray(index, dtype=int if len(index) == 0 else None)
    return index


def with_ellipsis(index: Any) -> Any:
    """The same index, for which NumPy returns a view, not a scalar, of a single element."""
    parts = index if isinstance(index, tuple) else (index,)
    return parts if any(i is Ellipsis for i in parts) else (*parts, Ellipsis)


def from_host(value: Any, dtype: Any = None) -> Any:
    """A copy, on the current device, of what NumPy understands."""
    sending_of_the_host()
    host = np.array(value, dtype=dtype)
    if host.dtype.kind not in "biufc" and host.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    if host.dtype.itemsize > (16 if host.dtype.kind == "c" else 8):
        raise ValueError(f"Unsupported dtype {host.dtype}")
    return wrap(host.astype(host.dtype.newbyteorder("=")))


def method(name: str) -> Callable[..., Any]:
    """NumPy's method of this name, for the arguments that CuPy's has."""
    expected = signature(name, "methods")

    def run(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        expected.bind(self, *args, **kwargs)
        given = {key: host_of(value) for key, value in kwargs.items()}
        inner, hosts = getattr(host_of(self), name), [host_of(x) for x in args]
        return computed(lambda: inner(*hosts, **given), (self, args, kwargs))

    run.__name__ = name
    return run


for _name in ("all", "any", "astype", "flatten", "ravel", "repeat", "squeeze", "swapaxes", "view"):
    setattr(ndarray, _name, method(_name))
