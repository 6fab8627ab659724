"""Cross-entropy with labels against the body in float64, and the body's rules for every label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn.ops import class_loss

SHAPES = [
    *((n, c) for n in (1, 7, 8, 9) for c in (1, 2, 3, 4, 10, 31, 32, 33, 127, 128, 132)),
    *((3, c) for c in (1023, 1024, 1025, 1028, 2051)),
    (1, 10_007),
    (65, 12),
]
POSITIONS = [
    *((n, c, s) for n in (1, 3) for c in (1, 2, 5, 33) for s in (2, 7, 31, 33)),
    (2, 3, 255), (1, 2, 257), (5, 150, 52), (3, 4, 2, 3, 5), (2, 40, 1, 1),
]  # fmt: skip
STORED = ("float32", "float16", "bfloat16")
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
OPTIONS = [(False, 0.0), (True, 0.0), (False, 0.1), (True, 0.3)]
FORWARD, BACKWARD = "softmax_cross_entropy", "softmax_cross_entropy_grad_input"
IGNORED = -100


def reference(name: str, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return getattr(class_loss, name).reference(CPU, *args)


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives, on the host; it must accept the arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    given = [GPU.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*given)
        result = found.run(*given)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    return tuple(map(GPU.to_numpy, result)) if isinstance(result, tuple) else GPU.to_numpy(result)


def problem(
    shape: tuple[int, ...], weighted: bool, scale: float = 3.0, dtype: str = "float32"
) -> tuple[Any, Any, Any]:
    """Scores, labels of which some are to be ignored, and weights."""
    rng = np.random.default_rng(shape[0] * shape[1])
    classes = shape[1]
    x = (rng.standard_normal(shape) * scale).astype(dtype_named(dtype))
    target = rng.integers(0, classes, (shape[0], *shape[2:]))
    target.reshape(-1)[1::5] = IGNORED
    return x, target, rng.random(classes).astype(np.float32) if weighted else None


def check(x: Any, target: Any, weight: Any, smoothing: float, dy: Any) -> None:
    """Both ways, against the body in float64.

    Of a few float32 roundings, expf's two units among them: of the logarithm and the scores in a
    loss, and in the gradient of p = exp(c - total), whose exponent is off by a unit of itself. A
    gradient of 16 bits is rounded once more.
    """
    exact = [None if a is None else a.astype(np.float64) for a in (x, weight)]
    options = IGNORED, smoothing
    wanted = reference(FORWARD, exact[0], target, exact[1], *options)
    got = kernel(FORWARD, x, target, weight, *options)
    losses, found, greatest, total = wanted
    unit, heaviest = 2.0**-24, 1.0 if weight is None else weight.max()
    centred = np.abs(exact[0] - greatest).max(axis=1, keepdims=True)
    for value, want in zip(got, wanted, strict=True):
        assert (value.dtype, value.shape) == (np.float32, want.shape)
    np.testing.assert_array_equal(got[1], found.astype(np.float32))
    np.testing.assert_array_equal(got[2], greatest)
    assert np.all(np.abs(got[3] - total) <= 4 * unit * (1 + np.abs(total)))
    assert np.all(np.abs(got[0] - losses) <= 8 * unit * heaviest * (1 + centred + np.abs(total)))
    dx = kernel(BACKWARD, dy, x, target, weight, *got[1:], *options)
    want = reference(BACKWARD, dy.astype(float), exact[0], target, exact[1], *wanted[1:], *options)
    assert (dx.dtype, dx.shape) == (x.dtype, x.shape)
    allowed = np.abs(dy) * heaviest * (8 * unit * (1 + centred + np.abs(total)))
    allowed = allowed + UNIT[x.dtype.name] * np.abs(want) + 2.0**-25 * (x.dtype == np.float16)
    assert np.all(np.abs(dx.astype(np.float64) - want) <= allowed)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize(("weighted", "smoothing"), OPTIONS)
@pytest.mark.parametrize("shape", [*SHAPES[::3], *POSITIONS], ids=str)
def test_every_layout_and_dtype(
    shape: tuple[int, ...], weighted: bool, smoothing: float, dtype: str
) -> None:
    x, target, weight = problem(shape, weighted, dtype=dtype)
    rng = np.random.default_rng(1)
    dy = rng.standard_normal((shape[0], 1, *shape[2:])).astype(np.float32)
    with thread_order(sum(shape) % 4):
        check(x, target, weight, smoothing, dy)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("shape", [(1, 3), (9, 12), (8, 3, 31), (5, 2, 1000), (2, 3, 1 << 13)])
def test_the_mean(shape: tuple[int, ...], dtype: str) -> None:
    """Its sums are of float64, over one block and over several; it is rounded to the scores' dtype,
    and the gradient is that of every label by its share.
    """
    x, target, weight = problem(shape, True, dtype=dtype)
    options = IGNORED, 0.1
    exact = x.astype(float), target, weight.astype(float), *options
    want, want_share, *_ = reference("mean_cross_entropy", *exact)
    mean, share, *kept = kernel("mean_cross_entropy", x, target, weight, *options)
    assert (mean.dtype, mean.shape, share.dtype, share.shape) == (x.dtype, (), np.float32, ())
    rtol = 2e-6 + UNIT[dtype]
    np.testing.assert_allclose(mean.astype(float), want, rtol=rtol)
    np.testing.assert_allclose(share, want_share, rtol=2e-7)
    alone = kernel(FORWARD, x, target, weight, *options)
    for got, other in zip(kept, alone[1:], strict=True):
        np.testing.assert_array_equal(got, other)
    dy = np.array(0.75, np.float32)
    dx = kernel("mean_cross_entropy_grad_input", dy, share, x, target, weight, *kept, *options)
    each = np.broadcast_to(np.float32(0.75) * share, alone[0].shape).copy()
    one_by_one = kernel(BACKWARD, each, x, target, weight, *kept, *options)
    np.testing.assert_array_equal(dx.astype(float), one_by_one.astype(float))


@pytest.mark.parametrize("order", range(1, 4))
def test_bits_of_the_mean_do_not_depend_on_the_order(order: int) -> None:
    x, target, weight = problem((3, 4, 5000), True)
    natural = kernel("mean_cross_entropy", x, target, weight, IGNORED, 0.0)
    with thread_order(order):
        shuffled = kernel("mean_cross_entropy", x, target, weight, IGNORED, 0.0)
    for a, b in zip(natural, shuffled, strict=True):
        assert a.tobytes() == b.tobytes()


def test_the_mean_of_no_labels_is_nan() -> None:
    x, target, _ = problem((6, 4), False)
    mean, share, *_ = kernel(
        "mean_cross_entropy", x, np.full_like(target, IGNORED), None, -100, 0.0
    )
    assert np.isnan(mean)
    assert np.isnan(share)


@pytest.mark.parametrize(("weighted", "smoothing"), OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size(shape: tuple[int, int], weighted: bool, smoothing: float) -> None:
    x, target, weight = problem(shape, weighted)
    dy = np.random.default_rng(1).standard_normal((shape[0], 1)).astype(np.float32)
    with thread_order(sum(shape) % 4):
        check(x, target, weight, smoothing, dy)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4, 1e30])
def test_every_scale(scale: float) -> None:
    x, target, weight = problem((9, 37), True, scale)
    check(x, target, weight, 0.1, np.ones((9, 1), np.float32))


@pytest.mark.parametrize("classes", [5, 2000])
def test_one_gradient_for_all_rows(classes: int) -> None:
    """As a mean's is: an array whose rows lie in one place."""
    x, target, _ = problem((12, classes), False)
    _, *kept = kernel(FORWARD, x, target, None, IGNORED, 0.0)
    dy = np.full((12, 1), 0.25, np.float32)
    want = kernel(BACKWARD, dy, x, target, None, *kept, IGNORED, 0.0)
    with GPU.guard:  # type: ignore[union-attr]
        one = GPU.xp.broadcast_to(GPU.asarray(dy[0]), (12, 1))
    np.testing.assert_array_equal(kernel(BACKWARD, one, x, target, None, *kept, IGNORED, 0.0), want)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [6, 1029])
