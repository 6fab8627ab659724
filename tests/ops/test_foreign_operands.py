"""Tensors beside objects of other kinds: refused by name in either order, never converted."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.errors import DtypeError, GradientError

ARITHMETIC = (
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.pow,
    operator.matmul,
    operator.eq,
    operator.lt,
)


@pytest.mark.parametrize("operation", ARITHMETIC)
@pytest.mark.parametrize("other", [np.ones((2, 2)), [[1.0, 2.0]], 1j], ids=["array", "list", "1j"])
def test_operators_refuse_them_on_either_side(operation, other):
    x = tg.ones(2, 2)
    for operands in ((x, other), (other, x)):
        with pytest.raises(DtypeError, match=f"got {type(other).__name__}"):
            operation(*operands)


def test_ufuncs_refuse_tensors():
    array = np.zeros(2)
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(tg.ones(2))
    with pytest.raises(TypeError, match="does not support ufuncs"):
        array += tg.ones(2)
    assert array.tolist() == [0, 0]


def test_a_tensor_with_a_history_is_no_array():
    with pytest.raises(GradientError, match="detach"):
        np.asarray(tg.ones(2, requires_grad=True))


@pytest.mark.parametrize("other", [None, "mean"])
def test_none_and_strings_equal_no_tensor(other):
    x = tg.ones(2)
    assert (x == other) is False
    assert (x != other) is True
    assert (other == x) is False
    assert x in [other, x]
