"""What norms promise in digits: every bound is a test with its figure, on both backends, and on the
CPU with kernels and without.

The oracle is the formula in long double, of the same input. Gradients of higher order have their
figures in ``test_gradients.py``, sums of gradients and bits in ``test_properties.py``, NaN and
infinity in ``test_containment.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.distributed.watched import spawn
from tests.nn.normalization.family import NORMS, Inputs, Results, drawn, exact, ours
from tests.two_backends import dtype_named
from tinygrad_bn import nn
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn import functional as F

UNIT = {"float64": 2**-53, "float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
"""Half a unit in the last place of a number from 1 to 2: what one rounding may cost it."""
every_norm = pytest.mark.parametrize("norm", NORMS, ids=str)
every_centred_norm = pytest.mark.parametrize("norm", [n for n in NORMS if n.centred], ids=str)


def norm_of(value: Any) -> float:
    """The Euclidean norm, also of numbers whose squares overflow."""
    largest = np.max(np.abs(value), initial=0.0)
    return float(largest * np.sqrt(np.sum(np.square(value / largest)))) if largest else 0.0


def relative(got: Any, wanted: Any) -> float:
    return norm_of(got - wanted) / norm_of(wanted)


def assert_within_roundings(inputs: Inputs, device: str, roundings: float = 8.0) -> None:
    """Errors are a few roundings of the dtype, and those of float64 statistics: a mean loses 2⁻⁵³
    of its size; and a variance, summed in differences from a first value, up to as many times
    2⁻⁵³ as there are values, where the first is far from all others.
    """
    got, want, norm, shape = ours(inputs, device), exact(inputs), inputs.norm, inputs.x.shape
    unit = UNIT[inputs.x.dtype.name]
    wide = UNIT["float64"] * (8 * (1 + want.ratio) + 2 * norm.values(shape))
    tolerance = roundings * unit + wide
    x_hat = np.abs(want.x_hat)
    size = np.sqrt(np.mean(np.square(x_hat)))
    if inputs.weight is None:
        size = size + x_hat
    else:
        size = size + x_hat * norm.spread(shape, np.abs(inputs.weight).astype(np.longdouble))
    if inputs.bias is not None:
        size = size + norm.spread(shape, np.abs(inputs.bias).astype(np.longdouble))
    assert np.all(np.abs(got.y - want.y) <= tolerance * size)
    assert norm_of(got.dx - want.dx) <= tolerance * norm_of(want.terms)
    for grad, wanted, terms in (
        (got.dweight, want.dweight, np.abs(inputs.dy) * (1 + x_hat)),
        (got.dbias, want.dbias, np.abs(inputs.dy)),
    ):
        if grad is not None:
            allowed = 2 * unit * np.abs(wanted) + wide * terms.sum(norm.summed(shape))
            assert np.all(np.abs(grad - wanted) <= allowed)


def powers(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda exponent: 10.0**exponent)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 7))


class TestEveryShapeOffsetAndScale:
    @every_norm
    @settings(max_examples=12, deadline=None)
    @given(
        sizes=sizes,
        offset=st.tuples(st.sampled_from([-1, 1]), powers(-6, 6)),
        in_units_of_the_scale=st.booleans(),
        scale=powers(-30, 30),
        scaled_eps=st.booleans(),
        dtype=st.sampled_from(["float32", "float32", "float64", "bfloat16"]),
        affine=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_errs_by_roundings(
        self,
        norm,
        route,
        sizes,
        offset,
        in_units_of_the_scale,
        scale,
        scaled_eps,
        dtype,
        affine,
        seed,
    ):
        sign, distance = offset
        inputs = drawn(
            norm,
            norm.sizes(*sizes),
            seed,
            dtype_named(dtype),
            offset=sign * distance * (scale if in_units_of_the_scale else 1),
            scale=scale,
            eps=1e-5 * (scale**2 if scaled_eps else 1),
            affine=affine,
        )
        assert_within_roundings(inputs, route)

    @every_norm
    @settings(max_examples=5, deadline=None)
    @given(
        sizes=sizes,
        distance=powers(0, 6),
        offset=st.floats(-1e3, 1e3),
        scale=powers(-30, 30),
        seed=st.integers(0, 99),
    )
    def test_errs_by_roundings_where_the_first_value_is_far_from_all_others(
        self, norm, route, sizes, distance, offset, scale, seed
    ):
        """It is of differences from the first that means are taken."""
        options = {"offset": offset * scale, "scale": scale, "eps": 1e-5 * scale**2}
        inputs = drawn(norm, norm.sizes(*sizes), seed, np.float32, **options)
        grouped = inputs.x.reshape(norm.grouped(inputs.x.shape))
        at = tuple(0 if axis in norm.axes else slice(None) for axis in range(grouped.ndim))
        grouped[at] += np.float32(distance * scale)
        assert_within_roundings(inputs, route)

    @every_norm
    @settings(max_examples=5, deadline=None)
    @given(
        sizes=sizes,
        offset=st.floats(-1e3, 1e3),
        scale=powers(-3, 1),
        dtype=st.sampled_from(["float16", "bfloat16"]),
        seed=st.integers(0, 99),
    )
    def test_rounds_sixteen_bits_once(self, norm, route, sizes, offset, scale, dtype, seed):
        """To the number of 16 bits that is nearest, but where float32 lay between two of them."""
        inputs = drawn(
            norm, norm.sizes(*sizes), seed, dtype_named(dtype), offset=offset, scale=scale
        )
        got, want = ours(inputs, route).y.astype(np.float64), exact(inputs).y
        smallest = 2.0**-24 if dtype == "float16" else 0.0
        # what γ x̂ + β of float32 is off by, where the two nearly cancel
        smallest += 8 * 2.0**-24 * np.abs(want).max()
        assert np.all(np.abs(got - want) <= 1.01 * UNIT[dtype] * np.abs(want) + smallest)


def ordinary(norm: Any, **options: Any) -> Inputs:
    """Some hundred values a group."""
    return drawn(norm, norm.sizes(96, 3, 32), dtype=np.float32, affine=False, **options)


def figures(inputs: Inputs, device: str) -> tuple[Results, Results]:
    got, want = ours(inputs, device), exact(inputs)
    assert np.isfinite(got.y).all()
    assert np.isfinite(got.dx).all()
    return got, want


class TestNamedFigures:
    """The rows of the table as they stand."""

    @every_norm
    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (1e4, 1.0), (1e5, 1.0), (-1e6, 1.0), (1e-6, 1.0)]
    )
    def test_far_from_zero(self, norm, route, offset, scale):
        got, want = figures(ordinary(norm, offset=offset, scale=scale), route)
        assert np.max(np.abs(got.y - want.y)) <= 2e-6
        assert relative(got.dx, want.dx) <= 1e-6

    @every_centred_norm
    def test_where_the_gradient_is_far_from_zero(self, norm, route):
        """Its mean is taken from dy = 10⁴ ± 1, and no digit of what is left."""
        inputs = ordinary(norm, offset=1e4)
        inputs = replace(inputs, dy=inputs.dy + np.float32(1e4))
        got, want = figures(inputs, route)
        assert relative(got.dx, want.dx) <= 1e-6

    @every_norm
    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    @pytest.mark.parametrize("scaled_eps", [True, False], ids=["eps_scaled", "eps_as_it_is"])
    def test_at_extreme_scales(self, norm, route, scale, scaled_eps):
        """Also where ε dominates, and x̂ is 1e-28: its own size is what the error is told in."""
        eps = 1e-5 * (scale**2 if scaled_eps else 1)
        got, want = figures(ordinary(norm, scale=scale, eps=eps), route)
        size = np.sqrt(np.mean(np.square(want.x_hat)))
        assert np.max(np.abs(got.y - want.y)) <= 2e-6 * size
        assert relative(got.dx, want.dx) <= 1e-6

    @every_centred_norm
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_a_constant_channel_gives_exactly_its_bias(self, norm, route, dtype):
        inputs = drawn(norm, norm.sizes(9, 3, 7), dtype=dtype_named(dtype))
        bias = np.broadcast_to(norm.spread(inputs.x.shape, inputs.bias), inputs.x.shape)
        for value in (0.1, -1e4 / 3, 6e-8, *((1e-30, -1e30) if dtype != "float16" else ())):
            x = np.full_like(inputs.x, value)
            np.testing.assert_array_equal(ours(replace(inputs, x=x), route).y, bias)


class TestShards:
    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    @pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
    def test_merge_without_loss(self, route, offset, scale):
        """Moments of shards, one far from the others, are merged as exactly as they are taken."""
        inputs = ordinary(NORMS[0], offset=offset * scale, scale=scale, eps=1e-5 * scale**2)
        inputs.x[:7] += np.float32(1e3 * scale)
        cuts = (7, 7, 40, 41)  # and so one is empty

        def of_rank(x: Any, dy: Any) -> Results:
            layer = nn.SyncBatchNorm(inputs.x.shape[1], eps=inputs.eps, affine=False)
            leaf = tg.tensor(x, device=route, requires_grad=True)
            y = layer.to(route)(leaf)
            y.backward(tg.tensor(dy, device=route))
            return Results(y.detach().cpu().numpy(), leaf.grad.cpu().numpy())

        shards = list(zip(np.split(inputs.x, cuts), np.split(inputs.dy, cuts), strict=True))
        found = spawn(lambda rank: of_rank(*shards[rank]), len(shards))
        want = exact(inputs)
        y, dx = (np.concatenate([getattr(r, name) for r in found]) for name in ("y", "dx"))
        assert np.max(np.abs(y - want.y)) <= 2e-6
        assert relative(dx, want.dx) <= 1e-6


class TestSixteenBits:
    @every_norm
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_an_eps_that_they_have_not_counts(self, norm, route, dtype):
        """Float16 has no number from 0 to 3e-8: an ε of 1e-9 is as large as the variance here, and
        would be 0 in it.
        """
        inputs = drawn(norm, norm.sizes(16, 3, 8), dtype=dtype_named(dtype), scale=3e-5, eps=1e-9)
        inputs = replace(inputs, dy=inputs.dy / 100)  # dx is thousands of times dy, up to 65504
        assert_within_roundings(inputs, route, roundings=2.0)


RUNNING: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "batch_biased": partial(nn.BatchNorm1d, running_var_correction="biased"),
    "batch_last": partial(nn.BatchNorm1d, axis=-1),
    "ghost": partial(nn.GhostBatchNorm, virtual_batch_size=24),
    "renorm": nn.BatchRenorm,
    "sync": nn.SyncBatchNorm,
}
"""The layers whose running statistics are those of each channel over everything else."""


class TestRunningStatistics:
    @pytest.mark.parametrize("name", RUNNING)
    @pytest.mark.parametrize("momentum", [1.0, None])
    @pytest.mark.parametrize(
        ("dtype", "offset", "scale"),
        [
            ("float32", 1e4, 1e-2),
            ("float32", -1e6, 1.0),
            ("float32", 1e-6, 1.0),
            ("float32", 1e21, 1e18),  # a variance near float32's largest
            ("float32", 1e-12, 1e-15),
            ("float64", 1e6, 1.0),
            ("float16", 100.0, 3.0),
            ("bfloat16", 100.0, 3.0),
        ],
    )
    def test_after_one_batch_are_its_own(self, name, route, momentum, dtype, offset, scale):
        """Rounded once, to float32 at least; 2e-16 of the mean is the error of its own sum."""
        dtype = dtype_named(dtype)
        layer = RUNNING[name](3, momentum=momentum, device=route, dtype=dtype)
        x = (offset + scale * np.random.default_rng(0).standard_normal((64, 3, 3))).astype(dtype)
        layer(tg.tensor(x, dtype=dtype, device=route))
        axes = (0, 1) if name == "batch_last" else (0, 2)
        mean = np.longdouble(x).mean(axes)
        var = np.longdouble(x).var(axes, ddof=0 if name == "batch_biased" else 1)
        kept = np.float64 if dtype == np.float64 else np.float32
        unit = UNIT[np.dtype(kept).name]
        running_mean, running_var = (
            v.cpu().numpy() for v in (layer.running_mean, layer.running_var)
        )
        assert running_mean.dtype == running_var.dtype == kept
        assert np.all(np.abs(running_mean - mean) <= (unit + 2e-16) * np.abs(mean))
        # what the mean's own error adds to a variance is its square; merged parts have means
        # that err by themselves, and so do the differences between them
        lost = 4e-16 * np.abs(mean)
        allowed = lost * np.sqrt(var) if name == "ghost" else lost**2
        assert np.all(np.abs(running_var - var) <= (unit + 2e-15) * var + allowed)

    def test_of_sixteen_bits_stay_in_float32_when_the_layer_is_cast(self, route):
        layer = nn.BatchNorm1d(3, dtype=tg.float16, device=route)
        for dtype in (tg.float32, tg.float16, dtype_named("bfloat16")):
            layer.to(dtype)
            assert layer.weight.dtype == dtype
            assert layer.running_mean.dtype == layer.running_var.dtype == np.float32


class TestOneValueAChannel:
    """Never NaN: an error that says what to do, or the running statistics."""

    @pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
    def test_is_an_error_or_normalised_by_the_running_statistics(self, route, shape):
        x = tg.full(shape, 5.0, device=route)
        with pytest.raises(ShapeError, match="on_single"):
            nn.BatchNorm1d(3, device=route)(x)
        layer = nn.BatchNorm1d(3, on_single="running", device=route)
        np.testing.assert_array_equal(layer(x).tolist(), layer.eval()(x).tolist())

    @pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
    def test_is_an_error_of_the_function(self, route, shape):
        with pytest.raises(ShapeError, match="more than one value"):
            F.batch_norm(tg.ones(shape, device=route), None, None, training=True)

    def test_under_a_mask_too(self, route):
        mask = tg.tensor([True, False, False], device=route)
        with pytest.raises(ShapeError, match="more than one value"):
            F.batch_norm(tg.ones(3, 2, device=route), None, None, training=True, mask=mask)
        layer = nn.BatchNorm1d(2, on_single="running", device=route)
        y = layer(tg.full((3, 2), 5.0, device=route), mask)
        assert np.isfinite(y.tolist()).all()

    def test_of_a_row_is_exactly_its_bias(self, route):
        bias = tg.tensor([0.3], device=route)
        y = F.layer_norm(tg.full((4, 1), 7.0, device=route), 1, tg.ones(1, device=route), bias)
        assert y.tolist() == [[bias.item()]] * 4