def test_labels_that_are_no_classes_and_scores_that_are_no_numbers(
    classes: int, smoothing: float
) -> None:
    """NaN where the body has it, and in no other row."""
    x, _, weight = problem((10, classes), True)
    target = np.array([0, -1, classes, IGNORED, IGNORED, 1, 2, 3, 2**40, classes - 1])
    x[4, 2], x[5, 3], x[6, 0], x[7, :] = np.nan, np.nan, np.inf, -np.inf
    x[0, 3] = -np.inf
    args = x, target, weight, IGNORED, smoothing
    got, want = kernel(FORWARD, *args), reference(FORWARD, *args)
    for value, other in zip(got, want, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-6, atol=1e-6)
    dy = np.ones((10, 1), np.float32)
    dx = kernel(BACKWARD, dy, x, target, weight, *want[1:], IGNORED, smoothing)
    other = reference(BACKWARD, dy, x, target, weight, *want[1:], IGNORED, smoothing)
    np.testing.assert_allclose(dx, other, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("order", range(1, 5))
@pytest.mark.parametrize("classes", [33, 1500])
def test_bits_do_not_depend_on_the_order(classes: int, order: int) -> None:
    x, target, weight = problem((9, classes), True)
    natural = kernel(FORWARD, x, target, weight, IGNORED, 0.1)
    with thread_order(order):
        shuffled = kernel(FORWARD, x, target, weight, IGNORED, 0.1)
    for a, b in zip(natural, shuffled, strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_is_left_to_the_bodies() -> None:
    """Other dtypes, labels of another shape, gaps, nothing at all."""
    found = GPU.kernels.get(FORWARD)
    assert found is not None
    x, target, weight = (GPU.asarray(a) for a in problem((8, 4), True))
    assert found.accepts(x, target, weight, IGNORED, 0.0)
    for args in (
        (x.reshape(2, 4, 4), target, weight),
        (x.astype(np.float64), target, None),
        (x, target.astype(np.int32), weight),
        (x[::2], target[::2], weight),
        (x[:0], target[:0], weight),
        (x, target, weight.astype(np.float64)),
    ):
        assert not found.accepts(*args, IGNORED, 0.0)
