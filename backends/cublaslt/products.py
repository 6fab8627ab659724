"""cuBLASLt on each device: products that are planned once, and then run by one call.

To plan a product is to describe it to cuBLASLt, and have it find an algorithm. That may use a
workspace, which belongs to the stream. Neither can be had while the stream captures: whatever is
captured must have run on that stream before. Graphs captured on one stream share its workspace, and
must not run side by side.
"""

from __future__ import annotations

import threading
from ctypes import byref, c_double, c_float, c_int, c_void_p
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tinygrad_bn.backend import precision
from tinygrad_bn.errors import BackendError, OutOfMemoryError

from ..current_gpu import ADVICE, patiently
from . import binding as lt
from .layouts import Operand, Product

DATA_TYPES = {
    "float32": lt.DataType.R_32F,
    "float64": lt.DataType.R_64F,
    "float16": lt.DataType.R_16F,
    "bfloat16": lt.DataType.R_16BF,
}
LARGEST_ALIGNMENT = 256
"""The most that cuBLASLt can make use of, in bytes."""
MOST_PLANS = 4096
PER_THREAD_STREAM = 2
"""cudaStreamPerThread: one number, another stream in each thread."""


@cache
def data_type(dtype: np.dtype[Any]) -> lt.DataType | None:
    """CUDA's number of a dtype that cuBLASLt multiplies; None for others."""
    return DATA_TYPES.get(dtype.name)


class Task(NamedTuple):
    """α a @ b + β y, which goes to y, and how it ends; arrays are given as their addresses."""

    product: Product
    dtype: np.dtype[Any]
    end: lt.Epilogue
    a: int
    b: int
    y: int
    vector: int = 0
    """The bias that is added, or the place of the sum that is taken."""
    alpha: float = 1
    beta: float = 0

    def __str__(self) -> str:
        p = self.product
        return f"{p.batch} × ({p.m}, {p.k}) @ ({p.k}, {p.n}) of {self.dtype}"


class Plan:
    """One product as cuBLASLt is told of it, and the algorithm that it found.

    BLAS stores matrices by columns. Memory that holds a matrix by rows holds its transpose by
    columns, so it is asked for bᵀ aᵀ = (ab)ᵀ: b is its left operand, A, and a its right one, B.
    """

    def __init__(self, library: lt.Library, task: Task, compute: lt.Compute) -> None:
        p, wide = task.product, task.dtype.itemsize == 8
        assert isinstance(p.a, Operand)
        assert isinstance(p.b, Operand)
        self.end, self.scalar = task.end, c_double if wide else c_float
        scale = lt.DataType.R_64F if wide else lt.DataType.R_32F
        self.operation = lt.Operation(library, compute, scale)
        self.operation.set("TRANSA", lt.Op.T if p.b.transposed else lt.Op.N)
        self.operation.set("TRANSB", lt.Op.T if p.a.transposed else lt.Op.N)
        self.operation.set("EPILOGUE", task.end)

        def layout(rows: int, columns: int, seen: Operand) -> lt.Layout:
            shape = (rows, columns) if seen.transposed else (columns, rows)
            described = lt.Layout(library, data_type(task.dtype), *shape, seen.ld)
            described.set("BATCH_COUNT", p.batch)
            described.set("STRIDED_BATCH_OFFSET", seen.step)
            return described

        self.a = layout(p.m, p.k, p.a)
        self.b = layout(p.k, p.n, p.b)
        self.y = layout(p.m, p.n, Operand(False, p.n, p.m * p.n))
        self.found = lt.Heuristic()

    def find(self, library: lt.Library, handle: c_void_p, wish: lt.Preference) -> bool:
        """Whether there is an algorithm; then it is in ``found``."""
        count, described = c_int(), (self.operation, self.b, self.a, self.y, self.y, wish)
        pointers = [x.pointer for x in described]
        name = "MatmulAlgoGetHeuristic"
        try:
            library.call(name, handle, *pointers, 1, byref(self.found), byref(count))
        except lt.Refused as error:
            unheard_of = self.end != lt.Epilogue.DEFAULT and error.status == lt.INVALID_VALUE
            if error.status != lt.NOT_SUPPORTED and not unheard_of:
                raise
            return False
        return count.value == 1 and self.found.state == lt.SUCCESS


