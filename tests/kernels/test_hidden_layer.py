"""The kernels of bias, ReLU and dropout against the bodies that define them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.backend import Kernel, get_backend
from tinygrad_bn.ops import dense

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
POINTS = ("add_bias", "column_sums", "relu", "relu_grad", "dropped")


def kernel_of(name: str) -> Kernel:
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    return kernel


def arguments(name: str, shape: tuple[int, int], dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    """Normal numbers, some of them zero, infinite or NaN."""
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40], dtype)
    for values in (x, dy):
        places = rng.random(shape) < 0.1
        values[places] = rng.choice(odd, places.sum())
    state = rng.integers(0, 2**64, 3, np.uint64)
    return {
        "add_bias": (x, rng.standard_normal(shape[1]).astype(dtype)),
        "column_sums": (rng.standard_normal(shape).astype(dtype),),
        "relu": (x,),
        "relu_grad": (dy, x),
        "dropped": (x, state[:1], state[1:], float(rng.choice([0.0, 1e-9, 0.3, 0.9, 1.0]))),
    }[name]


@pytest.mark.parametrize("name", POINTS)
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(
        st.sampled_from([0, 1, 2, 7, 8, 9, 64, 131]), st.sampled_from([0, 1, 3, 16, 37])
    ),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_gives_the_values_of_the_reference(name: str, shape: Any, dtype: Any, seed: int) -> None:
    args = arguments(name, shape, dtype, seed)
    kernel = kernel_of(name)
    assert kernel.accepts(*args)
    with np.errstate(invalid="ignore"):  # infinity times a mask's zero
        wanted = getattr(dense, name).reference(NUMPY, *args)
    got = kernel.run(*args)
    if name == "column_sums":
        # sums of float64, whose order differs, rounded once
        size = np.abs(args[0]).sum(axis=0)
        ulp = np.finfo(dtype).eps
        assert got.dtype == dtype
        assert np.all(np.abs(got - wanted) <= ulp * np.abs(wanted) + 1e-13 * size)
        return
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, wanted)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["add_bias", "relu", "relu_grad", "dropped"])
def test_gives_the_same_where_its_operand_lies(name: str) -> None:
    """The first operand's memory may be that of the first result."""
    args, kernel = arguments(name, (33, 21), np.float32), kernel_of(name)
    wanted = kernel.run(*args)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    memory = np.array(args[0]).reshape(-1)
    first, place = memory.reshape(33, 21), memory.reshape(33, 21)
    outs = (place, *(np.empty_like(x) for x in wanted[1:]))
    assert kernel.into is not None
    function, operands = kernel.into(outs, first, *args[1:])
    function(*operands)
    for a, b in zip(outs, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_column_sums_lose_no_digits_to_large_neighbours() -> None:
    x = np.ones((10_001, 3), np.float32)
    x[0], x[-1] = 1e8, -1e8
    np.testing.assert_array_equal(kernel_of("column_sums").run(x), np.full(3, 9_999, np.float32))


def test_dropped_draws_the_mask_that_dropout_has_always_drawn() -> None:
    x = tg.ones(100, 33)
    tg.manual_seed(5)
    state = tg.get_rng_state().numpy()
    wanted = tg.nn.functional.dropout(x, 0.3).numpy()
    y, mask = kernel_of("dropped").run(x.numpy(), state[:1], state[1:], 1 - 0.3)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(mask, wanted)


OTHERS = {
    "float16": lambda x: x.astype(np.float16),
    "integers": lambda x: x.astype(np.int32),
    "foreign bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "transposed": lambda x: np.asfortranarray(x),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", POINTS)
def test_other_arrays_go_to_the_reference(kind: str, name: str) -> None:
    first, *rest = arguments(name, (6, 4), np.float32)
    first = OTHERS[kind](np.nan_to_num(first, posinf=1, neginf=-1))
    assert not kernel_of(name).accepts(first, *rest)
    assert name != "relu_grad" or not kernel_of(name).accepts(rest[0], first)
