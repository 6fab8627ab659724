"""The kernels of layer norm and its kin against the bodies that define them, around every boundary
of a size and in several orders of threads.

Bounds of whole norms against long double are in ``tests/nn/normalization/test_precision.py``, which
runs through these kernels on ``device="cuda"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn.ops import row_moments, whole_norms

STORED = ("float32", "float16", "bfloat16")
UNIT = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
every_dtype = pytest.mark.parametrize("dtype", STORED)

LAYERS = [
    *((n, 1, k, 1) for n in (1, 8, 9) for k in (1, 3, 4, 8, 31, 33, 136)),
    *((3, 1, k, 1) for k in (1023, 1024, 1025, 1032, 2051)),
    (515, 1, 12, 1),
]
GROUPS = [
    (2, 3, 1, 1),
    (2, 3, 5, 1),
    (5, 2, 8, 1),
    (3, 2, 3, 4),
    (3, 4, 1, 49),  # instance norm
    (2, 3, 1, 64),
    (2, 2, 4, 36),
    (2, 1, 3, 341),
    (2, 1, 4, 256),
    (2, 2, 5, 257),
    (1, 2, 16, 128),
    (70, 2, 2, 7),
]
SHAPES = LAYERS + GROUPS
ids = {"ids": str}


class Batch:
    """Arguments of the phases; the offset is in units of the scale."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        centred: bool = True,
        offset: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        rng = np.random.default_rng(sum(shape))
        kind = dtype_named(dtype)
        self.x = ((rng.standard_normal(shape) + offset) * scale).astype(kind)
        self.dy = rng.standard_normal(shape).astype(kind)
        self.weight, self.bias = rng.standard_normal((2, *shape[1:3])).astype(np.float32)
        self.centred, self.eps = centred, 1e-5 * scale**2
        self.prepare()

    def prepare(self) -> None:
        if self.centred:
            self.mean, self.var = reference("row_moments", self.x)
        else:
            self.mean, self.var = None, reference("row_mean_square", self.x)
        with np.errstate(all="ignore"):
            self.rstd = 1 / np.sqrt(self.var + self.eps)

    def calls(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Every phase with what it gets."""
        kept = self.x, self.mean, self.rstd
        yield ("row_moments" if self.centred else "row_mean_square"), (self.x,)
        yield "row_normalize", (*kept, self.weight, self.bias)
        yield "row_grad_input", (self.dy, *kept, self.weight)
        yield "row_grad_sums", (self.dy, *kept)

    def whole_calls(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        name = "whole_row_norm" if self.centred else "whole_rms_norm"
        yield name, (self.x, self.weight, self.bias, self.eps)
        yield "whole_row_norm_grad", (self.dy, self.x, self.mean, self.rstd, self.weight)


def reference(name: str, *args: Any) -> Any:
    module = whole_norms if name.startswith("whole") else row_moments
    with np.errstate(all="ignore"):
        return getattr(module, name).reference(CPU, *args)


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


def tupled(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def sizes(batch: Batch, name: str, dtype: str) -> tuple[Any, ...]:
    """What results may err by: roundings of float64 sums, of as many terms as there are; and of
    float32, of the largest number on the way, and then a unit of 16 bits, where both round.
    """
    x, dy = batch.x.astype(np.float64), np.abs(batch.dy.astype(np.float64))
    each = (..., None, None)
    mean = np.zeros_like(batch.rstd) if batch.mean is None else batch.mean
    rstd, std = batch.rstd[each], np.sqrt(batch.var)
    weight, bias = np.abs(batch.weight)[:, :, None], np.abs(batch.bias)[:, :, None]
    x_hat = (np.abs(x - mean[each]) + std[each]) * rstd
    wide = 4 * 2**-53 * (1 + np.sqrt(x.size))
    if name == "row_mean_square":
        return (wide * batch.var,)
    if name == "row_moments":
        spread = np.square(x[:, :, 0, 0] - mean) + batch.var
        return wide * (std + np.abs(mean)), wide * spread
    if name == "row_grad_sums":
        reach = dy * (x_hat + np.abs(mean[each]) * rstd)
        return wide * dy.sum((0, 3)), wide * reach.sum((0, 3))
    narrow, least = 4 * 2**-24, 2.0**-24 * (dtype == "float16")
    once = 2 * UNIT[dtype] if dtype != "float32" else 0.0
    if name == "row_normalize":
        return ((narrow + once) * (weight * x_hat + bias) + least,)
    g = weight * dy
    terms = g + g.mean((2, 3), keepdims=True)
    terms = terms + x_hat * (g * x_hat).mean((2, 3), keepdims=True)
    return ((2 * narrow + once) * rstd * terms + least,)


def assert_as_the_bodies(batch: Batch, dtype: str) -> None:
    for name, args in batch.calls():
        got, wanted = tupled(kernel(name, *args)), tupled(reference(name, *args))
        for value, want, allowed in zip(got, wanted, sizes(batch, name, dtype), strict=True):
            assert (value.dtype, value.shape) == (want.dtype, want.shape), name
            error = np.abs(value.astype(np.float64) - want.astype(np.float64))
            assert np.all(error <= allowed), (name, float(np.max(error / allowed)))


@every_dtype
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("shape", SHAPES, **ids)
def test_every_size(shape: tuple[int, ...], centred: bool, dtype: str) -> None:
    with thread_order(sum(shape) % 5):
        assert_as_the_bodies(Batch(shape, dtype, centred), dtype)


@every_dtype
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("shape", SHAPES[::2], **ids)
def test_all_at_once_is_what_the_phases_are(
    shape: tuple[int, ...], centred: bool, dtype: str
) -> None:
    """To the bit."""
    batch = Batch(shape, dtype, centred)
    (forward, given), (backward, known) = batch.whole_calls()
    with thread_order(sum(shape) % 5):
        y, *statistics = kernel(forward, *given)
        for value, want in zip(statistics, tupled(kernel(*next(batch_phase(batch)))), strict=False):
            np.testing.assert_array_equal(value, want)
        *mean_and_var, rstd = statistics
        np.testing.assert_allclose(rstd, 1 / np.sqrt(mean_and_var[-1] + batch.eps), rtol=4e-16)
        mean = mean_and_var[0] if centred else None
        wanted = kernel("row_normalize", batch.x, mean, rstd, batch.weight, batch.bias)
        np.testing.assert_array_equal(y, wanted)
        dx, *sums = kernel(backward, *known)
        np.testing.assert_array_equal(dx, kernel("row_grad_input", *known))
        np.testing.assert_array_equal(sums, kernel("row_grad_sums", *known[:-1]))


def batch_phase(batch: Batch) -> Iterator[tuple[Any, ...]]:
    """The statistics' phase, as arguments of `kernel`."""
    for name, args in batch.calls():
        yield name, *args


@pytest.mark.parametrize("shape", [(30, 1, 12, 1), (5, 1, 1027, 1), (6, 2, 3, 36)], **ids)
@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1e6, 1.0), (-1e6, 1e-2), (1e4, 1e-30), (1e4, 1e30), (0.0, 1e-30), (0.0, 1e30)],
)
def test_every_offset_and_scale(shape: tuple[int, ...], offset: float, scale: float) -> None:
    """Means up to 10⁶ standard deviations, squares beyond the range of float32."""
    batch = Batch(shape, "float32", True, offset, scale)
    assert_as_the_bodies(batch, "float32")
    assert_as_the_bodies(Batch(shape, "float32", False, offset, scale), "float32")
    y = kernel("row_normalize", batch.x, batch.mean, batch.rstd, None, None)
    x = batch.x.astype(np.longdouble)
    deviation = x - x.mean((2, 3), keepdims=True)
    var = np.square(deviation).mean((2, 3), keepdims=True)
    exact = deviation / np.sqrt(var + np.longdouble(1e-5) * np.longdouble(scale) ** 2)
    assert np.max(np.abs(y - exact)) <= 2e-6


