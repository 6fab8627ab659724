"""What BLAS is told of operands, against what NumPy finds at the places it is told of."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from tinygrad_bn.backends.cublaslt.layouts import Operand, Product, product_of  # type: ignore

from tinygrad_bn.errors import ShapeError


def described(a: Any, b: Any) -> Product:
    return product_of(a.shape, a.strides, b.shape, b.strides, a.itemsize)


def read(x: Any, operand: Operand, batch: int, rows: int, columns: int) -> Any:
    """The matrices that BLAS would read from the first element of ``x`` on."""
    down, across = (1, operand.ld) if operand.transposed else (operand.ld, 1)
    strides = [n * x.itemsize for n in (operand.step, down, across)]
    return as_strided(x, (batch, rows, columns), strides)


def copied(x: Any, operand: Operand | tuple[int, ...]) -> Any:
    return x if isinstance(operand, Operand) else np.broadcast_to(x, operand).copy()


def assert_right(a: Any, b: Any) -> None:
    """After the copies it asks for, the product of what is read is a @ b, bit for bit."""
    first = described(a, b)
    a2, b2 = copied(a, first.a), copied(b, first.b)
    p = described(a2, b2)
    assert isinstance(p.a, Operand)
    assert isinstance(p.b, Operand)
    left, right = read(a2, p.a, p.batch, p.m, p.k), read(b2, p.b, p.batch, p.k, p.n)
    for operand, rows, columns in ((p.a, p.m, p.k), (p.b, p.k, p.n)):
        assert operand.ld >= (rows if operand.transposed else columns)
        assert operand.step >= 0
    expected = a @ b
    assert p.shape == expected.shape
    np.testing.assert_array_equal((left @ right).reshape(p.shape), expected)


@st.composite
def views(draw: Any, batch: tuple[int, ...], rows: int, columns: int) -> Any:
    """Whole numbers of a shape, some of whose leading axes have size 1 or are missing, as an array
    may lie in memory: axes in any order, padded, reversed, repeated.
    """
    missing = draw(st.integers(0, len(batch)))
    leading = [draw(st.sampled_from([n, 1])) for n in batch[missing:]]
    shape = (*leading, rows, columns)
    order = draw(st.permutations(range(len(shape))))
    ways = [
        draw(st.sampled_from(["close", "close", "padded", "reversed", "repeated"])) for _ in shape
    ]
    sizes = [n if w != "padded" else n + 2 for n, w in zip(shape, ways, strict=True)]
    values = np.arange(1, prod(sizes) + 1, dtype=np.float64) % 7 - 3
    x = values.reshape([sizes[i] for i in order]).transpose(np.argsort(order))
    for axis, (way, n) in enumerate(zip(ways, shape, strict=True)):
        index: list[Any] = [slice(None)] * len(shape)
        index[axis] = slice(None, None, -1) if way == "reversed" else slice(0, n)
        x = x[tuple(index)]
        if way == "repeated":
            index[axis] = slice(0, 1)
            x = np.broadcast_to(x[tuple(index)], (*x.shape[:axis], n, *x.shape[axis + 1 :]))
    return x


@st.composite
def operands(draw: Any) -> tuple[Any, Any]:
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    return draw(views(batch, m, k)), draw(views(batch, k, n))


@settings(max_examples=50, deadline=None)
@given(operands())
def test_any_two_operands(pair: tuple[Any, Any]) -> None:
    assert_right(*pair)


X = np.arange(4.0 * 6 * 10).reshape(4, 6, 10) % 7


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (X[0], X[0].T),
        (X[0].T, X[0]),
        (X[0, :, 2:8], X[1, :, 3:9]),
        (X[0, 2:5, 1:4].T, X[1, 1:4]),
        (X[0, :1], X[0].T),
        (X[0, :, :1], X[0, :1]),
        (X[0, :, 3:4], X[1, 2:3]),
        (X, X.transpose(0, 2, 1)),
        (X.transpose(0, 2, 1), X),
        (X.transpose(1, 0, 2), X.transpose(1, 2, 0)),
        (X[:, None], X.transpose(0, 2, 1)[:, None]),
        (X[1:3, 2:, 1:], X[1:3, 2:, 1:].transpose(0, 2, 1)),
        (X[0], X.transpose(0, 2, 1)),
        (X.reshape(2, 2, 6, 10), X[0].T),
    ],
    ids=str,
)
def test_what_needs_no_copy(a: Any, b: Any) -> None:
    p = described(a, b)
    assert isinstance(p.a, Operand)
    assert isinstance(p.b, Operand)
    assert_right(a, b)


@pytest.mark.parametrize(
    ("a", "b", "copies"),
    [
        (X[0, ::-1], X[0].T, ((6, 10), None)),
        (X[0, :, ::2], X[0, :5], ((6, 5), None)),
        (np.broadcast_to(X[0, :1], (6, 10)), X[0].T, ((6, 10), None)),
        (X[::-1], X.transpose(0, 2, 1), ((4, 6, 10), None)),
        (X.reshape(2, 2, 6, 10).transpose(1, 0, 2, 3), X[0].T, ((2, 2, 6, 10), None)),
        # pairs of both: each repeats within the axes along which the other does not
        (X[:2, None], X[2:].transpose(0, 2, 1), ((2, 2, 6, 10), (2, 2, 10, 6))),
    ],
)
def test_what_is_copied(a: Any, b: Any, copies: Any) -> None:
    p = described(a, b)
    for operand, copy in zip((p.a, p.b), copies, strict=True):
        if copy is None:
            assert isinstance(operand, Operand)
        else:
            assert operand == copy
    assert_right(a, b)


def test_rows_of_a_stack_are_one_product() -> None:
    for a in (X, X[:, :, 2:], X[:, :1], X.reshape(2, 2, 6, 10), X[1:]):
        p = described(a, np.ones((a.shape[-1], 3)))
        assert (p.batch, p.m) == (1, prod(a.shape[:-1]))
    for a in (X[:, 1:], X.transpose(0, 2, 1), X.transpose(1, 0, 2)[:, :3]):  # with gaps between
        p = described(a, np.ones((a.shape[-1], 3)))
        assert (p.batch, p.m) == (a.shape[0], a.shape[1])


def test_shapes_that_do_not_fit() -> None:
    for a, b in (((2, 3), (2, 3)), ((2, 2, 3), (3, 3, 2)), ((2, 0), (1, 2))):
        with pytest.raises(ShapeError, match=r"expected \(\.\.\., n, k\) @ \(\.\.\., k, m\), got"):
            described(np.ones(a), np.ones(b))
