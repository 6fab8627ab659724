"""The number of threads is the BLAS's, for the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError

threadpool_info = pytest.importorskip("threadpoolctl").threadpool_info


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = tg.get_num_threads()
    yield
    tg.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_every_blas_library_is_told(count: int) -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    tg.set_num_threads(count)
    told = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    assert told == [count] * len(told)
    assert tg.get_num_threads() == (count if told else 1)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "2", None])
def test_what_is_no_number_of_threads_is_refused(wrong: Any) -> None:
    before = tg.get_num_threads()
    with pytest.raises(ArgumentError, match="expected a number of threads"):
        tg.set_num_threads(wrong)
    assert tg.get_num_threads() == before


def test_a_compiled_step_has_the_bits_of_eager_for_any_number() -> None:
    a, b = tg.randn(32, 300), tg.randn(300, 256)
    product = tg.compile(lambda x: x @ b)
    for count in (1, 2, 1):
        tg.set_num_threads(count)
        assert np.array_equal(product(a).numpy(), (a @ b).numpy())
        assert np.array_equal(product(a).numpy(), (a @ b).numpy())
