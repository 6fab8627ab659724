"""The kernels of softmax against the bodies that define them, computed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_bn.backend import Kernel, get_backend
from tinygrad_bn.ops import probability

pytest.importorskip("numba")

NUMPY = get_backend("numpy")


def kernel_of(name: str) -> Kernel:
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    return kernel


def reference(name: str, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return getattr(probability, name).reference(NUMPY, *args)


def numbers(shape: tuple[int, ...], dtype: Any, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    return (x * rng.choice([0.1, 3, 40])).astype(dtype), dy.astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (3, 10), (2, 3, 17), (5,), (2, 2500), (64, 33)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_gives_the_values_of_the_reference(shape: Any, dtype: Any, seed: int) -> None:
    x, dy = numbers(shape, dtype, seed)
    axis, eps, wide = len(shape) - 1, np.finfo(dtype).eps, np.float64
    p = kernel_of("softmax_value").run(x, axis)
    assert p.dtype == dtype
    assert p.shape == x.shape
    wanted = reference("softmax_value", x.astype(wide), axis)
    # x - max is rounded before exp, so many ulp of the result as it is large; a sum of a thousand
    # terms in partial sums of eight and more errs by less than a hundred ulp, at worst
    off = eps * (8 + np.abs(x - x.max(axis=-1, keepdims=True)) + 0.03 * min(shape[-1], 1024))
    assert np.all(np.abs(p - wanted) <= off * wanted + np.finfo(dtype).tiny)
    log_p = kernel_of("log_softmax_value").run(x, axis)
    wanted = reference("log_softmax_value", x.astype(wide), axis)
    assert np.all(np.abs(log_p - wanted) <= off + 2 * eps * np.abs(wanted))
    for name, y in (("softmax_grad", p), ("log_softmax_grad", log_p)):
        dx = kernel_of(name).run(dy, y, axis)
        wanted = reference(name, dy.astype(wide), y.astype(wide), axis)
        size = np.abs(dy).sum(axis=-1, keepdims=True)  # what the sum's roundings are of
        share = p if name == "softmax_grad" else np.exp(y.astype(wide))
        assert np.all(np.abs(dx - wanted) <= 8 * eps * (np.abs(dy) + share * size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinities_and_what_is_no_number_are_as_in_the_reference(dtype: Any) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[0, -inf, 1], [-inf, -inf, -inf], [1, inf, 0], [nan, 1, 2], [1, 2, 3]], dtype)
    for name in ("softmax_value", "log_softmax_value"):
        wanted = reference(name, x, 1)
        np.testing.assert_allclose(kernel_of(name).run(x, 1), wanted, 1e-6)


def test_other_axes_and_arrays_go_to_the_reference() -> None:
    x = np.ones((4, 6), np.float32)
    value, grad = kernel_of("softmax_value"), kernel_of("softmax_grad")
    assert value.accepts(x, 1)
    assert grad.accepts(x, x, 1)
    assert not value.accepts(x, 0)
    for other in (x.T, x.astype(np.float16), x[:0]):
        assert not value.accepts(other, 1)
        assert not grad.accepts(other, other, 1)
