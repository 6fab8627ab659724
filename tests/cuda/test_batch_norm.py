"""The kernels of batch norm against the bodies that define them, around every boundary of a size
and in several orders of threads.

Bounds of whole norms against long double are in ``tests/nn/normalization/test_precision.py``, which
runs through these kernels on ``device="cuda"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels.channel_plans import Division

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn.ops import moments, whole_norms

STORED = ("float32", "float16", "bfloat16")
UNIT = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
every_dtype = pytest.mark.parametrize("dtype", STORED)
every_order = pytest.mark.parametrize("order", range(4))

COLUMNS = [
    *((n, c) for n in (1, 2, 7, 8, 9, 31, 33, 257) for c in (1, 3, 4, 8, 16, 36)),
    *((5, c) for c in (31, 32, 33, 127, 128, 129, 136, 1024)),
    (64 * 1024 + 1, 4),
    (4099, 5),
    (1031, 264),
]
POSITIONS = [
    *((n, c, s) for n in (1, 2, 5) for c in (1, 3) for s in (2, 4, 8, 31, 32, 33, 49, 64)),
    (3, 2, 257),
    (2, 3, 2048),
    (1, 2, 4099),
    (70, 1, 1000),
    (2, 40, 8),
]
SHAPES = [(*sizes, 1) for sizes in COLUMNS] + POSITIONS


class Batch:
    """Arguments of the phases; the offset is in units of the scale."""

    def __init__(
        self, shape: tuple[int, ...], dtype: str, offset: float = 0.0, scale: float = 1.0
    ) -> None:
        rng = np.random.default_rng(sum(shape))
        kind = dtype_named(dtype)
        self.x = ((rng.standard_normal(shape) + offset) * scale).astype(kind)
        self.dy = rng.standard_normal(shape).astype(kind)
        self.weight, self.bias = rng.standard_normal((2, shape[1])).astype(np.float32)
        self.mean, self.var = reference("batch_moments", self.x, None)
        self.rstd = 1 / np.sqrt(self.var + 1e-5 * scale**2)
        self.count = shape[0] * shape[2]

    def calls(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Every phase with what it gets."""
        kept = self.x, self.mean, self.rstd
        yield "batch_moments", (self.x, None)
        yield "batch_normalize", (*kept, self.weight, self.bias)
        yield "batch_grad_sums", (self.dy, *kept, None)
        means = [s / self.count for s in reference("batch_grad_sums", self.dy, *kept, None)]
        yield "batch_grad_input", (self.dy, *kept, self.weight, *means, None)

    def whole_calls(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The forward and the backward that are done at once."""
        for relu in (False, True):
            yield "whole_batch_norm", (self.x, self.weight, self.bias, None, 1e-5, relu)
            known = self.dy, self.x, self.mean, self.rstd, self.weight, self.bias, None
            yield "whole_batch_norm_grad", (*known, self.count, relu)


def reference(name: str, *args: Any) -> Any:
    module = whole_norms if name.startswith("whole") else moments
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
    if isinstance(result, tuple):
        return tuple(GPU.to_numpy(value) for value in result)
    return GPU.to_numpy(result)


def sizes(batch: Batch, name: str, dtype: str) -> tuple[Any, ...]:
    """What results may err by: roundings of float64 sums, of as many terms as there are; and of
    float32, of the largest number on the way, and then a unit of 16 bits, where both round.
    """
    x, dy = batch.x.astype(np.float64), batch.dy.astype(np.float64)
    mean, rstd, std = (v[:, None] for v in (batch.mean, batch.rstd, np.sqrt(batch.var)))
    weight, bias = np.abs(batch.weight)[:, None], np.abs(batch.bias)[:, None]
    x_hat = (np.abs(x - mean) + std) * rstd
    wide = 4 * 2**-53 * (1 + np.sqrt(batch.count))
    if name == "batch_moments":
        spread = np.square(batch.x[0, :, 0].astype(np.float64) - batch.mean) + batch.var
        return wide * (np.sqrt(batch.var) + np.abs(batch.mean)), wide * spread
    if name == "batch_grad_sums":
        total = np.sum(np.abs(dy), axis=(0, 2))
        return wide * total, wide * np.sum(np.abs(dy) * (x_hat + np.abs(mean) * rstd), axis=(0, 2))
    narrow = 4 * 2**-24
    once = 2 * UNIT[dtype] if dtype != "float32" else 0.0
    if name == "batch_normalize":
        return ((narrow + once) * (weight * x_hat + bias),)
    terms = np.abs(dy) + 1 + x_hat  # means of dy and of dy·x̂ are below 1
    return ((2 * narrow + once) * weight * rstd * terms + 2.0**-24 * (dtype == "float16"),)


def assert_as_the_bodies(batch: Batch, dtype: str) -> None:
    for name, args in batch.calls():
        got, wanted = kernel(name, *args), reference(name, *args)
        if not isinstance(got, tuple):
            got, wanted = (got,), (wanted,)
        for value, want, allowed in zip(got, wanted, sizes(batch, name, dtype), strict=True):
            assert (value.dtype, value.shape) == (want.dtype, want.shape), name
            error = np.abs(value.astype(np.float64) - want.astype(np.float64))
            assert np.all(error <= allowed), (name, float(np.max(error / allowed)))


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size(shape: tuple[int, ...], dtype: str) -> None:
    with thread_order(sum(shape) % 5):
        assert_as_the_bodies(Batch(shape, dtype), dtype)


@every_dtype
@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
def test_the_relu_lets_through_what_it_gave(shape: tuple[int, ...], dtype: str) -> None:
    """To the bit: backward, which computes y once more, cannot take another side than forward."""
    batch = Batch(shape, dtype)
    kept, affine = (batch.x, batch.mean, batch.rstd), (batch.weight, batch.bias)
    with thread_order(sum(shape) % 5):
        y = kernel("batch_normalize", *kept, *affine)
        positive = kernel("batch_normalize_relu", *kept, *affine)
        np.testing.assert_array_equal(positive, np.maximum(y, 0))
        dy = batch.dy * (y > 0)
        sums = kernel("batch_relu_grad_sums", batch.dy, *kept, *affine, None)
        np.testing.assert_array_equal(sums, kernel("batch_grad_sums", dy, *kept, None))
        means = [total / batch.count for total in sums]
        dx = kernel("batch_relu_grad_input", batch.dy, *kept, *affine, *means, None)
        wanted = kernel("batch_grad_input", dy, *kept, batch.weight, *means, None)
        np.testing.assert_array_equal(dx, wanted)


@every_dtype
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_at_once_is_what_the_phases_are(shape: tuple[int, ...], relu: bool, dtype: str) -> None:
    """Statistics up to the order of sums, and elements to the bit, in one launch or in two."""
    batch = Batch(shape, dtype)
    affine, wide = (batch.weight, batch.bias), sizes(batch, "batch_moments", dtype)
    with thread_order(sum(shape) % 5):
        y, mean, var, rstd = kernel("whole_batch_norm", batch.x, *affine, None, 1e-5, relu)
        assert np.all(np.abs(mean - batch.mean) <= wide[0])
        assert np.all(np.abs(var - batch.var) <= wide[1])
        np.testing.assert_allclose(rstd, 1 / np.sqrt(var + 1e-5), rtol=4e-16)
        name = "batch_normalize_relu" if relu else "batch_normalize"
        np.testing.assert_array_equal(y, kernel(name, batch.x, mean, rstd, *affine))
        known = batch.dy, batch.x, mean, rstd, *affine, None
        dx, *sums = kernel("whole_batch_norm_grad", *known, batch.count, relu)
        dy = batch.dy * (y > 0) if relu else batch.dy
        wanted = reference("batch_grad_sums", dy, batch.x, mean, rstd, None)
        for total, want, allowed in zip(
            sums, wanted, sizes(batch, "batch_grad_sums", dtype), strict=True
        ):
            assert np.all(np.abs(total - want) <= allowed)
        means = [total * (1 / batch.count) for total in sums]
        wanted = kernel("batch_grad_input", dy, *known[1:4], batch.weight, *means, None)
        np.testing.assert_array_equal(dx, wanted)


@pytest.mark.parametrize("shape", [(300, 12, 1), (259, 7, 1), (6, 5, 36), (5, 3, 49)], ids=str)
@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1e6, 1.0), (-1e6, 1e-2), (1e4, 1e-30), (1e4, 1e30), (0.0, 1e-30), (0.0, 1e30)],
)
def test_every_offset_and_scale(shape: tuple[int, ...], offset: float, scale: float) -> None:
    """Means up to 10⁶ standard deviations, squares beyond the range of float32."""
    batch = Batch(shape, "float32", offset, scale)
    assert_as_the_bodies(batch, "float32")
    y = kernel("batch_normalize", batch.x, batch.mean, batch.rstd, None, None)
    x = batch.x.astype(np.longdouble)
    deviation = x - x.mean((0, 2), keepdims=True)
    var = np.square(deviation).mean((0, 2), keepdims=True)
    exact = deviation / np.sqrt(var + np.longdouble(1e-5) * np.longdouble(scale) ** 2)
    assert np.max(np.abs(y - exact)) <= 2e-6


@every_order
@every_dtype
@pytest.mark.parametrize("shape", [(1000, 8, 1), (515, 3, 1), (40, 2, 256), (9, 3, 49)], ids=str)
def test_bits_do_not_depend_on_the_order(shape: tuple[int, ...], dtype: str, order: int) -> None:
    """Of threads, nor of blocks: their sums are merged in one order, whoever comes last."""
    batch = Batch(shape, dtype)
    for name, args in (*batch.calls(), *batch.whole_calls()):
        natural = kernel(name, *args)
        with thread_order(order + 1):
            got = kernel(name, *args)
        pairs = zip(got, natural, strict=True) if isinstance(got, tuple) else [(got, natural)]
        for value, want in pairs:
            assert value.tobytes() == want.tobytes(), name


@every_order
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(70, 8, 1), (70, 3, 1), (9, 3, 20), (9, 3, 7)], ids=str)
@pytest.mark.parametrize("place", [0, 37, -1])
def test_what_is_not_finite_stays_in_its_channel(
    shape: tuple[int, ...], value: float, place: int, order: int
) -> None:
    """There, results are those of the bodies."""
    batch = Batch(shape, "float32")
    rows = batch.x[:, 1].copy()
    rows.reshape(-1)[place] = value
    batch.x[:, 1] = rows
    batch.mean, batch.var = reference("batch_moments", batch.x, None)
    with np.errstate(all="ignore"):
        batch.rstd = 1 / np.sqrt(batch.var + 1e-5)
    others = [c for c in range(shape[1]) if c != 1]
    for name, args in (*batch.calls(), *batch.whole_calls()):
        with thread_order(order):
            got, wanted = kernel(name, *args), reference(name, *args)
        pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
        for result, want in pairs:
            axis = 0 if result.ndim == 1 else 1
            assert np.isfinite(np.take(result, others, axis)).all(), name
            np.testing.assert_array_equal(
                np.take(result, 1, axis), np.take(want, 1, axis), err_msg=name
            )


@pytest.mark.parametrize("channels", [1, 255, 256, 257])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moving_averages(channels: int, dtype: str) -> None:
    """Three roundings of float64; the rate is a number, or on the device already."""
    rng = np.random.default_rng(channels)
    running, value = rng.random(channels).astype(dtype), rng.random(channels)
    for rate in (0.1, 1.0, np.array(0.25)):
        for order in range(3):
            with thread_order(order):
                moved = kernel("moving_average", running, value, rate, 1.5)
            wanted = reference("moving_average", running, value, rate, 1.5)
            assert moved.dtype == wanted.dtype == np.float64
            np.testing.assert_allclose(moved, wanted, rtol=4e-16)


@every_dtype
@pytest.mark.parametrize("shape", [(65, 3, 1), (65, 8, 1), (7, 3, 12), (7, 3, 5)], ids=str)
@pytest.mark.parametrize("value", [0.1, -3e4, 6e-8])
def test_a_constant_channel_gives_exactly_its_bias(
    shape: tuple[int, ...], dtype: str, value: float
) -> None:
    batch = Batch(shape, dtype)
    batch.x[:] = value
    mean, var = kernel("batch_moments", batch.x, None)
    assert (mean == float(batch.x[0, 0, 0])).all()
    assert (var == 0).all()
    bias = batch.bias.astype(batch.x.dtype)
    y = kernel("batch_normalize", batch.x, mean, 1 / np.sqrt(var + 1e-5), batch.weight, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None], shape))


@pytest.mark.parametrize("shape", [(65, 4, 1), (5, 3, 16)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_parameters_may_have_another_dtype_or_be_absent(shape: tuple[int, ...], dtype: str) -> None:
    batch = Batch(shape, "float32")
    kept = batch.x, batch.mean, batch.rstd
    for weight, bias in (
        (batch.weight.astype(dtype_named(dtype)), batch.bias.astype(dtype_named(dtype))),
        (batch.weight, None),
        (None, batch.bias),
        (None, None),
    ):
        y = kernel("batch_normalize", *kept, weight, bias)
        wanted = reference("batch_normalize", *kept, weight, bias)
        np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)  # roundings of up to 10
    means = np.zeros(shape[1]), np.ones(shape[1])
    dx = kernel("batch_grad_input", batch.dy, *kept, None, *means, None)
    wanted = reference("batch_grad_input", batch.dy, *kept, None, *means, None)
    np.testing.assert_allclose(dx, wanted, rtol=1e-6, atol=1e-6)


@every_dtype
@pytest.mark.parametrize("shape", [(70, 8, 1), (9, 3, 16)], ids=str)
def test_arrays_that_begin_anywhere(shape: tuple[int, ...], dtype: str) -> None:
    """Not at a multiple of 16 bytes: element by element then."""
    batch = Batch(shape, dtype)
    found = GPU.kernels.get("batch_moments")
    assert found is not None
    with GPU.guard:  # type: ignore[union-attr]
        room = GPU.xp.concatenate(
            [GPU.asarray(batch.x[:1, :1, :1].ravel()), GPU.asarray(batch.x).ravel()]
        )
        mean, _ = found.run(room[1:].reshape(shape), None)
    np.testing.assert_allclose(GPU.to_numpy(mean), batch.mean, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 49, 64, 65, 12544, (1 << 30) - 1, 1 << 30])
def test_division_by_multiplying(divisor: int) -> None:
    """Exact for all numbers of up to 30 bits that are next to a multiple."""
    magic, shift = (int(v) for v in Division.by(divisor))
    assert magic < 1 << 32
    multiples = np.unique(np.linspace(0, (1 << 30) // divisor, 999).astype(np.int64)) * divisor
    i = np.concatenate([multiples - 1, multiples, multiples + 1])
    i = i[(i >= 0) & (i < 1 << 30)].astype(np.uint64)
    np.testing.assert_array_equal(i * np.uint64(magic) >> np.uint64(shift), i // divisor)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 3, 1), np.float64),
        np.zeros((0, 3, 1), np.float32),
        np.zeros((4, 3, 0), np.float32),
        np.zeros((3, 4, 1), np.float32).transpose(1, 0, 2),
        np.zeros((4, 3, 6), np.float32)[..., ::2],
    ],
    ids=["float64", "no_sample", "no_position", "transposed", "strided"],
)
def test_goes_to_the_reference(x: Any) -> None:
    given, good = GPU.asarray(x), GPU.asarray(np.zeros(x.shape, np.float32))
    if not x.flags.c_contiguous:  # which sending it has changed
        plain = GPU.asarray(np.zeros((3, 4, 1) if x.strides[0] < x.strides[1] else (4, 3, 6), "f4"))
        with GPU.guard:  # type: ignore[union-attr]
            given = plain.transpose(1, 0, 2) if plain.shape[2] == 1 else plain[..., ::2]
    vectors = [GPU.asarray(np.zeros(3))] * 2
    narrow = [GPU.asarray(np.zeros(3, np.float32))] * 2
    mask = GPU.asarray(np.ones((4, x.shape[2]), bool))
    for name, args in (
        ("batch_moments", (given, None)),
        ("batch_moments", (good, mask)),
        ("batch_normalize", (given, *vectors, None, None)),
        ("batch_normalize", (good, *narrow, None, None)),
        ("batch_normalize_relu", (given, *vectors, None, None)),
        ("batch_grad_sums", (good, given, *vectors, None)),
        ("batch_grad_sums", (given, good, *vectors, None)),
        ("batch_grad_sums", (good, good, *vectors, mask)),
        ("batch_relu_grad_sums", (good, good, *vectors, None, None, mask)),
        ("batch_relu_grad_input", (good, good, *vectors, None, None, *vectors, mask)),
        ("whole_batch_norm", (given, None, None, None, 1e-5, False)),
        ("whole_batch_norm", (good, None, None, mask, 1e-5, False)),
        ("whole_batch_norm_grad", (given, good, *vectors, None, None, None, 12, True)),
        ("whole_batch_norm_grad", (good, good, *narrow, None, None, None, 12, True)),
        ("whole_batch_norm_grad", (good, good, *vectors, None, None, mask, 12, True)),
        ("batch_grad_input", (given, good, *vectors, None, *vectors, None)),
        ("batch_grad_input", (good, good, *vectors, None, *narrow, None)),
        ("batch_grad_input", (good, good, *vectors, None, *vectors, mask)),
    ):
        found = GPU.kernels.get(name)
        assert found is not None
        assert not found.accepts(*args), name
