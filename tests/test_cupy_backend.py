"""The adapter for CuPy means what the one for NumPy means; without a GPU, on the stand-in."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import cupy_standin
from tests.cupy_standin.record import API, names, signature
from tinygrad_bn.backend import VOCABULARY, get_backend
from tinygrad_bn.errors import BackendError, DtypeError

cupy_standin.install()
adapter: Any = importlib.import_module("tinygrad_bn.backends.cupy_backend")
CPU, GPU = get_backend("numpy"), get_backend("cupy")
NATIVE: Any = GPU.array_type

only_stand_in = pytest.mark.skipif(
    not cupy_standin.is_installed(), reason="imagines other machines, which a real GPU cannot"
)
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint8")
ULPS = {"float64": 2**-51, "float32": 2**-21, "float16": 2**-10, "bfloat16": 2**-7}
"""A few units in the last place: both libraries round correctly or nearly so, and a GPU's exp and
pow are specified to 2 ulp; float16 and bfloat16 are computed in float32 and rounded once, which
may differ by 1 ulp."""


def dtype_named(name: str) -> Any:
    scalar: Any = pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name
    return np.dtype(scalar)


def sample(dtype: np.dtype[Any], *shape: int, low: float = -3, high: float = 3) -> Any:
    """Values that repeat and are of both signs, in no order; the same at every call."""
    values = np.random.default_rng(0).uniform(low, high, shape)
    if dtype.kind == "b":
        return values > 0
    if dtype.kind == "u":
        values = np.abs(values)
    return (np.round(values, 1) if dtype.kind in "fV" else np.round(values)).astype(dtype)


def on_gpu(value: Any) -> Any:
    """The same argument for the GPU: arrays are sent there, whatever they are nested in."""
    if isinstance(value, np.ndarray):
        return GPU.asarray(value)
    if isinstance(value, (tuple, list)):
        return type(value)(on_gpu(v) for v in value)
    return value


def assert_same(word: str, *args: Any, **kwargs: Any) -> None:
    """The word gives the same array on both backends: shape, dtype and values."""
    with np.errstate(all="ignore"):
        expected = getattr(CPU.xp, word)(*args, **kwargs)
    with GPU.guard:  # type: ignore[union-attr]
        result = getattr(GPU.xp, word)(*on_gpu(args), **kwargs)
    results, wanted = (result, expected) if word == "nonzero" else ((result,), (expected,))
    for got, other in zip(results, wanted, strict=True):
        want: Any = np.asarray(other)
        assert isinstance(got, NATIVE), word
        assert (got.shape, got.dtype) == (want.shape, want.dtype), word
        host = GPU.to_numpy(got)
        if want.dtype.kind in "fV":
            rtol = ULPS[want.dtype.name]
            host, want = host.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(host, want, rtol=rtol, atol=rtol, err_msg=word)
        else:
            np.testing.assert_array_equal(host, want, err_msg=word)


UNARY = """
    abs ceil cos cosh exp expm1 floor isfinite isinf isnan logical_not round sign sin sinh square
    tan tanh trunc arctan erf sigmoid argmax argmin max min sum mean prod sort argsort all any
    tril triu zeros_like ones_like contiguous cumsum nonzero
""".split()
POSITIVE = ["log", "log1p", "sqrt"]
INSIDE_ONE = ["arcsin", "arccos", "erfinv"]
BINARY = """
    maximum minimum power logaddexp logical_and logical_or logical_xor arctan2 fmod remainder matmul
""".split()
INTEGER_WORDS = """
    abs sign square sum prod cumsum max min argmax argmin sort argsort all any tril triu logical_not
    zeros_like ones_like contiguous nonzero mean exp sqrt isnan
