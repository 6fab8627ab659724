"""The binding, and the library of the tests, against NVIDIA's headers and library.

Neither needs a GPU, nor a driver: descriptions are the host's affair. Both are too large for a
machine that only tests (``pip install nvidia-cublas nvidia-cuda-runtime nvidia-cuda-crt``), so
these tests run where they are, which is wherever CuPy is to be used.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tinygrad_bn.backends.cublaslt import binding as lt  # type: ignore

from tests.cupy_standin import cublaslt as stand_in
from tests.cupy_standin.emulator.building import compiler

LOCATE = """
from cuda.pathfinder import find_nvidia_header_directory, load_nvidia_dynamic_lib
print(load_nvidia_dynamic_lib("cublasLt").abs_path)
for name in ("cublas", "cudart", "cccl"):
    print(find_nvidia_header_directory(name) or "")
"""
KINDS = {
    lt.Operation: "MATMUL_DESC",
    lt.Layout: "MATRIX_LAYOUT",
    lt.Preference: "MATMUL_PREF",
}
MADE_OF = {
    lt.Operation: (lt.Compute.COMPUTE_32F, lt.DataType.R_32F),
    lt.Layout: (lt.DataType.R_32F, 4, 5, 4),
    lt.Preference: (),
}


@cache
def installed() -> list[str]:
    """Where cuBLASLt is, and folders of headers, of which some may be missing."""
    run = subprocess.run([sys.executable, "-c", LOCATE], capture_output=True, text=True)
    if run.returncode:
        reason = run.stderr.strip().rpartition("\n")[2]
        pytest.skip(f"NVIDIA's cuBLASLt is not installed: {reason}")
    return run.stdout.splitlines()


def libraries() -> list[Any]:
    return [lt.Library(installed()[0]), lt.Library(str(stand_in.built()))]


def test_numbers_are_those_of_the_headers(tmp_path: Path) -> None:
    numbers = {f"CUDA_{x.name}": x for x in lt.DataType}
    numbers |= {f"CUBLAS_{x.name}": x for x in lt.Compute}
    numbers |= {f"CUBLAS_OP_{x.name}": x for x in lt.Op}
    numbers |= {f"CUBLASLT_EPILOGUE_{x.name}": x for x in lt.Epilogue}
    numbers |= {
        f"CUBLAS_STATUS_{name}": getattr(lt, name)
        for name in ("SUCCESS", "ALLOC_FAILED", "INVALID_VALUE", "NOT_SUPPORTED")
    }
    numbers["CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE"] = lt.REDUCTION_IN_COMPUTE_TYPE
    for kind, prefix in KINDS.items():
        for name, (number, _) in kind.attributes.items():
            numbers[f"CUBLASLT_{prefix}_{name}"] = number
    result, places = "cublasLtMatmulHeuristicResult_t", lt.Heuristic._fields_
    names = ("algo", "workspaceSize", "state", "wavesCount", "reserved")
    numbers |= {
        f"offsetof({result}, {theirs})": getattr(lt.Heuristic, ours).offset
        for theirs, (ours, _) in zip(names, places, strict=True)
    }
    numbers[f"sizeof({result})"] = ctypes.sizeof(lt.Heuristic)
    source = tmp_path / "numbers.cpp"
    claims = [f'static_assert({name} == {int(x)}, "{name}");' for name, x in numbers.items()]
    source.write_text("\n".join(("#include <cstddef>", "#include <cublasLt.h>", *claims)))
    include = [f"-I{folder}" for folder in installed()[1:] if folder]
    command = [compiler(), "-std=c++17", "-fsyntax-only", "-w", *include, str(source)]
    run = subprocess.run(command, capture_output=True, text=True)
    if "No such file" in run.stderr:
        pytest.skip(f"not all of CUDA's headers are installed: {run.stderr}")
    assert not run.returncode, run.stderr


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_attributes_have_the_size_of_their_type(kind: Any) -> None:
    for library in libraries():
        made = kind(library, *MADE_OF[kind])
        put = library.functions[f"{kind.kind}SetAttribute"]
        for name, (number, held) in kind.attributes.items():
            made.set(name, 1)  # success, or it raises
            room, size = ctypes.create_string_buffer(16), ctypes.sizeof(held)
            for wrong in {4, 8, 12} - {size}:
                assert put(made.pointer, number, room, wrong) == lt.INVALID_VALUE, name
            assert put(made.pointer, number, None, size) == lt.INVALID_VALUE
        room = ctypes.create_string_buffer(8)
        for size in (4, 8):
            assert put(made.pointer, 9999, room, size) == lt.INVALID_VALUE


def test_statuses_have_the_same_names() -> None:
    real, ours = libraries()
    for status in (0, 1, 3, 7, 8, 13, 14, 15, 99):
        assert real._name_of(status) == ours._name_of(status)


def test_every_function_is_there() -> None:
    for library in libraries():
        assert set(library.functions) == set(lt.SIGNATURES)