@pytest.mark.parametrize("order", range(1, 5))
@pytest.mark.parametrize("shape", [(515, 1, 12, 1), (9, 1, 1031, 1), (40, 2, 2, 49)], **ids)
def test_bits_do_not_depend_on_the_order(shape: tuple[int, ...], order: int) -> None:
    """Of threads, nor of blocks."""
    batch = Batch(shape, "float32")
    for name, args in (*batch.calls(), *batch.whole_calls()):
        natural = kernel(name, *args)
        with thread_order(order):
            got = kernel(name, *args)
        for value, want in zip(tupled(got), tupled(natural), strict=True):
            assert value.tobytes() == want.tobytes(), name


@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(9, 1, 33, 1), (3, 1, 1025, 1), (4, 2, 3, 5)], **ids)
@pytest.mark.parametrize("place", [0, 7, -1])
def test_what_is_not_finite_stays_in_its_row(
    shape: tuple[int, ...], place: int, value: float, centred: bool
) -> None:
    """There, results are those of the bodies."""
    batch = Batch(shape, "float32", centred)
    batch.x[1, 0].reshape(-1)[place] = value
    batch.prepare()
    others = np.ones(shape[:2], bool)
    others[1, 0] = False
    for name, args in (*batch.calls(), *batch.whole_calls()):
        got, wanted = tupled(kernel(name, *args)), tupled(reference(name, *args))
        for result, want in zip(got, wanted, strict=True):
            if result.shape[:2] != shape[:2]:  # sums of channels, over all rows
                np.testing.assert_allclose(result, want, rtol=1e-9, atol=1e-12)
                continue
            assert np.isfinite(result[others]).all(), name
            np.testing.assert_array_equal(result[1, 0], want[1, 0], err_msg=name)


