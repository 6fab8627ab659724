"""The port over CuPy: arrays in the memory of an NVIDIA GPU.

The module imports without CuPy and without a driver; `backend` then says what is missing.
Nothing here waits for the device, except `CupyBackend.to_numpy`, `CupyBackend.synchronize`,
and ``xp.nonzero``, whose shape depends on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinygrad_bn.backend import (
    VOCABULARY,
    Array,
    Backend,
    Graphs,
    Kernel,
    Uploads,
    get_backend,
)
from tinygrad_bn.errors import BackendError, DtypeError

from .capsules import exported, imported
from .cuda_kernels import Kernels
from .half import in_float32, wide_inside
from .indexing import is_basic

cupy: Any = None
missing: ImportError | None = None
try:
    import cupy  # type: ignore[no-redef]
    import cupyx

    from . import cuda_graphs, uploads
    from .current_gpu import Current, be_patient
except ImportError as error:
    missing = error

NO_DEVICE, DRIVER_TOO_OLD = 100, 35
"""cudaErrorNoDevice, and cudaErrorInsufficientDriver, as which a missing driver is reported too."""

NO_BFLOAT16_LOOP = (
    "where", "clip", "tril", "triu", "round", "max", "min", "argmax", "argmin", "sort", "argsort"
)  # fmt: skip
"""Words that CuPy would answer in float32 for bfloat16, or not at all."""


def remainder(a: Array, b: Array) -> Array:
    """What is left of a / b, with the sign of b.

    CuPy's own, a - floor(a / b)·b, is NaN for infinite b, and inexact where a / b is large.
    """
    if cupy.result_type(a, b).kind in "biu":
        return cupy.remainder(a, b)
    r = cupy.fmod(a, b)
    return cupy.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


def reshape(a: Array, shape: int | tuple[int, ...]) -> Array:
    """The same elements in C order; CuPy calls the shape ``newshape``."""
    return cupy.reshape(a, shape)


def special(name: str) -> Callable[[Array], Array]:
    """A function of cupyx.scipy.special, imported when it is first called."""

    @in_float32
    def run(x: Array) -> Array:
        from cupyx.scipy import special as functions  # 100 ms that most programs never need

        return getattr(functions, name)(x)

    return run


@in_float32
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)): the overflow of exp for very negative x is the right zero."""
    return 1 / (1 + cupy.exp(-x))


def contiguous(x: Array) -> Array:
    """The same values in C order; x itself if it is so already."""
    return cupy.asarray(x, order="C")


@in_float32
def accumulate(shape: tuple[int, ...], index: Any, values: Array) -> Array:
    """Zeros of ``shape``, with ``values`` added up at ``index``, in no particular order."""
    whole = values.dtype.kind in "biu"  # of which CuPy adds few; modulo 2 ** 64 all add alike
    y = cupy.zeros(shape, cupy.uint64 if whole else values.dtype)
    cupyx.scatter_add(y, index, values.astype(y.dtype, copy=False))
    return y.astype(values.dtype, copy=False)


def add_at(shape: tuple[int, ...], index: Any, values: Array) -> Array:
    """Zeros of ``shape``, with ``values`` added at ``index``; where it repeats, they add up."""
    if not is_basic(index):
        return accumulate(shape, index, values)
    y = cupy.zeros(shape, values.dtype)
    y[index] = values
    return y


def add_along_axis(shape: tuple[int, ...], indices: Array, values: Array, axis: int) -> Array:
    """Zeros of ``shape``, with ``values`` added where `take_along_axis` would read ``indices``."""
    rank = indices.ndim
    index = [
        cupy.arange(n).reshape((1,) * i + (n,) + (1,) * (rank - i - 1))
        for i, n in enumerate(indices.shape)
    ]
    index[axis] = indices
    return accumulate(shape, tuple(index), values)


def joining(join: Callable[..., Array]) -> Callable[..., Array]:
    """Several arrays as one; where graphs are made, by few at a time: for more CuPy sends the
    addresses from the host's memory, which a graph would read at every launch.
    """

    def run(arrays: Sequence[Array], axis: int = 0) -> Array:
        if len(arrays) <= MOST_JOINED or not cuda_graphs.working_here():
            return join(arrays, axis)
        starts = range(0, len(arrays), MOST_JOINED)
        parts = [join(arrays[i : i + MOST_JOINED], axis) for i in starts]
        return joining(cupy.concatenate)(parts, axis)

    return run


