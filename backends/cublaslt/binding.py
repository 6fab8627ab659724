"""The C functions of cuBLASLt that products need, with the numbers of its headers.

Through ctypes, not nvmath-python: a dozen functions are less than a dependency, and a library of
the tests' own can stand in for them. The numbers, of ``cublasLt.h``, ``cublas_api.h`` and
``library_types.h``, are the same in CUDA 12 and 13.
"""

from __future__ import annotations

from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
    sizeof,
)
from enum import IntEnum
from functools import cache
from typing import Any, ClassVar

from tinygrad_bn.errors import BackendError


class Refused(BackendError):
    """A function of the library came back with another status than success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


SUCCESS, ALLOC_FAILED, INVALID_VALUE, NOT_SUPPORTED = 0, 3, 7, 15
"""``CUBLAS_STATUS_*``, those that are told from the others."""
REDUCTION_IN_COMPUTE_TYPE = 2
"""``CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE``: parts of a sum are kept as wide as the sum."""


class DataType(IntEnum):
    """``CUDA_*``, of cudaDataType_t."""

    R_32F = 0
    R_64F = 1
    R_16F = 2
    R_16BF = 14


class Compute(IntEnum):
    """``CUBLAS_*``, of cublasComputeType_t: in what products are added up."""

    COMPUTE_32F = 68
    COMPUTE_64F = 70
    COMPUTE_32F_FAST_TF32 = 77


class Op(IntEnum):
    """``CUBLAS_OP_*``."""

    N = 0
    T = 1


class Epilogue(IntEnum):
    """``CUBLASLT_EPILOGUE_*``: with what a product ends."""

    DEFAULT = 1
    RELU = 2
    BIAS = 4
    RELU_BIAS = 6
    BGRADA = 256


class Heuristic(Structure):
    """``cublasLtMatmulHeuristicResult_t``: an algorithm, and what it needs."""

    _fields_: ClassVar = [
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


SIGNATURES: dict[str, tuple[Any, ...]] = {
    "Create": (POINTER(c_void_p),),
    "MatmulDescCreate": (POINTER(c_void_p), c_int, c_int),
    "MatmulDescSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulDescDestroy": (c_void_p,),
    "MatrixLayoutCreate": (POINTER(c_void_p), c_int, c_uint64, c_uint64, c_int64),
    "MatrixLayoutSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatrixLayoutDestroy": (c_void_p,),
    "MatmulPreferenceCreate": (POINTER(c_void_p),),
    "MatmulPreferenceSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulPreferenceDestroy": (c_void_p,),
    # handle, operation, layouts of A, B, C and D, preference, room for results, how many came
    "MatmulAlgoGetHeuristic": (*[c_void_p] * 7, c_int, POINTER(Heuristic), POINTER(c_int)),
    # handle, operation, α, A and its layout, B, its, β, C, its, D, its, algorithm, workspace,
    # its size, stream
    "Matmul": (*[c_void_p] * 14, c_size_t, c_void_p),
}


class Library:
    """The shared library at ``path``; its functions by their names less ``cublasLt``."""

    def __init__(self, path: str) -> None:
        shared = CDLL(path)
        self.functions: dict[str, Any] = {}
        for name, arguments in SIGNATURES.items():
            function = getattr(shared, f"cublasLt{name}")
            function.argtypes, function.restype = arguments, c_int
            self.functions[name] = function
        self._name_of = shared.cublasLtGetStatusName
        self._name_of.argtypes, self._name_of.restype = (c_int,), c_char_p

    def call(self, name: str, *args: Any) -> None:
        """Call a function.

        Raises
        ------
        MemoryError
            If the device has no memory left for it.
        Refused
            If it fails for another reason.
        """
        status = self.functions[name](*args)
        if status == SUCCESS:
            return
        message = f"cublasLt{name} failed with {self._name_of(status).decode()} ({status})"
        if status == ALLOC_FAILED:
            raise MemoryError(message)
        raise Refused(message, status)


@cache
def library() -> Library:
    """The cuBLASLt that CuPy would find: in NVIDIA's wheels, in conda, or on the system.

    Raises
    ------
    BackendError
        If there is none.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # which CuPy brings

        path = load_nvidia_dynamic_lib("cublasLt").abs_path
    except (ImportError, RuntimeError) as error:
        raise BackendError(
            "matrix products need cuBLASLt, which was not found; install tinygrad-bn[cuda13] "
            "(or [cuda12], for an older driver), or a CUDA toolkit"
        ) from error
    return Library(path)


class Description:
    """Something that the library must be told before a product; it keeps it until this dies."""

    kind: ClassVar[str]
    attributes: ClassVar[dict[str, tuple[int, Any]]]
    """The number and the C type of each attribute in use."""

    def __init__(self, shared: Library, *args: Any) -> None:
        self._destroy = shared.functions[f"{self.kind}Destroy"]
        self.shared = shared
        self.pointer = c_void_p()
        shared.call(f"{self.kind}Create", byref(self.pointer), *args)

    def set(self, name: str, value: int) -> None:
        """Set one attribute."""
        number, kind = self.attributes[name]
        held = kind(value)
        self.shared.call(
            f"{self.kind}SetAttribute", self.pointer, number, byref(held), sizeof(held)
        )

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._destroy(self.pointer)


class Operation(Description):
    """``cublasLtMatmulDesc_t``: what is computed; made from Compute and the DataType of α and β."""

    kind = "MatmulDesc"
    attributes: ClassVar = {
        "TRANSA": (3, c_int32),
        "TRANSB": (4, c_int32),
        "EPILOGUE": (7, c_uint32),
        "BIAS_POINTER": (8, c_void_p),
    }


class Layout(Description):
    """``cublasLtMatrixLayout_t``: matrices of (rows, columns), a column every ``ld`` elements."""

    kind = "MatrixLayout"
    attributes: ClassVar = {
        "BATCH_COUNT": (5, c_int32),
        "STRIDED_BATCH_OFFSET": (6, c_int64),
    }


class Preference(Description):
    """``cublasLtMatmulPreference_t``: which algorithms will do."""

    kind = "MatmulPreference"
    attributes: ClassVar = {
        "MAX_WORKSPACE_BYTES": (1, c_uint64),
        "REDUCTION_SCHEME_MASK": (3, c_uint32),
        "MIN_ALIGNMENT_A_BYTES": (5, c_uint32),
        "MIN_ALIGNMENT_B_BYTES": (6, c_uint32),
        "MIN_ALIGNMENT_C_BYTES": (7, c_uint32),
        "MIN_ALIGNMENT_D_BYTES": (8, c_uint32),
    }