@every_dtype
@pytest.mark.parametrize("value", [0.1, -3e4, 6e-8])
@pytest.mark.parametrize("shape", [(5, 1, 40, 1), (2, 1, 1027, 1), (3, 2, 4, 9)], **ids)
def test_a_constant_row_gives_its_bias(shape: tuple[int, ...], value: float, dtype: str) -> None:
    kind = dtype_named(dtype)
    x = np.full(shape, value).astype(kind)
    bias = np.random.default_rng(0).standard_normal(shape[1:3]).astype(np.float32)
    y, _, var, _ = kernel("whole_row_norm", x, None, bias, 1e-5)
    assert (var == 0).all()
    want = np.broadcast_to(bias[:, :, None], shape).astype(kind)
    np.testing.assert_array_equal(y.astype(float), want.astype(float))


@every_dtype
def test_arrays_that_begin_anywhere(dtype: str) -> None:
    """Where 16 bytes may not be moved at once."""
    batch = Batch((5, 1, 64, 1), dtype)
    x = GPU.asarray(np.concatenate([batch.x[0, 0, :1, 0], batch.x.reshape(-1)]))
    y = kernel("whole_row_norm", x[1:].reshape(batch.x.shape), batch.weight, batch.bias, 1e-5)[0]
    want = kernel("whole_row_norm", batch.x, batch.weight, batch.bias, 1e-5)[0]
    np.testing.assert_array_equal(y.astype(float), want.astype(float))


def test_what_is_left_to_the_bodies() -> None:
    """Float64, gaps, nothing at all, an ε on the device."""
    moments, whole = GPU.kernels.get("row_moments"), GPU.kernels.get("whole_row_norm")
    assert moments is not None
    assert whole is not None
    x = GPU.asarray(np.ones((4, 2, 6, 1), np.float32))
    assert moments.accepts(x)
    for other in (x.astype(np.float64), x[:, :, ::2], x[:0]):
        assert not moments.accepts(other)
    assert whole.accepts(x, None, None, 1e-5)
    assert not whole.accepts(x, None, None, GPU.asarray(np.array(1e-5)))
