"""The port between the engine and the array libraries.

The engine knows arrays only through this module. Adapters live in ``tinygrad_bn.backends`` and are
loaded by name, so that importing the engine imports neither CuPy nor Numba.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, update_wrapper
from importlib import import_module
from threading import RLock
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.devices import Device as Device
from tinygrad_bn.errors import BackendError

Array: TypeAlias = (
    Any  # numpy.ndarray, cupy.ndarray, a Tensor in a replay, a symbolic value in a trace
)
P = ParamSpec("P")
R = TypeVar("R")

VOCABULARY = frozenset(
    # What a reference body may say after ``xp.``, with NumPy's meaning and argument names.
    """
    abs arange argmax argmin argsort astype broadcast_to ceil clip concatenate cos cosh cumsum
    einsum exp expm1 eye flip floor full isfinite isinf isnan log log1p logaddexp logical_and
    logical_not logical_or logical_xor matmul max maximum mean min minimum ones ones_like pad power
    prod repeat reshape roll round sign sin sinh sort sqrt square stack sum tan tanh tile transpose
    tril triu trunc where zeros zeros_like all any arcsin arccos arctan arctan2 fmod remainder
    expand_dims squeeze take_along_axis nonzero logical_not """.split()
) | frozenset(
    # What NumPy lacks or spells otherwise; the adapters define these, documented at `Extras`.
    "erf erfinv sigmoid contiguous add_at add_along_axis".split()
)


class Extras(Protocol):
    """The words of the vocabulary that are not NumPy's."""

    def erf(self, x: Array) -> Array:
        """The error function."""

    def erfinv(self, x: Array) -> Array:
        """The inverse of the error function."""

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)), right in relative terms for every x and silent about overflow."""

    def contiguous(self, x: Array) -> Array:
        """The same values in C order; x itself if it is so already."""

    def add_at(self, shape: tuple[int, ...], index: Any, values: Array) -> Array:
        """Zeros of ``shape``, with ``values`` added at ``index``; where it repeats, they add up."""

    def add_along_axis(
        self, shape: tuple[int, ...], indices: Array, values: Array, axis: int
    ) -> Array:
        """Zeros of ``shape``, ``values`` added where `take_along_axis` reads with ``indices``."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An accelerated implementation of one kernel point: the same arguments, less the backend."""

    run: Callable[..., Any]
    accepts: Callable[..., bool]
    into: Callable[..., tuple[Callable[..., None], tuple[Any, ...]]] | None = None
    """``into(outs, *args)``: the compiled function that ``run`` calls, and what it is to be called
    with to leave its results in the arrays ``outs``. It looks at no values, which may be others
    when the function is called. None where a kernel is more than one call.
    """
    writes: tuple[int, ...] = ()
    """The places of the arguments that ``run`` overwrites, and returns."""


class Upload(Protocol):
    """Copies to a device under way."""

    def receive(self) -> Sequence[Array]:
        """The arrays, for the current stream to read; the host does not wait."""

    def finish(self) -> None:
        """Wait until the copies have been made."""


class Uploads(Protocol):
    """A stream for copies to one device, beside what it computes."""

    def start(self, hosts: Sequence[np.ndarray[Any, Any]]) -> Upload:
        """Copy arrays in page-locked memory, which must stay as it is until that has been done."""


