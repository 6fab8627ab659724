"""Philox's kernel against its reference body."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.backend import get_backend
from tinygrad_bn.philox import philox_words

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
words64 = st.one_of(st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**64 - 1]), st.integers(0, 2**64 - 1))


@settings(max_examples=50, deadline=None)
@given(
    key=words64,
    low=words64,
    high=words64,
    n=st.sampled_from([0, 1, 2, 3, 4, 5, 63, 64, 65, 257, 100_003]),
)
def test_words_are_those_of_the_reference(key: int, low: int, high: int, n: int) -> None:
    """Also where the lower half of the counter wraps around."""
    arrays = np.array([key], np.uint64), np.array([low, high], np.uint64)
    kernel = NUMPY.kernels.get("philox_words")
    assert kernel is not None
    drawn = kernel.run(*arrays, n)
    assert drawn.dtype == np.uint32
    np.testing.assert_array_equal(drawn, philox_words.reference(NUMPY, *arrays, n))


def test_dropout_draws_the_same_mask() -> None:
    x = tg.ones(100, 33)
    masks = []
    for with_kernels in (True, False):
        tg.manual_seed(5)
        if with_kernels:
            masks.append(tg.nn.functional.dropout(x, 0.3))
        else:
            with tg.reference_kernels():
                masks.append(tg.nn.functional.dropout(x, 0.3))
    np.testing.assert_array_equal(masks[0].numpy(), masks[1].numpy())
    assert 0 < (masks[0] == 0).sum().item() < x.numel()
