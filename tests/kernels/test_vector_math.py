"""exp and the maximum that kernels are vectorised with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

numba = pytest.importorskip("numba")
vector_math = pytest.importorskip("tinygrad_bn.backends.numba_kernels.vector_math")

FLOATS = ["float32", "float64"]


@numba.njit(error_model="numpy", fastmath={"contract"})
def each_exp(x: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = vector_math.exp(x[i])


@numba.njit
def row_maxima(words: Any, y: Any) -> None:
    for i in range(words.shape[0]):
        y[i] = vector_math.largest(words, i)


def exp(x: Any) -> Any:
    y = np.empty_like(x)
    each_exp(x, y)
    return y


def everywhere(dtype: str) -> Any:
    """Numbers of every size and sign, and closer ones where exp is neither 0 nor infinite."""
    words = np.dtype(dtype.replace("float", "uint"))
    last = int(np.iinfo(words).max)
    patterns = np.arange(0, last, last // 1_000_003, words)
    info = np.finfo(dtype)
    near = np.linspace(np.log(info.smallest_subnormal) - 2, np.log(info.max) + 2, 1_000_003)
    return np.concatenate([patterns.view(dtype), near.astype(dtype)])


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_is_right_to_an_ulp_over_the_whole_range(dtype: str) -> None:
    if np.finfo(np.longdouble).nmant <= np.finfo(dtype).nmant:
        pytest.skip("no wider dtype to compare with")
    x = everywhere(dtype)
    x = x[~np.isnan(x)]
    y = exp(x)
    with np.errstate(all="ignore"):
        expected = np.exp(x.astype(np.longdouble))
        rounded = expected.astype(dtype)
    np.testing.assert_array_equal(np.isinf(y), np.isinf(rounded))
    finite = np.isfinite(rounded)
    ulp = np.spacing(np.maximum(rounded[finite], np.finfo(dtype).smallest_subnormal))
    error = abs(y[finite].astype(np.longdouble) - expected[finite]) / ulp
    # half an ulp for the last rounding, half for those before it, a tenth for the series' rest
    assert error.max() <= 1.1


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_of_what_is_no_number_or_no_magnitude(dtype: str) -> None:
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    np.testing.assert_array_equal(exp(x), [np.nan, np.nan, np.inf, 0, 1, 1])


@settings(max_examples=50, deadline=None)
@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.tuples(st.integers(1, 3), st.integers(1, 70)),
        elements=st.floats(width=32),
    )
)
def test_the_greatest_is_numpys(x: Any) -> None:
    """Infinities, zeros of both signs and NaN of both signs among them."""
    y = np.empty(len(x), x.dtype)
    row_maxima(x.view(np.int32 if x.dtype == np.float32 else np.int64), y)
    np.testing.assert_array_equal(y, x.max(axis=1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_greatest_of_a_long_row(dtype: str, odd: float) -> None:
    x = np.full((1, 100), -2.0, dtype)
    x[0, 63] = np.copysign(odd, odd)
    y = np.empty(1, dtype)
    row_maxima(x.view(np.dtype(dtype.replace("float", "int"))), y)
    np.testing.assert_array_equal(y, x.max(axis=1))
