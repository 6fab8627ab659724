"""The kernels of pooling and interpolation against the reference bodies that define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops import max_pooling, mixing
from tinygrad_bn.ops.mixing import Table

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
several = settings(max_examples=50, deadline=None)


def kernel(name, *args):
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name, *args):
    point = getattr(mixing, name, None) or getattr(max_pooling, name)
    return point.reference(NUMPY, *args)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@st.composite
def tables(draw):
    """Rows of any places, none too, some twice."""
    size = draw(st.integers(1, 5))
    entry = st.tuples(st.integers(0, size - 1), st.sampled_from([1.0, 0.5, -2.0]))
    return Table(draw(st.lists(st.lists(entry, max_size=4).map(tuple), max_size=6)), size)


@several
@given(table=tables(), axis=st.integers(0, 2), selects=st.booleans())
def test_sums_by_a_table(table, axis, selects):
    if selects:
        table = Table([((place, 1.0),) for row in table.rows for place, _ in row], table.size)
    shape = [2, 3, 2]
    shape[axis] = table.size
    x = normal(*shape)
    found, expected = kernel("mixed", x, table, axis), reference("mixed", x, table, axis)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-14)  # four terms in the same order


@several
@given(table=tables())
def test_the_transposed_table_is_the_transposed_matrix(table):
    matrix = kernel("mixed", np.eye(table.size), table, 0)
    back = np.eye(len(table.rows))
    if back.size:
        np.testing.assert_allclose(kernel("mixed", back, table.transposed, 0), matrix.T)
    assert table.transposed.transposed is table


@st.composite
def windows(draw):
    """A size, and some windows along each of one to three axes."""
    size, spans = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 5))
        starts = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
        each = [range(s, draw(st.integers(s + 1, n)), draw(st.integers(1, 2))) for s in starts]
        size.append(n)
        spans.append(tuple(each))
    return tuple(size), tuple(spans)


@several
@given(given_=windows(), n=st.integers(1, 3), kind=st.sampled_from(["", "ties", "nan", "low"]))
def test_maxima(given_, n, kind):
    size, spans = given_
    x = normal(n, *size)
    if kind == "ties":
        x = x.round()
    elif kind == "nan":
        x[x > 0.5] = np.nan
    elif kind == "low":
        x[:] = -np.inf
    for found, expected in zip(
        kernel("maxima", x, spans), reference("maxima", x, spans), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_values_at_places_add_up():
    values = normal(3, 8)
    indices = np.random.default_rng(0).integers(0, 5, (3, 8))
    found = kernel("placed", values, indices, 5)
    np.testing.assert_allclose(found, reference("placed", values, indices, 5), atol=1e-14)


def test_what_goes_to_the_reference():
    table = Table([((0, 1.0),)], 3)
    for bad in (normal(2, 3).astype(np.float16), normal(0, 3), normal(3, 2).T):
        assert not NUMPY.kernels.get("mixed").accepts(bad, table, 1)
        assert not NUMPY.kernels.get("maxima").accepts(bad, ((range(3),),))
        assert not NUMPY.kernels.get("placed").accepts(bad, np.zeros((2, 3), int), 4)
    assert not NUMPY.kernels.get("placed").accepts(normal(2, 3), np.zeros((3, 2), int).T, 4)