class Products:
    """cuBLASLt on one device: its handle, which one thread uses at a time, plans and workspaces."""

    def __init__(self, device: int) -> None:
        self.device, self.lock = device, threading.Lock()
        self.library, self.handle = lt.library(), c_void_p()
        self.library.call("Create", byref(self.handle))
        major = cupy.cuda.runtime.getDeviceProperties(device)["major"]
        self.workspace_size = (32 if major >= 9 else 4) * 2**20  # as NVIDIA advises
        self.workspaces: dict[Any, Any] = {}
        self.plans: dict[Any, Plan | None] = {}

    def run(self, task: Task) -> bool:
        """Compute a product, if there is an algorithm that ends so; return whether there is.

        Memory that is lacking is asked for again once CuPy has given back what it keeps.

        Raises
        ------
        OutOfMemoryError
            If memory is lacking then, too.
        BackendError
            If cuBLASLt refuses, or a capture meets a product for the first time.
        """
        try:
            return patiently(self.launch, task)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"expected memory on cuda:{self.device} for {task}, found none ({error}); {ADVICE}"
            ) from error

    def launch(self, task: Task) -> bool:
        """The same, once."""
        _, _, _, a, b, y, vector, alpha, beta = task
        stream = cupy.cuda.get_current_stream()
        with self.lock:
            plan = self.plan(task, stream)
            if plan is None:
                return False
            space = self.workspace(task, stream)
            if vector:
                plan.operation.set("BIAS_POINTER", vector)
            self.library.call(
                "Matmul", self.handle, plan.operation.pointer,
                byref(plan.scalar(alpha)), b, plan.b.pointer, a, plan.a.pointer,
                byref(plan.scalar(beta)), y, plan.y.pointer, y, plan.y.pointer,
                byref(plan.found), space.ptr, self.workspace_size, stream.ptr,
            )  # fmt: skip
        return True

    def plan(self, task: Task, stream: Any) -> Plan | None:
        """The plan of a product; None where no algorithm ends so."""
        compute = lt.Compute.COMPUTE_32F
        if task.dtype.itemsize == 8:
            compute = lt.Compute.COMPUTE_64F
        elif task.dtype.itemsize == 4 and precision.allow_tf32:
            compute = lt.Compute.COMPUTE_32F_FAST_TF32
        addresses = task.a | task.b | task.y | task.vector | LARGEST_ALIGNMENT
        alignment = addresses & -addresses
        key = task.product, task.dtype, task.end, compute, alignment
        if key not in self.plans:
            refuse_in_capture(task, stream)
            plan = Plan(self.library, task, compute)
            if task.vector:  # where it is does not count yet, but how well it is aligned
                plan.operation.set("BIAS_POINTER", alignment)
            found = plan.find(self.library, self.handle, self.wish(task.dtype, alignment))
            if len(self.plans) >= MOST_PLANS:
                del self.plans[next(iter(self.plans))]
            self.plans[key] = plan if found else None
        return self.plans[key]

    def wish(self, dtype: np.dtype[Any], alignment: int) -> lt.Preference:
        """Which algorithms will do."""
        wish = lt.Preference(self.library)
        wish.set("MAX_WORKSPACE_BYTES", self.workspace_size)
        if dtype.itemsize == 2:  # a sum in parts must not add what was rounded to 16 bits
            wish.set("REDUCTION_SCHEME_MASK", lt.REDUCTION_IN_COMPUTE_TYPE)
        for matrix in "ABCD":
            wish.set(f"MIN_ALIGNMENT_{matrix}_BYTES", alignment)
        return wish

    def workspace(self, task: Task, stream: Any) -> Any:
        """The memory that products on one stream use in turn."""
        key = stream.ptr
        if key == PER_THREAD_STREAM:
            key = key, threading.get_ident()
        if key not in self.workspaces:
            refuse_in_capture(task, stream)
            self.workspaces[key] = cupy.cuda.alloc(self.workspace_size)
        return self.workspaces[key]


def refuse_in_capture(task: Task, stream: Any) -> None:
    """Refuse to plan while a stream captures."""
    if stream.is_capturing():
        raise BackendError(
            f"expected a capture of products that have run on its stream before, got {task}"
        )


_starting = threading.Lock()


def products(device: int) -> Products:
    """What multiplies on a device, which must be the current one."""
    with _starting:  # a cache alone would let threads that come at once make a handle each
        return _products(device)


@cache
def _products(device: int) -> Products:
    return Products(device)
