"""Einstein summation on the GPU is products of matrices, and is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cublaslt.arrays import assert_near, drawn, fresh_products, wide
from tests.cupy_standin import cublaslt as stand_in
from tests.two_backends import FLOATS, GPU, dtype_named, only_stand_in

SIZES = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 5}


def operands(terms: list[str], dtype: str = "float64") -> list[Any]:
    return [drawn(*(SIZES[c] for c in t), dtype=dtype, seed=i) for i, t in enumerate(terms)]


def assert_right(equation: str, dtype: str = "float64") -> None:
    arrays = operands(equation.partition("->")[0].split(","), dtype)
    expected = np.einsum(equation, *map(wide, arrays))
    result = GPU.xp.einsum(equation, *map(GPU.asarray, arrays))
    assert result.dtype == dtype_named(dtype)
    summed = set(equation.partition("->")[0]) - set(equation.partition("->")[2]) - {","}
    terms = int(np.prod([SIZES[c] for c in summed]))  # how many products there are in a sum
    assert_near(result, expected, max(terms, 2))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "equation",
    [
        "ab,bc->ac", "ab,bc->ca", "ba,bc->ac", "ab,cb->ac", "abc,abe->ace", "abc,acb->a",
        "abc,cb->a", "abc,bac->", "a,a->", "a,b->ab", "a,b->ba", "ab,ab->ab", "ab,ba->ab",
        "ab,b->ab", "abc,d->abc", "ab,->ab", ",->", "ab,bc->b", "ab,c->", "abc,cde->",
        "eab,ebc->ac", "ab,bc,ce->ae", "ab,ae,ac->bce", "a,b,c->abc", "ab,cd,bc->ad",
        "ab,ab,ab->a", "ab,b,->a",
    ],
)  # fmt: skip
def test_equations(equation: str, dtype: str) -> None:
    assert_right(equation, dtype)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_equation(data: st.DataObject) -> None:
    term = st.lists(st.sampled_from(sorted(SIZES)), unique=True, max_size=4).map("".join)
    terms = data.draw(st.lists(term, min_size=2, max_size=4))
    labels = sorted(set("".join(terms)))
    chosen = data.draw(st.lists(st.sampled_from(labels), unique=True)) if labels else []
    assert_right(f"{','.join(terms)}->{''.join(chosen)}")


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("ii->i", [(3, 3)]), ("ij->ji", [(2, 3)]), ("ij,jk", [(2, 3), (3, 4)]),
     ("...i,ij->...j", [(2, 2, 3), (3, 4)]), ("ii,i->i", [(3, 3), (3,)])],
)  # fmt: skip
def test_what_stays_with_cupy(equation: str, shapes: Any) -> None:
    for dtype in ("float32", "float16", "int64"):
        arrays = [(8 * drawn(*shape)).astype(dtype) for shape in shapes]
        expected = np.einsum(equation, *map(wide, arrays))
        result = GPU.xp.einsum(equation, *map(GPU.asarray, arrays))
        assert result.dtype == dtype
        np.testing.assert_allclose(wide(GPU.to_numpy(result)), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_once(dtype: str) -> None:
    # each product is 65536, which float16 has not, and bfloat16 could not add 1 to
    large, one = np.full((2, 3), 256.0), np.array([1.0, -1.0, 2.0**-16])
    arrays = [GPU.asarray(x.astype(dtype_named(dtype))) for x in (large, large, one)]
    result = GPU.xp.einsum("ij,ij,j->i", *arrays)
    np.testing.assert_array_equal(wide(GPU.to_numpy(result)), 1)
    sums = GPU.xp.einsum("ij,kj->k", arrays[0], arrays[2][None])
    np.testing.assert_array_equal(wide(GPU.to_numpy(sums)), 512 * 2**-16)


@only_stand_in
@pytest.mark.parametrize(
    ("equation", "products"),
    [("ab,bc->ac", 1), ("abc,ace->abe", 1), ("ab,bc,ce->ae", 2), ("ab,ab->ab", 0), ("a,b->ab", 0)],
)
def test_what_is_a_product_is_one_call(equation: str, products: int) -> None:
    terms = equation.partition("->")[0].split(",")
    for dtype in ("float32", "float16"):
        arrays = [GPU.asarray(x) for x in operands(terms, dtype)]
        with fresh_products() as known, stand_in.count_calls() as calls:
            GPU.xp.einsum(equation, *arrays)
            # two operands go as they are, to the tensor cores of 16-bit floats; more in float32
            computed = {key[1].name for key in known.plans}
        assert calls["Matmul"] == products
        assert computed <= {dtype if len(terms) == 2 else "float32"}


@only_stand_in
@pytest.mark.parametrize("equation", ["xa,ab,bc->xc", "ab,bc,xa->xc"])
def test_the_pair_that_leaves_least_goes_first(equation: str) -> None:
    row, square = GPU.asarray(drawn(1, 9)), GPU.asarray(drawn(9, 9))
    arrays = [row if term[0] == "x" else square for term in equation.partition("->")[0].split(",")]
    with fresh_products() as known:
        result = GPU.xp.einsum(equation, *arrays)
        planned = [key[0] for key in known.plans]
    assert planned
    assert all(1 in (p.m, p.n) for p in planned)  # no square by a square
    assert_near(result, wide(drawn(1, 9)) @ wide(drawn(9, 9)) @ wide(drawn(9, 9)), 81)
