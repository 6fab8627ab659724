"""The mean of cross-entropies in one call against its body."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops.label_costs import mean_cross_entropy, mean_cross_entropy_grad_input

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
KINDS = [
    pytest.param(dtype, weighted, smoothing, id=f"{np.dtype(dtype).name}-{weighted}-{smoothing}")
    for dtype in (np.float32, np.float64)
    for weighted in (False, True)
    for smoothing in (0.0, 0.1)
]


def batch(dtype: Any, weighted: bool) -> tuple[Any, ...]:
    """Scores, labels of which some are ignored, weights of the classes."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 11, 70)
    target[::9] = -100
    weight = rng.random(11).astype(dtype) if weighted else None
    return rng.normal(0, 3, (70, 11)).astype(dtype), target, weight


@pytest.mark.parametrize(("dtype", "weighted", "smoothing"), KINDS)
def test_forward_and_gradient_are_those_of_the_body(
    dtype: Any, weighted: bool, smoothing: float
) -> None:
    args = *batch(dtype, weighted), -100, smoothing
    expected = mean_cross_entropy.reference(NUMPY, *args)
    got = mean_cross_entropy(NUMPY, *args)
    eps = np.finfo(dtype).eps
    for a, b in zip(got, expected, strict=True):
        assert np.shape(a) == np.shape(b)
        assert a.dtype == b.dtype
        # exp to 3 ulps, and sums of 11 of them, in a loss of up to 20
        np.testing.assert_allclose(a, b, rtol=20 * eps, atol=200 * eps)
    dy, (share, *kept) = np.array(0.7, dtype), got[1:]
    rest = *args[:3], *kept, *args[3:]
    dx = mean_cross_entropy_grad_input(NUMPY, dy, share, *rest)
    wanted = mean_cross_entropy_grad_input.reference(NUMPY, dy, share, *rest)
    np.testing.assert_allclose(dx, wanted, rtol=0, atol=8 * eps / 60)  # of 1/60 at most


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_of_nothing_is_nan(dtype: Any) -> None:
    x, target, weight = batch(dtype, False)
    target[:] = -100
    y, share, *_ = mean_cross_entropy(NUMPY, x, target, weight, -100, 0.0)
    assert np.isnan(y)
    assert np.isnan(share)


def test_a_gradient_that_numpy_made_a_scalar_of_is_taken() -> None:
    x, target, weight = batch(np.float32, False)
    _, share, *kept = mean_cross_entropy(NUMPY, x, target, weight, -100, 0.0)
    args = share, x, target, weight, *kept, -100, 0.0
    dx = mean_cross_entropy_grad_input(NUMPY, np.float32(0.5), *args)
    same = mean_cross_entropy_grad_input(NUMPY, np.array(0.5, np.float32), *args)
    np.testing.assert_array_equal(dx, same)
