"""The cross-entropy's kernels against their reference bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.backend import Kernel, get_backend
from tinygrad_bn.nn import functional
from tinygrad_bn.ops import class_loss

pytest.importorskip("numba")

NUMPY = get_backend("numpy")
FORWARD, GRADIENT = "softmax_cross_entropy", "softmax_cross_entropy_grad_input"

cases = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 2, 7, 63, 131]),
        "classes": st.sampled_from([1, 2, 7, 10, 63, 64, 65, 1023, 1024, 1025, 5003]),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "scale": st.sampled_from([0.0, 1e-40, 1.0, 50.0, 1e30]),
        "weighted": st.booleans(),
        "smoothing": st.sampled_from([0, 0.1, 1.0]),
        "ignore_index": st.sampled_from([-100, 0]),
        "odd": st.sampled_from([None, np.nan, np.inf, -np.inf]),
        "seed": st.integers(0, 99),
    }
)


def kernel_of(name: str) -> Kernel:
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    return kernel


def batch(case: Any) -> tuple[Any, Any, Any]:
    """Scores, labels of which some are no class or to be ignored, and weights."""
    rng = np.random.default_rng(case["seed"])
    n, classes, dtype = case["n"], case["classes"], case["dtype"]
    x = (rng.standard_normal((n, classes)) * case["scale"]).astype(dtype)
    if case["odd"] is not None:
        x[rng.integers(n), rng.integers(classes)] = case["odd"]
        if case["odd"] == -np.inf:
            x[0] = -np.inf
    target = rng.integers(0, classes, n)
    target[rng.random(n) < 0.1] = -100
    target[rng.random(n) < 0.05] = classes
    weight = np.where(rng.random(classes) < 0.2, 0, rng.random(classes) * 3).astype(dtype)
    return x, target, weight if case["weighted"] else None


def close(got: Any, expected: Any, size: Any) -> None:
    """Equal where not finite, and else to within ``size``."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, expected))
    error = abs(got[finite] - expected[finite])
    assert np.all(error <= np.broadcast_to(size, expected.shape)[finite])


@settings(max_examples=50, deadline=None)
@given(case=cases)
def test_forward(case: Any) -> None:
    """Sums of exp differ by the roundings on an element's way into them: 32 + 5 in a kernel's block
    of 1024 classes, 25 by NumPy's halves; the exp of either by 3.
    """
    x, target, weight = batch(case)
    options = case["ignore_index"], case["smoothing"]
    kernel = kernel_of(FORWARD)
    assert kernel.accepts(x, target, weight, *options)
    with np.errstate(all="ignore"):
        expected = class_loss.softmax_cross_entropy.reference(NUMPY, x, target, weight, *options)
        costs = abs(np.where(np.isfinite(x), x, 0) - x.max(axis=1, keepdims=True))
    got = kernel.run(x, target, weight, *options)
    eps = np.finfo(x.dtype).eps
    _, found, greatest, total = expected
    np.testing.assert_array_equal(got[1], found)
    np.testing.assert_array_equal(got[2], greatest)
    close(got[3], total, 65 * eps + 2 * eps * abs(total))
    heaviest = 1 if weight is None else weight.max()
    finite = [np.where(np.isfinite(a), abs(a), 0) for a in (total, costs)]
    size = 65 + 30 * (finite[0] + finite[1].max(axis=1, keepdims=True))
    close(got[0], expected[0], heaviest * eps * size)


@settings(max_examples=50, deadline=None)
@given(case=cases, reduced=st.booleans())
def test_gradient(case: Any, reduced: bool) -> None:
    """From the same sums: what may differ is exp, to 2.5 and 1.1 ulps, and a rounding or two."""
    x, target, weight = batch(case)
    options = case["ignore_index"], case["smoothing"]
    dy = np.random.default_rng(1).standard_normal((len(x), 1)).astype(x.dtype)
    if reduced:
        dy = np.broadcast_to(dy[0], dy.shape)  # repeated and read-only, as a mean's is
    with np.errstate(all="ignore"):
        kept = class_loss.softmax_cross_entropy.reference(NUMPY, x, target, weight, *options)[1:]
        reference = class_loss.softmax_cross_entropy_grad_input.reference
        args = x, target, weight, *kept, *options
        expected = reference(NUMPY, dy, *args)
    assert kernel_of(GRADIENT).accepts(dy, *args)
    got = kernel_of(GRADIENT).run(dy, *args)
    info = np.finfo(x.dtype)
    heaviest = 1 if weight is None else weight.max()
    is_label = np.arange(x.shape[1]) == target[:, None]
    # the label's is a difference of what is wanted and p; others are as right as they are large
    size = np.where(is_label | (case["smoothing"] > 0), heaviest * abs(dy), abs(expected))
    close(got, expected, 8 * info.eps * size + 8 * info.smallest_subnormal)