MOST_JOINED = 8


def vocabulary() -> SimpleNamespace:
    """The words, as CuPy says them; products are cuBLASLt's."""
    from .cublaslt.contraction import einsum  # which need CuPy
    from .cublaslt.words import matmul

    own: dict[str, Callable[..., Any]] = {
        "matmul": matmul,
        "einsum": einsum,
        "concatenate": joining(cupy.concatenate),
        "stack": joining(cupy.stack),
        "remainder": in_float32(remainder, ("bfloat16",)),
        "reshape": reshape,
        "erf": special("erf"),
        "erfinv": special("erfinv"),
        "sigmoid": sigmoid,
        "contiguous": contiguous,
        "add_at": add_at,
        "add_along_axis": add_along_axis,
    }
    for name in ("sum", "mean", "prod", "cumsum"):
        own[name] = wide_inside(getattr(cupy, name))
    for name in NO_BFLOAT16_LOOP:
        own[name] = in_float32(getattr(cupy, name), ("bfloat16",))
    return SimpleNamespace(**{word: own.get(word) or getattr(cupy, word) for word in VOCABULARY})


class CupyBackend:
    """CuPy on one GPU."""

    name = "cupy"
    threaded_code = None

    def __init__(self, index: int) -> None:
        self.index = index
        self.device = f"cuda:{index}"
        self.array_type: type = cupy.ndarray
        self.guard: Any = Current(index)
        be_patient()
        self.xp = vocabulary()
        self.kernels: Mapping[str, Kernel | None] = Kernels()

    def graphs(self) -> Graphs:
        return cuda_graphs.Graphs(self.index, self.guard)

    def require_here(self, array: Array) -> None:
        """Refuse an array of another device, which CuPy would read across the bus.

        Raises
        ------
        BackendError
            If ``array`` is not on this device.
        """
        if array.data.device_id != self.index:
            raise BackendError(
                f"expected an array on {self.device}, got one on cuda:{array.data.device_id}"
            )

    def asarray(self, value: object, dtype: object = None) -> Array:
        """An array on this device, from one that is there or from anything NumPy understands.

        Raises
        ------
        BackendError
            If ``value`` is an array of another device.
        DtypeError
            If it is ragged, or of a dtype that is not a number's or that CUDA has not.
        """
        if isinstance(value, cupy.ndarray):
            self.require_here(value)
            with self.guard:
                return cupy.asarray(value, dtype=dtype)
        host = get_backend("numpy").asarray(value, dtype)
        # page-locked memory CuPy would go on reading when this has returned
        return self.sent(host.copy() if uploads.is_page_locked(host) else host)

    def sent(self, host: np.ndarray[Any, Any]) -> Array:
        """An array of NumPy on this device."""
        with self.guard:
            try:
                return cupy.asarray(host)
            except ValueError as error:
                raise DtypeError(f"expected a dtype that CUDA has, got {host.dtype}") from error

    def receive(self, array: Array, source: Backend, non_blocking: bool = False) -> Array:
        if isinstance(source, CupyBackend):
            return uploads.from_other_device(array, source.guard, self.guard)
        host = source.to_numpy(array)
        return self.sent(host) if non_blocking else self.asarray(host)

    def uploads(self) -> Uploads:
        return uploads.Uploads(self.guard)

    def page_locked(self, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        with self.guard:
            return uploads.page_locked(shape, dtype)

    def from_dlpack(self, value: object) -> Array:
        if isinstance(value, cupy.ndarray):
            return value
        with self.guard:
            array, read_only = imported(cupy.from_dlpack, value)
            return array.copy() if read_only else array  # CuPy would let it be written to

    def to_dlpack(self, array: Array, **options: Any) -> object:
        return exported(array, **options)

    def from_cuda_array(self, value: Any) -> Array:
        read_only = value.__cuda_array_interface__["data"][1]
        with self.guard:
            array = cupy.asarray(value)  # in order: CuPy waits for the stream that it names
            return array.copy() if read_only else array

    def copy(self, array: Array) -> Array:
        with self.guard:
            return array.copy()

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        with self.guard:
            host: np.ndarray[Any, Any] = array.get()
        return host

    def store(self, target: Array, value: Array) -> None:
        if target is value:
            return
        self.require_here(target)
        if isinstance(value, cupy.ndarray):
            self.require_here(value)
        with self.guard:
            if isinstance(value, cupy.ndarray) and self.overlap(target, value):
                value = value.copy()  # the device copies in no particular order
            cupy.copyto(target, value, casting="unsafe")

    def accumulator(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def overlap(self, a: Array, b: Array) -> bool:
        return bool(cupy.may_share_memory(a, b))

    def synchronize(self) -> None:
        with cuda_graphs.between_captures(self.index), self.guard:
            cupy.cuda.Device(self.index).synchronize()


def count_devices() -> int:
    """How many GPUs CuPy can use.

    Raises
    ------
    BackendError
        If there is none, saying what is missing: CuPy, a driver, a newer driver, or a GPU.
    """
    if cupy is None:
        absent = getattr(missing, "name", None) in (None, "cupy")
        why = "is not installed" if absent else f"does not load: {missing}"
        raise BackendError(
            f"a CUDA device needs CuPy, which {why}; "
            "install tinygrad-bn[cuda13], or tinygrad-bn[cuda12] for an older driver"
        ) from missing
    runtime = cupy.cuda.runtime
    try:
        count: int = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise BackendError(why_none(error.status, str(error))) from error
    if count == 0:
        raise BackendError(why_none(NO_DEVICE, ""))
    return count


def why_none(status: int, message: str) -> str:
    """Why there is no GPU, from the error of the CUDA runtime."""
    runtime = cupy.cuda.runtime
    if status == NO_DEVICE:
        return (
            "expected an NVIDIA GPU, found none; `nvidia-smi` lists those that the driver sees, "
            "CUDA_VISIBLE_DEVICES may hide them, and device 'cpu' does without"
        )
    if status != DRIVER_TOO_OLD:
        return f"CUDA does not start: {message}"
    driver, needed = runtime.driverGetVersion(), version(runtime.runtimeGetVersion())
    if driver == 0:
        return (
            "expected an NVIDIA GPU, found no driver for one; install NVIDIA's, or use device 'cpu'"
        )
    return (
        f"expected a driver for CUDA {needed}, got one for CUDA {version(driver)}; "
        "update it, or install a CuPy for an older CUDA (tinygrad-bn[cuda12])"
    )


def version(number: int) -> str | None:
    """CUDA's 13020 as people write it, 13.2; None for the 0 that stands for none."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def device_of(pointer: int) -> int:
    """The number of the GPU whose memory a pointer leads to; of none, the current one."""
    count_devices()
    runtime = cupy.cuda.runtime
    return int(runtime.pointerGetAttributes(pointer).device if pointer else runtime.getDevice())


def device_count() -> int:
    """How many GPUs there are to use; 0 where CuPy, a driver or a GPU is missing."""
    try:
        return count_devices()
    except BackendError:
        return 0


def is_available() -> bool:
    """Whether there is a GPU to use."""
    return device_count() > 0


def describe() -> dict[str, Any]:
    """What there is of CUDA here: versions, GPUs with their memory in bytes, what is missing."""
    found: dict[str, Any] = dict.fromkeys(("cupy", "driver", "runtime", "problem"))
    found["devices"] = []
    try:
        if cupy is not None:
            found["cupy"] = cupy.__version__
            found["driver"] = version(cupy.cuda.runtime.driverGetVersion())
            found["runtime"] = version(cupy.cuda.runtime.runtimeGetVersion())
        found["devices"] = [describe_device(index) for index in range(count_devices())]
    except RuntimeError as error:  # ours, and CUDA's
        found["problem"] = str(error)
    return found


def describe_device(index: int) -> dict[str, Any]:
    """One GPU: its name, compute capability, and memory in bytes."""
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    return {
        "device": f"cuda:{index}",
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory": properties["totalGlobalMem"],
    }


def backend(index: int = 0) -> Backend:
    """The backend of GPU number ``index``.

    Raises
    ------
    BackendError
        If CuPy, a driver, or that GPU is missing.
    """
    count = count_devices()
    if not 0 <= index < count:
        known = (
            "the only CUDA device is cuda:0" if count == 1 else f"there are {count} CUDA devices"
        )
        raise BackendError(f"{known}, got cuda:{index}")
    return CupyBackend(index)