""".split()
INTEGER_PAIRS = "maximum minimum logical_and logical_or logical_xor fmod matmul".split()
CALLS: dict[str, Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "arange": lambda x: ((2, 11, 3), {}),
    "astype": lambda x: ((x, np.float32), {}),
    "broadcast_to": lambda x: ((x[:1], (5, 4)), {}),
    "clip": lambda x: ((x, -1, 1), {}),
    "concatenate": lambda x: (((x, x[:1]),), {"axis": 0}),
    "einsum": lambda x: (("ij,kj->ik", x, x), {}),
    "expand_dims": lambda x: ((x, 1), {}),
    "eye": lambda x: ((3, 4, 1), {"dtype": x.dtype}),
    "flip": lambda x: ((x, 0), {}),
    "full": lambda x: (((2, 3), 2), {"dtype": x.dtype}),
    "ones": lambda x: (((2, 3),), {"dtype": x.dtype}),
    "pad": lambda x: ((x, ((1, 0), (0, 2))), {"constant_values": 1}),
    "repeat": lambda x: ((x, 2), {"axis": 1}),
    "reshape": lambda x: ((x, (4, 3)), {}),
    "roll": lambda x: ((x, 1), {"axis": 0}),
    "squeeze": lambda x: ((x[:1],), {"axis": 0}),
    "stack": lambda x: (((x, x),), {"axis": 1}),
    "take_along_axis": lambda x: ((x, np.array([[0], [3], [1]]), 1), {}),
    "tile": lambda x: ((x, (2, 1)), {}),
    "transpose": lambda x: ((x, (1, 0)), {}),
    "where": lambda x: ((np.asarray(x > 0), x, x + x), {}),
    "zeros": lambda x: (((2, 3),), {"dtype": x.dtype}),
    "add_at": lambda x: (((5, 4), (np.array([1, 1, 4]),), x), {}),
    "add_along_axis": lambda x: (((3, 6), np.array([[0, 0, 5, 0]] * 3), x, 1), {}),
}


class TestVocabulary:
    def test_every_word_is_there_and_no_other(self) -> None:
        assert set(vars(GPU.xp)) == VOCABULARY

    def test_every_word_is_compared_below(self) -> None:
        compared = {*UNARY, *POSITIVE, *INSIDE_ONE, *BINARY, *CALLS}
        assert compared == VOCABULARY

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("word", UNARY)
    def test_of_one_array(self, word: str, dtype: str) -> None:
        assert_same(word, sample(dtype_named(dtype), 3, 4))

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("word", POSITIVE + INSIDE_ONE)
    def test_on_its_domain(self, word: str, dtype: str) -> None:
        high = 0.9 if word in INSIDE_ONE else 9
        assert_same(word, sample(dtype_named(dtype), 3, 4, low=0.1, high=high))

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("word", BINARY)
    def test_of_two_arrays(self, word: str, dtype: str) -> None:
        x = sample(dtype_named(dtype), 4, 4, low=0.5 if word == "power" else -3)
        assert_same(word, x, x[:, ::-1] if word == "matmul" else x.T)

    @pytest.mark.parametrize("dtype", INTEGERS)
    @pytest.mark.parametrize("word", INTEGER_WORDS)
    def test_of_integers(self, word: str, dtype: str) -> None:
        x = sample(np.dtype(dtype), 3, 4)
        assert_same(word, x, **({"kind": "stable"} if word == "argsort" else {}))

    @pytest.mark.parametrize("dtype", INTEGERS)
    @pytest.mark.parametrize("word", INTEGER_PAIRS)
    def test_of_pairs_of_integers(self, word: str, dtype: str) -> None:
        x = sample(np.dtype(dtype), 3, 3)
        assert_same(word, x, np.where(x.T == 0, np.ones_like(x), x.T))

    @pytest.mark.parametrize(
        "word", ["sum", "all", "any", "max", "argmax", "cumsum", "logical_not"]
    )
    def test_of_booleans(self, word: str) -> None:
        assert_same(word, sample(np.dtype(bool), 3, 4))

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("word", CALLS)
    def test_with_more_arguments(self, word: str, dtype: str) -> None:
        args, kwargs = CALLS[word](sample(dtype_named(dtype), 3, 4))
        assert_same(word, *args, **kwargs)

    @pytest.mark.parametrize("axis", [0, -1, (0, 2), (0, 1, 2), None])
    @pytest.mark.parametrize("word", ["sum", "mean", "prod", "max", "min", "all", "any"])
    def test_reductions_over_axes(self, word: str, axis: Any) -> None:
        x = sample(np.dtype(np.float32), 2, 3, 4)
        assert_same(word, x, axis=axis)
        assert_same(word, x, axis=axis, keepdims=True)

    def test_dtypes_asked_for(self) -> None:
        x = sample(np.dtype(np.float16), 3, 4)
        for word in ("sum", "mean", "prod", "cumsum"):
            assert_same(word, x, dtype=np.float64)
        assert_same("zeros_like", x, dtype=np.int64)

    def test_arrays_without_axes_stay_so(self) -> None:
        for word in ("contiguous", "exp", "sum", "reshape"):
            assert_same(word, np.array(1.5, np.float32), *([()] if word == "reshape" else []))

    def test_shapes_under_their_name(self) -> None:
        assert_same("reshape", sample(np.dtype(np.float32), 3, 4), shape=(-1, 2))

    def test_limits_of_one_side(self) -> None:
        for dtype in (*FLOATS, "int32"):
            x = sample(dtype_named(dtype), 3, 4)
            assert_same("maximum", x, x * 0)
            low = GPU.xp.clip(GPU.asarray(x), 0, None)
            np.testing.assert_array_equal(GPU.to_numpy(low), np.maximum(x, 0 * x))


class TestMeaning:
    """Where CuPy means something else than NumPy, and the adapter must not."""

    def test_remainders_by_infinity_and_of_large_quotients(self) -> None:
        a = np.array([5.0, -5.0, 5.0, -5.0, 1e17, 0.0])
        b = np.array([np.inf, np.inf, -np.inf, 3.0, 3.0, -2.0])
        result = GPU.to_numpy(GPU.xp.remainder(GPU.asarray(a), GPU.asarray(b)))
        np.testing.assert_array_equal(result, np.remainder(a, b))  # fmod is exact

    def test_remainders_of_numbers(self) -> None:
        x = np.arange(-4, 5)
        assert_same("remainder", x, 3)
        assert_same("remainder", x.astype(np.float32), -3.0)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_16_bits_are_added_in_32_and_rounded_once(self, dtype: str) -> None:
        half = dtype_named(dtype)
        x = GPU.asarray(np.full(4096, 1.0).astype(half))
        large = GPU.asarray(np.full((2, 64), 256.0).astype(half))
        signs = GPU.asarray(np.tile([1.0, -1.0], 32).astype(half))
        assert float(GPU.to_numpy(GPU.xp.sum(x))) == 4096  # in 16 bits it would stop at 2048 or 256
        assert float(GPU.to_numpy(GPU.xp.cumsum(x))[-1]) == 4096
        by_index = GPU.xp.add_at((1,), (GPU.asarray(np.zeros(4096, int)),), x)
        assert float(GPU.to_numpy(by_index)[0]) == 4096
        for product in (
            GPU.xp.matmul(large, GPU.xp.reshape(signs * 256, (64, 1))),
            GPU.xp.matmul(large[:1], GPU.xp.reshape(signs * 256, (64, 1))),
            GPU.xp.einsum("ij,j->i", large, signs * 256),
        ):
            # Every product is 65536, beyond float16; the sum is 0.
            assert product.dtype == half
            assert not GPU.to_numpy(product).astype(np.float64).any()

    @only_stand_in
    def test_cublas_may_not_add_what_is_rounded(self) -> None:
        cupy_standin.math_modes.clear()
        x = GPU.asarray(np.ones((2, 2), np.float16))
        GPU.xp.matmul(x, x)
        assert cupy_standin.math_modes == [(1, 16)]

    def test_sigmoid_is_right_in_relative_terms(self) -> None:
        for dtype in (np.float16, np.float32, np.float64):
            x = np.array([-80.0, -16.0, -12.0, 0.0, 12.0, 80.0], dtype)
            for backend in (CPU, GPU):
                y = backend.to_numpy(backend.xp.sigmoid(backend.asarray(x)))
                true = 1 / (1 + np.exp(-x.astype(np.longdouble)))
                # Two roundings of exp and one of the quotient; below, what float16 has left.
                eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).smallest_subnormal)
                np.testing.assert_allclose(y, true, rtol=3 * eps, atol=tiny)

    def test_nan_is_found_by_the_extremes(self) -> None:
        x = np.array([1.0, np.nan, 2.0], np.float32)
        for word in ("max", "min", "argmax", "argmin"):
            assert_same(word, x)
        assert_same("clip", x, 0, 1)
        assert_same("maximum", x, np.zeros(3, np.float32))

    @pytest.mark.parametrize(
        "index",
        [
            (1,),
            (slice(0, 2), 3),
            (Ellipsis, None, slice(None, None, 2)),
            (np.array([2, 2, 0]),),
            (slice(None), np.array([1, 1])),
            (np.array([[0], [2]]), np.array([3, 3])),
            (np.array([True, False, True]),),
        ],
    )
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_addition_at_any_index(self, index: Any, dtype: str) -> None:
        zeros = np.zeros((3, 4))
        values = sample(dtype_named(dtype), *zeros[index].shape)
        assert_same("add_at", (3, 4), index, values)


class TestMemory:
    def test_from_anything(self) -> None:
        values: list[Any] = [1, 2.5, True, [1, 2], [[1.0], [2.0]], np.arange(3), np.float32(2)]
        for value in (*values, range(3)):
            array = GPU.asarray(value)
            assert isinstance(array, NATIVE)
            assert array.dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(GPU.to_numpy(array), value)

    def test_dtypes(self) -> None:
        for dtype in (*FLOATS, *INTEGERS, "bool"):
            array = GPU.asarray([0, 1, 1], dtype_named(dtype))
            assert array.dtype == dtype_named(dtype)
            assert GPU.asarray(array, np.float32).dtype == np.float32
        assert GPU.asarray(np.arange(3, dtype=">f4")).dtype == np.float32

    def test_what_is_there_stays_there(self) -> None:
        array = GPU.asarray([1.0, 2.0])
        assert GPU.asarray(array) is array
        assert not GPU.overlap(GPU.copy(array), array)
        assert GPU.overlap(array[1:], array)
        assert not GPU.overlap(array[1:], array[:1])

    @pytest.mark.parametrize("value", [[[1], [1, 2]], "text", [object()], {"a": 1}, 1j])
    def test_what_is_no_array(self, value: Any) -> None:
        with pytest.raises(DtypeError):
            GPU.asarray(value)

    @pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="has no longer float")
    def test_dtypes_that_cuda_has_not(self) -> None:
        with pytest.raises(DtypeError, match="expected a dtype that CUDA has"):
            GPU.asarray(np.ones(2, np.longdouble))

    def test_copies_are_in_order(self) -> None:
        x = GPU.asarray(np.arange(6.0).reshape(2, 3))
        for array in (GPU.copy(x.T), GPU.xp.contiguous(x.T)):
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(GPU.to_numpy(array), np.arange(6.0).reshape(2, 3).T)
        assert GPU.xp.contiguous(x) is x

    def test_to_numpy_is_a_copy(self) -> None:
        x = GPU.asarray([1.0, 2.0])
        GPU.to_numpy(x)[0] = 5
        np.testing.assert_array_equal(GPU.to_numpy(x), [1, 2])

    def test_accumulators_are_wide(self) -> None:
        for dtype in FLOATS:
            assert GPU.accumulator(dtype_named(dtype)) == CPU.accumulator(dtype_named(dtype))


class TestStore:
    @pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
    def test_casts_and_broadcasts(self, dtype: str) -> None:
        for value in (np.array([1.5, 0.0, 2.5]), np.array(2.0, np.float32), np.ones((2, 1), int)):
            want = np.zeros((2, 3), dtype_named(dtype))
            target = GPU.asarray(want)
            GPU.store(target, GPU.asarray(value))
            CPU.store(want, value)
            np.testing.assert_array_equal(GPU.to_numpy(target), want)

    def test_goes_through_views(self) -> None:
        x = GPU.asarray(np.zeros((2, 3)))
        GPU.store(x[:, 1], GPU.asarray([1.0, 2.0]))
        np.testing.assert_array_equal(GPU.to_numpy(x), [[0, 1, 0], [0, 2, 0]])

    def test_from_itself_shifted(self) -> None:
        x = GPU.asarray(np.arange(5.0))
        GPU.store(x[1:], x[:-1])
        np.testing.assert_array_equal(GPU.to_numpy(x), [0, 0, 1, 2, 3])

    def test_a_shape_that_does_not_fit(self) -> None:
        x = GPU.asarray(np.zeros((2, 3)))
        with pytest.raises(ValueError):
            GPU.store(x, GPU.asarray(np.ones(2)))

    def test_arrays_of_numpy_are_refused(self) -> None:
        x = GPU.asarray(np.zeros(3))
        with pytest.raises((TypeError, ValueError)):
            GPU.store(x, np.ones(3))


@only_stand_in
class TestDevices:
    """There are two devices in the stand-in; the first is current."""

    def test_every_device_has_its_backend(self) -> None:
        second = get_backend("cupy", 1)
        assert (GPU.device, second.device) == ("cuda:0", "cuda:1")
        assert second.asarray([1.0]).device.id == 1
        assert get_backend("cupy", 1) is second

    def test_methods_bring_their_device_along(self) -> None:
        second = get_backend("cupy", 1)
        x = second.asarray(np.arange(3.0))
        y = second.copy(x)
        second.store(y[:2], second.asarray([5.0, 6.0]))
        second.synchronize()
        assert y.device.id == 1
        np.testing.assert_array_equal(second.to_numpy(y), [5, 6, 2])

    def test_operations_need_the_guard(self) -> None:
        second = get_backend("cupy", 1)
        x = second.asarray(np.arange(3.0))
        with pytest.raises(ValueError, match="different from the current device"):
            second.xp.exp(x)
        with second.guard:  # type: ignore[union-attr]
            assert second.xp.exp(x).device.id == 1

    def test_the_guard_nests(self) -> None:
        runtime = sys.modules["cupy"].cuda.runtime
        first, second = GPU.guard, get_backend("cupy", 1).guard
        assert first is not None
        assert second is not None
        with second:
            with first, second, second:
                assert runtime.getDevice() == 1
            assert runtime.getDevice() == 1
        assert runtime.getDevice() == 0

    def test_the_guard_comes_back_after_an_error(self) -> None:
        guard: Any = get_backend("cupy", 1).guard
        with pytest.raises(KeyError), guard:
            raise KeyError
        assert sys.modules["cupy"].cuda.runtime.getDevice() == 0

    def test_threads_share_a_guard(self) -> None:
        runtime = sys.modules["cupy"].cuda.runtime
        guard: Any = get_backend("cupy", 1).guard
        inside, leave = threading.Barrier(2), threading.Event()
        after = []

        def work() -> None:
            runtime.setDevice(1)  # this thread was on the guarded device already
            inside.wait(10)
            with guard:
                leave.wait(10)
            after.append(runtime.getDevice())

        thread = threading.Thread(target=work)
        with guard:
            thread.start()
            inside.wait(10)
            leave.set()
            thread.join(10)
        assert (runtime.getDevice(), after) == (0, [1])

    def test_arrays_of_another_device_are_refused(self) -> None:
        second = get_backend("cupy", 1)
        x, y = GPU.asarray([1.0]), second.asarray([1.0])
        with pytest.raises(BackendError, match="expected an array on cuda:1, got one on cuda:0"):
            second.asarray(x)
        for target, value in ((x, y), (y, x)):
            with pytest.raises(BackendError, match="expected an array on cuda:0"):
                GPU.store(target, value)
        np.testing.assert_array_equal(GPU.to_numpy(x), [1])


class TestErrors:
    def test_cupy_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapter, "cupy", None)
        with pytest.raises(BackendError, match=r"not installed.*tinygrad-bn\[cuda13\]"):
            adapter.backend(0)
        assert adapter.device_count() == 0
        assert not adapter.is_available()
        assert adapter.describe()["cupy"] is None

    @only_stand_in
    @pytest.mark.parametrize(
        ("machine", "message"),
        [
            ({"devices": 0}, "expected an NVIDIA GPU, found none"),
            ({"status": 100}, "expected an NVIDIA GPU, found none"),
            ({"status": 35, "driver": 0}, "found no driver"),
            ({"status": 35, "driver": 12040}, r"driver for CUDA 13\.2, got one for CUDA 12\.4"),
            ({"status": 999}, "CUDA does not start: cudaError 999"),
        ],
    )
    def test_there_is_no_device(self, machine: dict[str, int], message: str) -> None:
        with cupy_standin.other_machine(**machine):
            with pytest.raises(BackendError, match=message):
                adapter.backend(0)
            assert adapter.device_count() == 0
            assert not adapter.is_available()
            found = adapter.describe()
        assert found["devices"] == []
        assert found["problem"]

    def test_the_device_does_not_exist(self) -> None:
        count = adapter.device_count()
        for index in (count, -1):
            with pytest.raises(BackendError, match=rf"CUDA device.*got cuda:{index}"):
                adapter.backend(index)
        with (
            cupy_standin.other_machine(devices=1),
            pytest.raises(BackendError, match="the only CUDA device is cuda:0, got cuda:7"),
        ):
            adapter.backend(7)

    def test_what_is_there_is_described(self) -> None:
        found = adapter.describe()
        assert found["problem"] is None
        assert len(found["devices"]) == adapter.device_count() > 0
        assert adapter.is_available()
        assert found["devices"][0]["device"] == "cuda:0"
        assert found["devices"][0]["memory"] > 0
        assert all("." in found[key] for key in ("cupy", "driver", "runtime"))


class TestAgainstTheRealCupy:
    """Every call the adapter makes, against the names and signatures recorded from CuPy."""

    calls = [
        node
        for node in ast.walk(ast.parse(Path(adapter.__file__).read_text()))
        if isinstance(node, ast.Call)
    ]

    def test_names_and_arguments(self) -> None:
        tables = {"cupy": "signatures", "cupyx": "cupyx_signatures", "cupy.cuda.runtime": "runtime"}
        seen = 0
        for call in self.calls:
            owner, _, name = ast.unparse(call.func).rpartition(".")
            table = tables.get(owner)
            if table is None or (table == "runtime" and name not in API[table]):
                continue
            seen += 1
            arity = len(call.args)
            if name in API["ufuncs"] and name not in API[table]:
                loop = API["ufuncs"][name].split()[0]
                assert (arity, call.keywords) == (len(loop.split("->")[0]), []), name
            elif name == "matmul":  # a generalized ufunc; two arrays
                assert (arity, call.keywords) == (2, [])
            elif not any(isinstance(x, ast.Starred) for x in call.args):
                keywords = {str(k.arg): None for k in call.keywords}
                signature(name, table).bind(*call.args, **keywords)
        assert seen > 10  # it did find them

    def test_words_taken_as_they_are(self) -> None:
        own = inspect.getsource(adapter)
        for word in VOCABULARY:
            assert word in names("cupy") or f'"{word}": ' in own, word

    def test_methods(self) -> None:
        arrays = {"a", "b", "array", "value", "cupy.arange(n)"}
        seen = set()
        for call in self.calls:
            owner, _, name = ast.unparse(call.func).rpartition(".")
            if owner in arrays:
                seen.add(name)
                keywords = {str(k.arg): None for k in call.keywords}
                signature(name, "methods").bind("self", *call.args, **keywords)
        assert seen == {"astype", "copy", "get", "reshape"}