def test_confident_predictions_keep_their_small_gradients() -> None:
    x = np.array([[0.0, -50.0, -80.0]], np.float32)
    leaf = tg.tensor(x, requires_grad=True)
    functional.cross_entropy(leaf, tg.tensor([0])).backward()
    assert leaf.grad is not None
    # float32's exp of what is rounded once
    np.testing.assert_allclose(leaf.grad.numpy()[0, 1:], np.exp([-50.0, -80.0]), rtol=1e-6)


def test_a_row_that_is_not_finite_stays_alone() -> None:
    x = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    clean = kernel_of(FORWARD).run(x, np.arange(5), None, -100, 0.0)
    x[2, 33] = np.nan
    spoilt = kernel_of(FORWARD).run(x, np.arange(5), None, -100, 0.0)
    assert np.isnan(spoilt[0][2])
    for a, b in zip(clean, spoilt, strict=True):
        np.testing.assert_array_equal(np.delete(a, 2), np.delete(b, 2))


OTHERS = {
    "float16": lambda x: x.astype(np.float16),
    "foreign bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "transposed": lambda x: np.asfortranarray(x),
    "positions": lambda x: x[..., None],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_scores_go_to_the_reference(kind: str) -> None:
    x = OTHERS[kind](np.ones((4, 3), np.float32))
    target = np.zeros((len(x), *x.shape[2:]), np.int64)
    assert not kernel_of(FORWARD).accepts(x, target, None, -100, 0.0)
    dy = np.ones((len(x), 1, *x.shape[2:]), x.dtype)
    assert not kernel_of(GRADIENT).accepts(dy, x, target, None, dy, dy, dy, -100, 0.0)


def test_labels_and_weights_of_another_kind_go_to_the_reference() -> None:
    x, target = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    accepts = kernel_of(FORWARD).accepts
    assert accepts(x, target, np.ones(3, np.float32), -100, 0.0)
    assert not accepts(x, target.astype(np.int32), None, -100, 0.0)
    assert not accepts(x, np.zeros(8, np.int64)[::2], None, -100, 0.0)
    assert not accepts(x, target, np.ones(3), -100, 0.0)


def test_read_only_and_misaligned_scores() -> None:
    x = np.random.default_rng(2).standard_normal((4, 3)).astype(np.float32)
    target, expected = np.arange(4) % 3, None
    expected = kernel_of(FORWARD).run(x, target, None, -100, 0.0)
    x.flags.writeable = False
    for a, b in zip(kernel_of(FORWARD).run(x, target, None, -100, 0.0), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(4, 3)
    assert not kernel_of(FORWARD).accepts(odd, target, None, -100, 0.0)


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pytorch_agrees(reduction: str, weighted: bool, smoothing: float) -> None:
    """In float64, to what its exp and ours may differ by."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal((40, 37)), rng.random(37)
    target = rng.integers(0, 37, 40)
    target[::7] = -100
    losses, gradients = [], []
    for library in (tg, torch):
        leaf = library.tensor(x, requires_grad=True)
        options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
        if weighted:
            options["weight"] = library.tensor(weight)
        loss = library.nn.functional.cross_entropy(leaf, library.tensor(target), **options)
        (loss * loss).sum().backward()
        losses.append(loss.detach().numpy())
        gradients.append(leaf.grad.numpy())
    np.testing.assert_allclose(*losses, rtol=1e-13)
    np.testing.assert_allclose(*gradients, rtol=1e-11, atol=1e-14)
