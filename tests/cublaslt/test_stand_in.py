"""The library that stands in for cuBLASLt finds what a caller could do wrong."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_float, c_int, c_void_p
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cublaslt import binding as lt  # type: ignore

from tests.cupy_standin import cublaslt as stand_in
from tests.cupy_standin.memory import alloc
from tests.cupy_standin.streams import Stream, capturing
from tests.two_backends import GPU, get_backend, only_stand_in
from tinygrad_bn.errors import BackendError

pytestmark = only_stand_in

M, K, N = 4, 6, 8
INVALID_VALUE, NOT_SUPPORTED = "INVALID_VALUE", "NOT_SUPPORTED"


@dataclass
class Call:
    """Everything that is said of one product, which a test may say wrong; right as it is."""

    compute: int = lt.Compute.COMPUTE_32F
    scale: int = lt.DataType.R_32F
    operation: dict[str, int] = field(default_factory=dict)
    types: tuple[int, int, int] = (0, 0, 0)
    shapes: tuple[Any, ...] = ((M, K), (K, N), (M, N))
    lds: tuple[int, int, int] = (M, K, M)
    batch: tuple[int, int, int] = (1, 1, 1)
    steps: tuple[int, int, int] = (0, 0, 0)
    preference: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((f"MIN_ALIGNMENT_{x}_BYTES" for x in "ABCD"), 4)
    )

    def described(self) -> None:
        library = self.library = lt.library()
        self.handle = c_void_p()
        library.call("Create", byref(self.handle))
        self.op = lt.Operation(library, self.compute, self.scale)
        for name, value in self.operation.items():
            self.op.set(name, value)
        self.layouts = []
        for kind, shape, ld, batch, step in zip(
            self.types, self.shapes, self.lds, self.batch, self.steps, strict=True
        ):
            layout = lt.Layout(library, kind, *shape, ld)
            layout.set("BATCH_COUNT", batch)
            layout.set("STRIDED_BATCH_OFFSET", step)
            self.layouts.append(layout)
        self.wish = lt.Preference(library)
        for name, value in self.preference.items():
            self.wish.set(name, value)
        self.found, self.count = lt.Heuristic(), c_int()

    def plan(self) -> None:
        self.described()
        a, b, y = (x.pointer for x in self.layouts)
        self.library.call(
            "MatmulAlgoGetHeuristic", self.handle, self.op.pointer, a, b, y, y, self.wish.pointer,
            1, byref(self.found), byref(self.count),
        )  # fmt: skip
        assert self.count.value == 1

    def run(self, offsets: tuple[int, ...] = (0, 0, 0), size: int = 1 << 16, **other: Any) -> Any:
        """The product of ones, from so many elements behind an aligned address."""
        a, b, y = (x.pointer for x in self.layouts)
        self.memory = [GPU.xp.ones(1024, np.float32) for _ in range(3)]
        at = [x.data.ptr + 4 * offset for x, offset in zip(self.memory, offsets, strict=True)]
        if "result" in other:
            at[2] = at[other["result"]]
        self.space = alloc(size)
        space = self.space.ptr + other.get("shifted", 0)
        stream = other.get("stream", 0)
        self.library.call(
            "Matmul", self.handle, self.op.pointer, byref(c_float(1)), at[0], a, at[1], b,
            byref(c_float(0)), at[2], y, at[2], y, byref(self.found), space, size, stream,
        )  # fmt: skip
        return GPU.to_numpy(self.memory[2])[offsets[2] : offsets[2] + M * N]


def refused(status: str) -> Any:
    return pytest.raises(BackendError, match=f"CUBLAS_STATUS_{status}")


def reported(message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"cuBLASLt stand-in: {message}" in capfd.readouterr().err


def test_what_is_right_is_computed() -> None:
    call = Call()
    call.plan()
    np.testing.assert_array_equal(call.run(), K)
    np.testing.assert_array_equal(call.run(offsets=(1, 2, 3)), K)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"lds": (M - 1, K, M)}, INVALID_VALUE),
        ({"lds": (M, K, M - 1)}, INVALID_VALUE),
        ({"shapes": ((M, K), (K + 1, N), (M, N)), "lds": (M, K + 1, M)}, INVALID_VALUE),
        ({"shapes": ((M, K), (K, N), (N, M)), "lds": (M, K, N)}, INVALID_VALUE),
        ({"shapes": ((M, 0), (0, N), (M, N)), "lds": (M, 1, M)}, INVALID_VALUE),
        ({"operation": {"TRANSA": 1}}, INVALID_VALUE),
        ({"operation": {"TRANSB": 1}}, INVALID_VALUE),
        ({"batch": (2, 1, 2), "steps": (M * K, 0, M * N)}, INVALID_VALUE),
        ({"batch": (2, 2, 2), "steps": (M * K, K * N, M * N - 1)}, "INTERNAL_ERROR"),
        ({"batch": (65536,) * 3, "steps": (M * K, K * N, M * N)}, NOT_SUPPORTED),
        ({"operation": {"EPILOGUE": 4}}, INVALID_VALUE),
        ({"operation": {"EPILOGUE": 256}}, INVALID_VALUE),
        ({"types": (0, 0, 1)}, NOT_SUPPORTED),
        ({"types": (1, 1, 1)}, NOT_SUPPORTED),
        ({"types": (2, 2, 2), "compute": 77}, NOT_SUPPORTED),
        ({"types": (1, 1, 1), "compute": 70}, NOT_SUPPORTED),
        ({"compute": 64}, NOT_SUPPORTED),
        ({"preference": {"MIN_ALIGNMENT_A_BYTES": 12}}, INVALID_VALUE),
    ],
    ids=str,
)
def test_what_cannot_be_planned(wrong: Any, status: str) -> None:
    with refused(status):
        Call(**wrong).plan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offsets": (1, 0, 0)}, "a matrix is less aligned"),
        ({"offsets": (0, 0, 2)}, "a matrix is less aligned"),
        ({"shifted": 16}, "the workspace is not aligned"),
        ({"stream": 2}, "the stream is not the current one"),
        ({"result": 0}, "the result overlaps an operand"),
    ],
    ids=str,
)
def test_what_a_gpu_would_not_notice(
    options: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    call = Call(preference=dict.fromkeys((f"MIN_ALIGNMENT_{x}_BYTES" for x in "ABCD"), 16))
    call.plan()
    with refused("INTERNAL_ERROR"):
        call.run(**options)
    reported(message, capfd)


def test_a_vector_less_aligned_than_planned(capfd: pytest.CaptureFixture[str]) -> None:
    call = Call(operation={"EPILOGUE": 4, "BIAS_POINTER": 16})
    call.plan()
    bias = GPU.xp.ones(16, np.float32)
    call.op.set("BIAS_POINTER", bias.data.ptr)
    np.testing.assert_array_equal(call.run(), K + 1)
    call.op.set("BIAS_POINTER", bias.data.ptr + 4)
    with refused("INTERNAL_ERROR"):
        call.run()
    reported("the vector is less aligned", capfd)


def test_an_algorithm_of_another_product() -> None:
    call, other = Call(), Call(shapes=((M, K), (K, N - 1), (M, N - 1)))
    call.plan()
    other.plan()
    call.found = other.found
    with refused(INVALID_VALUE):
        call.run()
    call.found = lt.Heuristic()
    with refused(INVALID_VALUE):
        call.run()


def test_a_workspace_that_is_too_small() -> None:
    call = Call(preference={"MAX_WORKSPACE_BYTES": 1 << 16, **Call().preference})
    call.plan()
    assert call.found.workspace > 0
    with refused(INVALID_VALUE):
        call.run(size=call.found.workspace - 1)
    np.testing.assert_array_equal(call.run(), K)


def test_heuristics_in_a_capture(capfd: pytest.CaptureFixture[str]) -> None:
    with capturing(), refused("INTERNAL_ERROR"):
        Call().plan()
    reported("heuristics were asked for while a stream captures", capfd)


def test_the_handle_of_another_device(capfd: pytest.CaptureFixture[str]) -> None:
    call = Call()
    call.plan()
    with get_backend("cupy", 1).guard, refused("INTERNAL_ERROR"):
        call.run()
    reported("the handle is another device's", capfd)


def test_another_stream_is_noticed_both_ways(capfd: pytest.CaptureFixture[str]) -> None:
    call, stream = Call(), Stream()
    call.plan()
    with stream:
        np.testing.assert_array_equal(call.run(stream=stream.ptr), K)
        with refused("INTERNAL_ERROR"):
            call.run(stream=0)
    reported("the stream is not the current one", capfd)


def test_descriptions_that_are_gone() -> None:
    call = Call()
    call.plan()
    dead, call.layouts[0] = call.layouts[0].pointer.value, lt.Layout(call.library, 0, M, K, M)
    call.layouts[0].pointer, kept = c_void_p(dead), call.layouts[0].pointer
    before = stand_in.descriptions()
    with refused(INVALID_VALUE):
        call.run()
    call.layouts[0].pointer = kept
    del call
    assert stand_in.descriptions() == before - 5  # but the handle, which nobody destroys


def test_what_is_no_description() -> None:
    library = lt.library()
    nothing = ctypes.create_string_buffer(256)
    for name in ("MatmulDesc", "MatrixLayout", "MatmulPreference"):
        with refused(INVALID_VALUE):
            library.call(f"{name}SetAttribute", nothing, 3, byref(c_int(1)), 4)
        assert library.functions[f"{name}Destroy"](nothing) != lt.SUCCESS
