"""Every word of the vocabulary means on CuPy what it means on NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.two_backends import (
    CPU,
    FLOATS,
    GPU,
    INTEGERS,
    assert_same,
    dtype_named,
    sample,
)
from tinygrad_bn.backend import VOCABULARY

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
