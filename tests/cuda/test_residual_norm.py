"""Batch norm, a sum and its ReLU in the same launches: the kernels against their bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda.test_batch_norm import UNIT, Batch, every_dtype
from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU
from tinygrad_bn.ops import residual_norms

SHAPES = [
    *((n, c, 1) for n in (1, 2, 8, 33, 257) for c in (1, 3, 4, 8, 36)),
    (1031, 264, 1), (4099, 5, 1),
    *((n, 3, s) for n in (1, 5) for s in (2, 8, 31, 32, 49, 64)),
    (2, 3, 2048), (1, 2, 4099), (70, 1, 1000),
]  # fmt: skip
FORWARD, BACKWARD = "whole_residual_norm", "whole_residual_norm_grad"


def reference(name: str, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return getattr(residual_norms, name).reference(CPU, *args)


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives, on the host; it must accept the arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    given = [GPU.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*given)
        result = found.run(*given)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    return tuple(GPU.to_numpy(value) for value in result)


def problem(shape: tuple[int, ...], dtype: str) -> tuple[Batch, Any]:
    batch = Batch(shape, dtype)
    residual = np.random.default_rng(7).standard_normal(shape).astype(batch.x.dtype)
    return batch, residual


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size(shape: tuple[int, ...], dtype: str) -> None:
    """The sum is rounded once where the body rounds twice; gradients are of what the kernel's own
    forward let through, since the two may round a sum to either side of 0.
    """
    batch, residual = problem(shape, dtype)
    affine = batch.weight, batch.bias
    with thread_order(sum(shape) % 5):
        y, mean, var, rstd = kernel(FORWARD, batch.x, residual, *affine, None, 1e-5)
        known = batch.dy, batch.x, residual, mean, rstd, *affine, None, batch.count
        dx, through, dbias, dweight = kernel(BACKWARD, *known)
    x, r = batch.x.astype(np.float64), residual.astype(np.float64)
    x_hat = (x - mean[:, None]) * rstd[:, None]
    want = np.maximum(x_hat * batch.weight[:, None] + batch.bias[:, None] + r, 0)
    size = np.abs(x_hat) * np.abs(batch.weight)[:, None] + np.abs(batch.bias)[:, None] + np.abs(r)
    unit = UNIT[dtype]
    assert y.dtype == batch.x.dtype
    assert np.all(np.abs(y.astype(np.float64) - want) <= 2 * unit * size + 4 * 2**-24 * size)
    body = reference(FORWARD, batch.x, residual, *affine, None, 1e-5)
    for got, other in zip((mean, var, rstd), body[1:], strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-11, atol=1e-13)
    stopped = np.where(y > 0, batch.dy, 0)
    np.testing.assert_array_equal(through.astype(np.float64), stopped.astype(np.float64))
    g = stopped.astype(np.float64)
    terms = np.abs(g).sum((0, 2)), (np.abs(g) * (np.abs(x_hat) + 1)).sum((0, 2))
    assert np.all(np.abs(dbias - g.sum((0, 2))) <= 1e-12 * (1 + terms[0]))
    assert np.all(np.abs(dweight - (g * x_hat).sum((0, 2))) <= 1e-10 * (1 + terms[1]))
    means = dbias[:, None] / batch.count, dweight[:, None] / batch.count
    want = (g - means[0] - x_hat * means[1]) * (rstd * batch.weight)[:, None]
    size = (np.abs(g) + 1 + np.abs(x_hat)) * (rstd * np.abs(batch.weight))[:, None]
    allowed = (2 * unit + 16 * 2**-24) * size + 2.0**-24 * (dtype == "float16")
    assert dx.dtype == batch.x.dtype
    assert np.all(np.abs(dx.astype(np.float64) - want) <= allowed)


@pytest.mark.parametrize("order", range(1, 4))
@every_dtype
@pytest.mark.parametrize("shape", [(1000, 8, 1), (515, 3, 1), (40, 2, 256), (9, 3, 49)], ids=str)
def test_bits_do_not_depend_on_the_order(shape: tuple[int, ...], dtype: str, order: int) -> None:
    batch, residual = problem(shape, dtype)
    known = batch.mean, batch.rstd, batch.weight, batch.bias, None, batch.count
    for name, args in (
        (FORWARD, (batch.x, residual, batch.weight, batch.bias, None, 1e-5)),
        (BACKWARD, (batch.dy, batch.x, residual, *known)),
    ):
        natural = kernel(name, *args)
        with thread_order(order):
            shuffled = kernel(name, *args)
        for a, b in zip(natural, shuffled, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "residual", "dy"])
@pytest.mark.parametrize("shape", [(70, 8, 1), (9, 3, 20)], ids=str)
def test_what_is_not_finite_stays_in_its_channel(
    shape: tuple[int, ...], where: str, value: float
) -> None:
    """There, results are finite where the body's are, and those are the body's."""
    batch, residual = problem(shape, "float32")
    arrays = {"x": batch.x, "residual": residual, "dy": batch.dy}
    arrays[where][5, 1, 0] = value
    affine = batch.weight, batch.bias
    args = batch.x, residual, *affine, None, 1e-5
    got, want = kernel(FORWARD, *args), reference(FORWARD, *args)
    known = batch.dy, batch.x, residual, *want[1:2], *want[3:], *affine, None, batch.count
    got, want = (*got, *kernel(BACKWARD, *known)), (*want, *reference(BACKWARD, *known))
    for a, b in zip(got, want, strict=True):
        axis = 0 if a.ndim == 1 else 1
        assert np.isfinite(np.delete(a, 1, axis)).all()
        own, other = np.take(a, 1, axis), np.take(b, 1, axis)
        finite = np.isfinite(other)
        np.testing.assert_array_equal(np.isfinite(own), finite)
        np.testing.assert_allclose(own[finite], other[finite], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(65, 4, 1), (5, 3, 16)], ids=str)
def test_parameters_may_be_absent(shape: tuple[int, ...]) -> None:
    batch, residual = problem(shape, "float32")
    got = kernel(FORWARD, batch.x, residual, None, None, None, 1e-5)
    want = reference(FORWARD, batch.x, residual, None, None, None, 1e-5)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6, atol=1e-6)


def test_what_is_left_to_the_body() -> None:
    found, back = GPU.kernels.get(FORWARD), GPU.kernels.get(BACKWARD)
    assert found is not None
    assert back is not None
    x = GPU.asarray(np.zeros((4, 3, 2), np.float32))
    wide, mask = GPU.asarray(np.zeros((4, 3, 2))), GPU.asarray(np.ones((4, 2), bool))
    vectors = [GPU.asarray(np.zeros(3))] * 2
    assert found.accepts(x, x, None, None, None, 1e-5)
    assert back.accepts(x, x, x, *vectors, None, None, None, 8)
    for args in ((wide, wide, None), (x, wide, None), (x, x[..., ::2], None), (x, x, mask)):
        assert not found.accepts(*args[:2], None, None, args[2], 1e-5)
        assert not back.accepts(x, *args[:2], *vectors, None, None, args[2], 8)
    assert not back.accepts(wide, x, x, *vectors, None, None, None, 8)
