"""Threaded code calls the machine code that NumPy and compiled functions are: the bits must be
theirs, whatever the layout; and what has none must say so.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba")

from tinygrad_bn.backends.threaded_code import Code, machine_code  # noqa: E402

FAST = settings(max_examples=50, deadline=None)
SHAPES = st.lists(st.sampled_from([1, 2, 3, 7, 17, 64, 300]), min_size=1, max_size=3)


def values(shape, dtype, seed, layout="C"):
    x = (np.random.default_rng(seed).standard_normal(shape) * 10).astype(dtype)
    return np.asfortranarray(x) if layout == "F" else x


def ran(calls, out, inputs=()):
    assert calls is not None
    code = Code(calls, inputs)
    assert code.run(tuple(inputs)) == code.FINISHED
    return out.tobytes()


@FAST
@given(SHAPES, st.sampled_from(["f4", "f8"]), st.sampled_from(["C", "F"]), st.data())
def test_sums_are_numpys(shape, dtype, layout, data):
    x = values(shape, dtype, 0, layout)
    several = st.lists(st.integers(0, len(shape) - 1), unique=True).map(tuple)
    axis = data.draw(st.one_of(st.none(), st.integers(0, len(shape) - 1), several))
    wide = data.draw(st.sampled_from([dtype, "f8"]))
    expected = np.asarray(np.add.reduce(x, axis=axis, dtype=wide))
    out = np.full(expected.shape, np.nan, wide)
    calls = machine_code(
        partial(np.add.reduce, axis=axis, dtype=np.dtype(wide), out=out, keepdims=False), (x,)
    )
    if calls is None:  # over axes with others between them, or not as they lie in memory
        assert axis not in (None, tuple(range(len(shape))))
        assert axis != 0 or layout == "F" or wide != dtype
        return
    assert ran(calls, out) == expected.tobytes()


def test_sums_over_first_and_last_axes_are_numpys():
    """As of a bias over images."""
    x, out = values((5, 7, 6, 300), "f4", 0), np.empty(7, "f4")
    calls = machine_code(
        partial(np.add.reduce, axis=(0, 2, 3), dtype=None, out=out, keepdims=False), (x,)
    )
    assert ran(calls, out) == np.add.reduce(x, axis=(0, 2, 3)).tobytes()


def test_conversions_of_columns_are_numpys():
    x = values((5, 7), "f4", 0, "F")
    out = np.empty_like(x, dtype="f8")
    assert ran(machine_code(partial(np.copyto, casting="unsafe"), (out, x)), out) == (
        x.astype("f8").tobytes()
    )


@FAST
@given(
    SHAPES,
    st.sampled_from([np.add, np.subtract, np.multiply, np.true_divide, np.maximum, np.hypot]),
    st.sampled_from(["f4", "f8"]),
    st.sampled_from(["C", "F"]),
    st.data(),
)
def test_elementwise_operations_are_numpys(shape, ufunc, dtype, layout, data):
    x = values(shape, dtype, 1, layout)
    kept = [n if data.draw(st.booleans()) else 1 for n in shape]
    y = values(kept, dtype, 2)
    expected = ufunc(x, y)
    out = np.full_like(expected, np.nan)
    calls = machine_code(ufunc, (x, y, out))
    if calls is None:
        assert len(shape) == 3  # three axes that do not become two
        return
    assert ran(calls, out) == expected.tobytes()


@pytest.mark.parametrize("ufunc", [np.exp, np.log, np.tanh, np.sqrt, np.negative, np.isnan])
def test_functions_are_numpys(ufunc):
    x = np.abs(values((33, 7), "f4", 3)) + 0.1
    out = np.zeros_like(ufunc(x))
    assert ran(machine_code(ufunc, (x, out)), out) == ufunc(x).tobytes()


@FAST
@given(
    st.tuples(*[st.sampled_from([2, 3, 8, 17, 64])] * 3),
    st.sampled_from(["f4", "f8"]),
    st.sampled_from(["C", "F"]),
    st.sampled_from(["C", "F"]),
)
def test_products_are_numpys(sizes, dtype, left, right):
    m, k, n = sizes
    a, b = values((m, k), dtype, 4, left), values((k, n), dtype, 5, right)
    out = np.full((m, n), np.nan, dtype)
    calls = machine_code(np.matmul, (a, b, out))
    if calls is None:
        pytest.skip("NumPy brings another BLAS than its wheels'")
    assert ran(calls, out) == np.matmul(a, b).tobytes()


@FAST
@given(
    st.tuples(*[st.sampled_from([2, 3, 8, 17, 64, 300])] * 2),
    st.sampled_from(["f4", "f8"]),
    st.sampled_from(["C", "F"]),
    st.sampled_from([1, 3]),
    st.booleans(),
)
def test_products_with_vectors_are_numpys(sizes, dtype, order, apart, column):
    """A row times a matrix, or a matrix times a column, of neighbours in memory or not."""
    k, n = sizes
    a, b = values((1, k * apart), dtype, 4)[:, ::apart], values((k, n), dtype, 5, order)
    a, b = (b.T, a.T) if column else (a, b)
    out = np.full((a.shape[0], b.shape[1]), np.nan, dtype)
    calls = machine_code(np.matmul, (a, b, out))
    if calls is None:
        pytest.skip("NumPy brings another BLAS than its wheels'")
    assert ran(calls, out) == np.matmul(a, b).tobytes()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (values((1, 8), "f4", 6), values((8, 1), "f4", 7)),  # two vectors
        (values((1, 1), "f4", 6), values((1, 3), "f4", 7)),
        (values((1, 8), "f4", 6), values((16, 6), "f4", 7)[::2, ::2]),
        (values((3, 8), "f2", 6), values((8, 3), "f2", 7)),
        (values((16, 8), "f4", 6)[::2], values((8, 12), "f4", 7)[:, ::2]),  # no matrix of BLAS's
    ],
)
def test_other_products_are_left_to_numpy(a, b):
    assert machine_code(np.matmul, (a, b, a @ b)) is None


def test_a_matrix_times_its_transpose_is_left_to_numpy():
    a = values((5, 8), "f4", 8)
    assert machine_code(np.matmul, (a, a.T, a @ a.T)) is None


@pytest.mark.parametrize(
    "args",
    [
        (np.ones(3, "f4"), np.ones(3, "f8"), np.ones(3, "f8")),  # to be converted first
        (np.ones(3, "f4"), np.ones(3, bool), np.ones(3, "f4")),
        (np.ones(3, "f4"), 1 + 2j, np.ones(3, "f4")),
        (np.ones(3, ">f4"), np.ones(3, ">f4"), np.ones(3, ">f4")),
        (np.ones(0, "f4"), np.ones(0, "f4"), np.ones(0, "f4")),
        (np.frombuffer(bytes(13), "f4", 3, 1), np.ones(3, "f4"), np.ones(3, "f4")),  # misaligned
    ],
)
def test_what_numpy_would_convert_is_left_to_it(args):
    assert machine_code(np.add, args) is None


def test_numbers_take_on_the_dtype_of_arrays():
    x, out = values(9, "f4", 9), np.empty(9, "f4")
    assert ran(machine_code(np.multiply, (x, 0.1, out)), out) == (x * 0.1).tobytes()


@pytest.mark.parametrize(
    ("source", "target"), [("f4", "f8"), ("f8", "f4"), ("i8", "f4"), ("?", "f4")]
)
def test_conversions_are_numpys(source, target):
    x, out = (values(100, "f8", 10) * 1e3).astype(source), np.empty(100, target)
    assert (
        ran(machine_code(partial(np.copyto, casting="unsafe"), (out, x)), out)
        == x.astype(target).tobytes()
    )


def test_choices_are_numpys():
    x, y = values((4, 5), "f4", 11), values((4, 5), "f4", 12)
    expected = np.where(x > 0, x, y)
    out = y.copy()
    assert ran(machine_code(partial(np.copyto, where=x > 0), (out, x)), out) == expected.tobytes()


@numba.njit
def refuses_negative(x):
    for i in range(x.size):
        if x[i] < 0:
            raise ValueError


def test_the_call_that_fails_is_named_and_none_after_it_is_made():
    x, out = np.ones(4, "f4"), np.zeros(4, "f4")
    calls = [
        *machine_code(np.negative, (x, x)),
        *machine_code(refuses_negative, (x,)),
        *machine_code(np.add, (x, x, out)),
    ]
    assert Code(calls, []).run(()) == 1
    assert not out.any()


def test_inputs_may_be_elsewhere_at_every_run():
    first, out = values((4, 6), "f4", 13), np.empty((4, 3), "f4")
    code = Code(machine_code(np.add, (first[:, 1:4], 1.0, out)), [first])
    for seed in (14, 15):
        x = values((4, 6), "f4", seed)
        assert code.run((x,)) == code.FINISHED
        np.testing.assert_array_equal(out, x[:, 1:4] + 1)


@numba.njit
def scaled(x, factors, out):
    for i in range(x.size):
        out[i] = x[i] * factors[0] + factors[1]


def test_tuples_of_numbers_are_arguments():
    x, out = values((5,), "f4", 16), np.empty(5, "f4")
    assert Code(machine_code(scaled, (x, (2.0, 0.5), out)), []).run(()) == Code.FINISHED
    np.testing.assert_array_equal(out, x * 2 + 0.5)


def test_functions_of_other_arguments_are_left_to_python():
    assert machine_code(refuses_negative, ([1.0, 2.0],)) is None
    assert machine_code(refuses_negative, ((1.0, "2"),)) is None
    assert machine_code(len, (np.ones(3),)) is None


@numba.njit
def first(x):
    return x[0]


def test_functions_that_return_something_are_left_to_python():
    assert machine_code(first, (np.ones(3),)) is None