class Graphs(Protocol):
    """Work of one device that is captured, and then launched as a whole, in memory of its own."""

    @property
    def pool_size(self) -> int:
        """The bytes of that memory."""

    def working(self) -> AbstractContextManager[None]:
        """Inside, work goes to where it can be captured, and memory comes from that of its own;
        what the device was given before comes before, and what it is given later, after.
        """

    def captured(self, work: Callable[[], None]) -> Any:
        """The graph of what ``work`` gives the device, of which nothing is done. It must have run
        before, while `working`, as now.
        """

    def learned(
        self, compute: Callable[[], tuple[Any, ...]], places: Mapping[int, Array]
    ) -> dict[Any, Array]:
        """What to tell `made_in`, for it to make results of a computation, by their numbers, in the
        memory of these arrays: which allocations those are. It is made, while `working`.
        """

    def made_in(
        self, given: dict[Any, Array], compute: Callable[[], tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        """The results of the computation."""

    def same_place(self, a: Array, b: Array) -> bool:
        """Whether two arrays begin at one address."""

    def like(self, shape: tuple[int, ...], dtype: np.dtype[Any], strides: Sequence[int]) -> Array:
        """Memory of that layout, in which nothing is known."""

    def load(self, place: Array, array: Array) -> None:
        """Copy an array to memory of the same layout."""

    def replaying(self) -> AbstractContextManager[None]:
        """Inside, graphs may be launched."""

    def launch(self, graph: Any) -> None:
        """Do what was captured, after what the device was given; the host does not wait."""


class Backend(Protocol):
    """An array library on one device, as the engine sees it."""

    name: str
    device: str
    """``"cpu"`` or ``"cuda:0"``."""
    array_type: type
    xp: Any
    """A namespace with the `VOCABULARY`, and nothing else."""
    kernels: Mapping[str, Kernel | None]
    guard: AbstractContextManager[Any] | None
    """Entered around every operation where the device must be made the current one."""

    @property
    def threaded_code(self) -> Any:
        """What makes threaded code of calls, as `backends/threaded_code` does, or None."""

    def graphs(self) -> Graphs | None:
        """Graphs of a program, with memory of their own; None where the host executes programs."""

    def asarray(self, value: object, dtype: object = None) -> Array:
        """An array of this backend on its device, from anything NumPy understands; copied only if
        it must be.
        """

    def from_dlpack(self, value: object) -> Array:
        """An array over another library's memory, which speaks DLPack and is on this device."""

    def to_dlpack(self, array: Array, **options: Any) -> object:
        """A DLPack capsule of an array; the options are those of ``__dlpack__``."""

    def from_cuda_array(self, value: object) -> Array:
        """An array over memory on this device that ``__cuda_array_interface__`` describes.

        Raises
        ------
        BackendError
            If it is no GPU.
        """

    def copy(self, array: Array) -> Array:
        """A fresh array with the same values, in C order."""

    def receive(self, array: Array, source: Backend, non_blocking: bool = False) -> Array:
        """The same values from the memory of another device; ``non_blocking`` permits to go on
        while page-locked memory is still being read.
        """

    def uploads(self) -> Uploads:
        """A stream for copies to this device, beside what it computes.

        Raises
        ------
        BackendError
            If it is no GPU.
        """

    def page_locked(self, shape: Sequence[int], dtype: object) -> np.ndarray[Any, Any]:
        """Memory of this machine that the device copies from by itself; nothing is known of what
        is in it.

        Raises
        ------
        BackendError
            If it is no GPU.
        """

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """The same values as a NumPy array: the same memory on the CPU, a copy from a GPU."""

    def store(self, target: Array, value: Array) -> None:
        """Overwrite ``target``, in place, with ``value``, cast and broadcast: the engine's one way
        to change state.
        """

    def accumulator(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype in which statistics of ``dtype`` are accumulated."""

    def overlap(self, a: Array, b: Array) -> bool:
        """Whether two arrays may share memory."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""


def current(backend: Backend) -> AbstractContextManager[Any]:
    """Where arithmetic on arrays stands outside of an operation: its device is the current one."""
    return backend.guard or ANYWHERE


ANYWHERE = nullcontext()


def on(backend: Backend, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """What a single call gives, made as inside of `current`; on the CPU at less cost."""
    if backend.guard is None:
        return function(*args, **kwargs)
    with backend.guard:
        return function(*args, **kwargs)


_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)
only_reference = _reference_only.get
"""Whether kernel points are to run their bodies only."""


@dataclass
class Precision:
    """What kernels may do to be faster and less exact; settings are in `backends.cuda`."""

    allow_tf32: bool = False
    """Whether products of float32 on a GPU may round their operands to 10 bits (TensorFloat-32)."""


precision = Precision()


class KernelPoint(Generic[P, R]):
    """A named computation: one reference body, which defines it, and any number of accelerated
    ones.
    """

    def __init__(self, reference: Callable[Concatenate[Backend, P], R]) -> None:
        self.reference = reference
        self.name = reference.__name__
        update_wrapper(self, reference)
        KERNEL_POINTS[self.name] = self

    def __call__(self, backend: Backend, *args: P.args, **kwargs: P.kwargs) -> R:
        fast = backend.kernels.get(self.name)
        if fast is not None and not only_reference():
            try:
                if kwargs:
                    if fast.accepts(*args, **kwargs):
                        return fast.run(*args, **kwargs)  # type: ignore[no-any-return]
                elif fast.accepts(*args):  # nearly always: no dictionary is handed on
                    return fast.run(*args)  # type: ignore[no-any-return]
            except SystemError as error:
                raise interruption(error) or error from None
        return self.reference(backend, *args, **kwargs)


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error: Numba reports one that it meets while it returns as its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause


KERNEL_POINTS: dict[str, KernelPoint[Any, Any]] = {}


def kernel_point(reference: Callable[Concatenate[Backend, P], R]) -> KernelPoint[P, R]:
    """Declare a computation that a backend may replace, under the same name and signature."""
    return KernelPoint(reference)


@contextmanager
def reference_kernels() -> Generator[None]:
    """Run every kernel point through its reference body, to test kernels or to bisect numerics."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


def get_backend(name: str, index: int = 0) -> Backend:
    """Load the backend ``name`` (``"numpy"`` or ``"cupy"``) for its device number ``index``.

    Raises
    ------
    BackendError
        If there is no such backend or device, or its array library is not installed.
    """
    if name not in ("numpy", "cupy"):
        raise BackendError(f"expected backend 'numpy' or 'cupy', got {name!r}")
    with _loading:  # a cache alone would let threads that come at once load one each
        return _loaded(name, index)


_loading = RLock()


@cache
def _loaded(name: str, index: int) -> Backend:
    module = import_module(f"tinygrad_bn.backends.{name}_backend")
    return cast("Backend", module.backend(index))


@cache
def _backend_of(spec: str) -> Backend:
    device = Device(spec)
    return get_backend("numpy" if device.type == "cpu" else "cupy", device.index or 0)


def backend_for(device: object = None) -> Backend:
    """The backend of ``device``, or of the default device; of ``"cuda"``, the GPU that is the
    default device, if one is, else the first.

    Raises
    ------
    BackendError
        If the device is unknown, absent, or its library is not installed.
    """
    default = config.get_default_device()
    if device is None or (device == "cuda" and default != "cpu"):
        return _backend_of(default)
    return _backend_of(str(device))


def backend_of_pointer(pointer: int) -> Backend:
    """The backend of the GPU whose memory a pointer leads to.

    Raises
    ------
    BackendError
        If there is no CuPy, or no GPU.
    """
    index = import_module("tinygrad_bn.backends.cupy_backend").device_of(pointer)
    return get_backend("cupy", index)


def is_page_locked(array: object) -> bool:
    """Whether an array of NumPy lies in memory that a GPU copies from by itself."""
    adapter = sys.modules.get("tinygrad_bn.backends.uploads")  # without which there is none
    return adapter is not None and adapter.is_page_locked(array)


def set_default_device(device: object) -> None:
    """Make ``device`` (``"cpu"``, ``"cuda"``, ``"cuda:1"``) the one of tensors made without one."""
    config.set_default("device", backend_for(device).device)
