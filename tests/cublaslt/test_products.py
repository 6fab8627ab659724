"""Products by cuBLASLt: values against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cublaslt.words import (  # type: ignore
    LARGEST_BATCH,
    matmul,
    product,
    product_and_sum,
)

import tinygrad_bn as tg
from tests import cupy_standin
from tests.cublaslt.arrays import BGRADA, BIAS, RELU, assert_near, drawn, fresh_products, wide
from tests.cupy_standin import cublaslt as stand_in
from tests.two_backends import FLOATS, GPU, dtype_named, only_stand_in
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError


class TestValues:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("m", [1, 2, 33])
    @pytest.mark.parametrize("k", [1, 3, 64])
    @pytest.mark.parametrize("n", [1, 5, 32])
    def test_sizes(self, m: int, k: int, n: int, dtype: str) -> None:
        a, b = drawn(m, k, dtype=dtype), drawn(k, n, dtype=dtype, seed=1)
        assert_near(matmul(GPU.asarray(a), GPU.asarray(b)), wide(a) @ wide(b), k)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("left", ["rows", "columns", "cut", "strided"])
    @pytest.mark.parametrize("right", ["rows", "columns", "cut", "strided"])
    def test_operands_as_they_lie(self, left: str, right: str, dtype: str) -> None:
        def placed(x: Any, way: str) -> Any:
            rows, columns = x.shape
            if way == "columns":
                return GPU.asarray(x.T.copy()).T
            if way == "rows":
                return GPU.asarray(x)
            room = np.full((rows + 2, 2 * columns + 3), np.nan, x.dtype)
            at = np.s_[1:-1, 1 : columns + 1] if way == "cut" else np.s_[1:-1, 1:-2:2]
            room[at] = x
            return GPU.asarray(room)[at]

        a, b = drawn(7, 5, dtype=dtype), drawn(5, 6, dtype=dtype, seed=1)
        assert_near(matmul(placed(a, left), placed(b, right)), wide(a) @ wide(b), 5)

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ((3, 4, 5), (3, 5, 2)),
            ((3, 4, 5), (5, 2)),
            ((4, 5), (3, 5, 2)),
            ((2, 1, 4, 5), (3, 5, 2)),
            ((2, 3, 4, 5), (1, 3, 5, 2)),
            ((1, 1, 4, 5), (2, 3, 5, 2)),
            ((5,), (5,)),
            ((5,), (5, 2)),
            ((4, 5), (5,)),
            ((5,), (3, 5, 2)),
            ((2, 3, 4, 5), (5,)),
        ],
    )
    def test_stacks_and_vectors(self, left: Any, right: Any) -> None:
        for dtype in FLOATS:
            a, b = drawn(*left, dtype=dtype), drawn(*right, dtype=dtype, seed=1)
            assert_near(matmul(GPU.asarray(a), GPU.asarray(b)), np.matmul(wide(a), wide(b)), 5)

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ((0, 3), (3, 2)),
            ((2, 3), (3, 0)),
            ((2, 0), (0, 3)),
            ((0, 2, 3), (3, 2)),
            ((0, 2, 0), (0, 0, 3)),
            ((0,), (0,)),
        ],
    )
    def test_nothing(self, left: Any, right: Any) -> None:
        for dtype in FLOATS:
            a, b = drawn(*left, dtype=dtype), drawn(*right, dtype=dtype)
            assert_near(matmul(GPU.asarray(a), GPU.asarray(b)), np.matmul(wide(a), wide(b)), 0)

    def test_two_dtypes(self) -> None:
        a, b = drawn(4, 5, dtype="float32"), drawn(5, 2, dtype="float64")
        result = matmul(GPU.asarray(a), GPU.asarray(b))
        assert result.dtype == np.float64
        assert_near(result, wide(a) @ b, 5)
        whole = np.arange(10).reshape(5, 2)
        assert_near(matmul(GPU.asarray(b.T), GPU.asarray(whole)), b.T @ whole, 50)

    def test_numbers_that_are_none(self) -> None:
        a = np.array([[np.nan, 0], [np.inf, 1], [1, 2]], np.float32)
        result = GPU.to_numpy(matmul(GPU.asarray(a), GPU.asarray(np.eye(2, dtype=np.float32))))
        np.testing.assert_array_equal(result, [[np.nan, np.nan], [np.inf, np.nan], [1, 2]])

    def test_more_matrices_than_one_call_takes(self) -> None:
        count = LARGEST_BATCH + 3
        a, b = drawn(count, 1, 2), drawn(count, 2, 1, seed=1)
        bias = drawn(1, seed=2)
        result = product(GPU.asarray(a), GPU.asarray(b), bias=GPU.asarray(bias))
        assert_near(result, wide(a) @ wide(b) + bias, 2)
        assert_near(matmul(GPU.asarray(a[0]), GPU.asarray(b)), wide(a[0]) @ wide(b), 2)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_16_bits_are_rounded_once(self, dtype: str) -> None:
        large = 2048 if dtype == "float16" else 256  # from where on 16 bits have no odd numbers
        a = np.array([[large, 1, -large, 0]], dtype_named(dtype))
        b = GPU.asarray(np.ones((4, 1), a.dtype))
        # 1 is lost where sums are rounded on the way, also if only those of its halves are
        assert float(wide(GPU.to_numpy(matmul(GPU.asarray(a), b)))[0, 0]) == 1


class TestEnds:
    a, b, bias = drawn(6, 5), drawn(5, 4, seed=1), drawn(4, seed=2)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize(
        "refused", [(), (BIAS, RELU)], ids=["at once", "by kernels of its own"]
    )
    def test_bias_and_relu(self, dtype: str, refused: tuple[int, ...]) -> None:
        a, b, bias = (x.astype(dtype_named(dtype)) for x in (self.a, self.b, self.bias))
        plain = wide(a) @ wide(b)
        arrays = GPU.asarray(a), GPU.asarray(b)
        if refused and not cupy_standin.is_installed():
            pytest.skip("a real cuBLASLt refuses nothing on request")
        with fresh_products(), stand_in.refusing(*refused) if refused else fresh_products():
            given = GPU.asarray(bias)
            assert_near(product(*arrays, bias=given), plain + wide(bias), 6)
            assert_near(product(*arrays, relu=True), np.maximum(plain, 0), 6)
            both = product(*arrays, bias=given, relu=True)
            assert_near(both, np.maximum(plain + wide(bias), 0), 6)

    def test_bias_of_stacks(self) -> None:
        for left, right in (((3, 6, 5), (5, 4)), ((3, 6, 5), (3, 5, 4)), ((6, 5), (3, 5, 4))):
            a, b = drawn(*left), drawn(*right, seed=1)
            result = product(GPU.asarray(a), GPU.asarray(b), bias=GPU.asarray(self.bias))
            assert_near(result, wide(a) @ wide(b) + self.bias, 6)

    def test_a_bias_with_gaps(self) -> None:
        bias = GPU.asarray(np.repeat(self.bias, 2))[::2]
        result = product(GPU.asarray(self.a), GPU.asarray(self.b), bias=bias)
        assert_near(result, wide(self.a) @ wide(self.b) + self.bias, 6)

    def test_into_memory_that_is_there(self) -> None:
        plain = wide(self.a) @ wide(self.b)
        arrays = GPU.asarray(self.a), GPU.asarray(self.b)
        for alpha, beta in ((1, 0), (2, 0), (1, 1), (-0.5, 0.25)):
            before = drawn(6, 4, seed=3)
            out = GPU.asarray(before if beta else np.full_like(before, np.nan))
            result = product(*arrays, out=out, alpha=alpha, beta=beta, bias=GPU.asarray(self.bias))
            assert result is out
            assert_near(out, alpha * plain + beta * wide(before) + self.bias, 7)

    def test_nothing_plus_a_bias(self) -> None:
        a, b, out = np.ones((2, 0), "f4"), np.ones((0, 4), "f4"), drawn(2, 4)
        arrays, bias = (GPU.asarray(a), GPU.asarray(b)), GPU.asarray(self.bias)
        assert_near(product(*arrays, bias=bias), np.tile(self.bias, (2, 1)), 0)
        result = product(*arrays, bias=bias, relu=True, out=GPU.asarray(out), beta=2)
        assert_near(result, np.maximum(2 * wide(out) + self.bias, 0), 4)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("refused", [(), (BGRADA,)], ids=["at once", "by a kernel of its own"])
    @pytest.mark.parametrize("shape", [(5, 6, 4), (1, 6, 4), (5, 1, 1), (3, 0, 2), (0, 6, 2)])
    def test_the_sum_of_an_operand(self, shape: Any, dtype: str, refused: Any) -> None:
        m, k, n = shape
        if refused and not cupy_standin.is_installed():
            pytest.skip("a real cuBLASLt refuses nothing on request")
        dy, x = drawn(k, m, dtype=dtype), drawn(k, n, dtype=dtype, seed=1)
        with fresh_products(), stand_in.refusing(*refused) if refused else fresh_products():
            dweight, dbias = product_and_sum(GPU.asarray(x).T, GPU.asarray(dy))
        assert_near(dweight, wide(x).T @ wide(dy), k)
        assert_near(dbias, wide(dy).sum(axis=0), k)

    @only_stand_in
    def test_one_call_does_it_all(self) -> None:
        arrays, bias = (GPU.asarray(self.a), GPU.asarray(self.b)), GPU.asarray(self.bias)
        with fresh_products() as known, stand_in.count_calls() as calls:
            product(*arrays, bias=bias, relu=True)
            product_and_sum(*arrays)
            assert None not in known.plans.values()
        assert (calls["MatmulAlgoGetHeuristic"], calls["Matmul"]) == (2, 2)

    def test_what_does_not_fit(self) -> None:
        a, b = GPU.asarray(self.a), GPU.asarray(self.b)
        double = GPU.asarray(np.ones((5, 4)))
        for options, error in (
            ({"bias": GPU.asarray(np.ones(5, "f4"))}, ShapeError),
            ({"bias": GPU.asarray(np.ones(4))}, DtypeError),
            ({"out": GPU.asarray(np.ones((4, 6), "f4"))}, ShapeError),
            ({"out": GPU.asarray(np.ones((4, 6), "f4")).T}, ShapeError),
            ({"out": GPU.asarray(np.ones((6, 4)))}, DtypeError),
        ):
            with pytest.raises(error, match=r"expected (bias|out) of"):
                product(a, b, **options)
        with pytest.raises(DtypeError, match="expected operands of one floating dtype"):
            product(a, double)
        with pytest.raises(ShapeError, match="ranks of at least 1"):
            matmul(a, GPU.asarray(np.float32(1)))


class TestTensorFloats:
    def test_are_used_only_when_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = tg.backends.cuda.matmul
        assert settings.allow_tf32 is False
        # 1 + 2⁻¹² needs 12 bits after the point; TensorFloat-32 has 10.
        a = GPU.asarray(np.full((16, 16), 1 + 2**-12, np.float32))
        one = GPU.asarray(np.eye(16, dtype=np.float32))
        np.testing.assert_array_equal(GPU.to_numpy(matmul(a, one)), GPU.to_numpy(a))
        monkeypatch.setattr(settings, "allow_tf32", True)
        rounded = GPU.to_numpy(matmul(a, one))
        np.testing.assert_allclose(rounded, 1, rtol=2**-10)  # 10 bits, rounded or cut
        if cupy_standin.is_installed():  # of real GPUs, those before Ampere have none
            np.testing.assert_array_equal(rounded, 1)
        double = GPU.asarray(np.full((16, 16), 1 + 2**-12))
        np.testing.assert_array_equal(GPU.to_numpy(matmul(double, one)), GPU.to_numpy(double))

    def test_must_be_said_clearly(self) -> None:
        for value in (1, None, "yes"):
            with pytest.raises(ArgumentError, match="expected allow_tf32 to be True or False"):
                tg.backends.cuda.matmul.allow_tf32 = value
        assert not tg.backends.cuda.matmul.allow_tf32
