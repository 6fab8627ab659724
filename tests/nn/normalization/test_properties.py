"""What norms owe to their definition: moments of the output, invariances, sums of the gradient,
equalities between siblings, the packed batch behind a mask, the order of samples, and bits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.family import (
    NORMS,
    Norm,
    Results,
    batch,
    batch_last,
    drawn,
    exact,
    instance,
    ours,
    with_affine,
)
from tinygrad_bn import nn
from tinygrad_bn.nn import functional as F

FLOAT32 = 5e-7
"""Eight roundings of float32: between two ways of computing the same numbers near 1."""
FLOAT64 = 1e-13
"""Sums of some hundred numbers of float64 in another order."""

every_norm = pytest.mark.parametrize("norm", NORMS, ids=str)
over_the_batch = pytest.mark.parametrize("norm", [n for n in NORMS if 0 in n.axes], ids=str)
over_a_sample = pytest.mark.parametrize("norm", [n for n in NORMS if n.per_sample], ids=str)
sizes = st.tuples(st.integers(1, 30), st.integers(1, 5), st.integers(1, 7))
seeds = st.integers(0, 99)


def fields(results: Results) -> dict[str, Any]:
    """What a call gives, by name."""
    named = {"y": results.y, "dx": results.dx, "dγ": results.dweight, "dβ": results.dbias}
    return {name: value for name, value in named.items() if value is not None}


def assert_same_bits(got: Results, wanted: Results) -> None:
    for name, value in fields(wanted).items():
        np.testing.assert_array_equal(fields(got)[name], value, err_msg=name)


def assert_close(got: Results, wanted: Results, tolerance: float) -> None:
    """Each result, relative to its largest number."""
    for name, value in fields(wanted).items():
        error = np.max(np.abs(fields(got)[name] - value), initial=0.0)
        assert error <= tolerance * np.max(np.abs(value), initial=1e-300), name


class TestTheOutput:
    @every_norm
    @settings(max_examples=6, deadline=None)
    @given(sizes=sizes, seed=seeds, eps=st.sampled_from([1e-5, 0.5]), offset=st.floats(-1e3, 1e3))
    def test_has_mean_0_and_variance_var_over_var_plus_eps(self, norm, sizes, seed, eps, offset):
        """Of a norm that is not centred, the mean square is what is divided, and what comes out."""
        inputs = drawn(norm, norm.sizes(*sizes), seed, offset=offset, eps=eps, affine=False)
        y, counts = ours(inputs).y, inputs.counts
        tolerance = FLOAT64 * (1 + abs(offset))
        _, mean, variance = replace(norm, centred=True).moments(y, counts)
        var = norm.moments(inputs.x, counts)[2]
        if norm.centred:
            np.testing.assert_allclose(mean, 0, atol=tolerance)
        else:
            variance = variance + mean**2
        np.testing.assert_allclose(variance, var / (var + eps), atol=tolerance)

    @every_norm
    @settings(max_examples=5, deadline=None)
    @given(sizes=sizes, seed=seeds, power=st.integers(-90, 90))
    def test_does_not_see_a_scale_of_its_input(self, norm, sizes, seed, power):
        """A power of 2 changes no digit, so that ε scaled with it gives the same bits."""
        inputs = drawn(norm, norm.sizes(*sizes), seed, np.float32)
        scale = np.float32(2.0**power)
        scaled = replace(inputs, x=inputs.x * scale, eps=inputs.eps * float(scale) ** 2)
        got, wanted = ours(scaled), ours(inputs)
        np.testing.assert_array_equal(got.y, wanted.y)
        np.testing.assert_array_equal(got.dx, wanted.dx / scale)

    @every_norm
    @settings(max_examples=5, deadline=None)
    @given(sizes=sizes, seed=seeds, scale=st.floats(0.1, 1e3), sign=st.sampled_from([-1, 1]))
    def test_turns_with_the_sign_of_a_scale(self, norm, sizes, seed, scale, sign):
        """Any scale will do where ε is too small to be seen."""
        inputs = drawn(norm, norm.sizes(*sizes), seed, eps=1e-300, affine=False)
        y = ours(replace(inputs, x=inputs.x * (sign * scale))).y
        # scaled values are rounded, which shows where those of a group are close together
        np.testing.assert_allclose(y, sign * ours(inputs).y, atol=1e-10)

    @pytest.mark.parametrize("norm", [norm for norm in NORMS if norm.centred], ids=str)
    @settings(max_examples=5, deadline=None)
    @given(sizes=sizes, seed=seeds, shift=st.integers(-(2**20), 2**20))
    def test_does_not_see_a_shift_of_its_input(self, norm, sizes, seed, shift):
        """Float32 holds whole numbers up to 2²⁴: the shift of these rounds nothing."""
        inputs = drawn(norm, norm.sizes(*sizes), seed, np.float32)
        inputs = replace(inputs, x=np.round(inputs.x * 100))
        shifted = replace(inputs, x=inputs.x + np.float32(shift))
        assert np.all(shifted.x - np.float32(shift) == inputs.x)
        got, wanted = ours(shifted), ours(inputs)
        np.testing.assert_allclose(got.y, wanted.y, atol=4 * FLOAT32)  # y is some 4
        size = np.max(exact(inputs).terms)
        np.testing.assert_allclose(got.dx, wanted.dx, atol=FLOAT32 * float(size))

    def test_of_a_batch_of_two_is_the_sign_of_the_difference(self, device):
        x = np.array([[1.0, -3.0, 5.0], [2.0, 1.0, 5.0]], np.float32)
        half = (x[1] - x[0]) / 2
        wanted = half / np.sqrt(half**2 + 1e-5) * np.array([[-1], [1]])
        y = F.batch_norm(tg.tensor(x, device=device), None, None, training=True)
        np.testing.assert_allclose(y.tolist(), wanted, atol=1.2e-7)  # two roundings of 1


class TestTheGradient:
    @every_norm
    @settings(max_examples=6, deadline=None)
    @given(sizes=sizes, seed=seeds, eps=st.sampled_from([1e-5, 0.5]), offset=st.floats(-1e3, 1e3))
    def test_sums_to_zero_by_itself_and_times_x_hat(self, norm, sizes, seed, eps, offset):
        """Σ dx = 0, as a shift changes nothing; Σ dx·x̂ is what ε leaves of a change of scale:
        ε rstd³ Σ γ dy x̂. Relative to the sizes of what dx is a difference of.
        """
        inputs = drawn(norm, norm.sizes(*sizes), seed, np.float32, eps=eps, offset=offset)
        got, want, shape = ours(inputs), exact(inputs), inputs.x.shape
        size = norm.over(shape, want.terms)
        if norm.centred:
            assert np.all(np.abs(norm.over(shape, got.dx.astype(np.float64))) <= 1e-6 * size)
        _, _, var = norm.moments(inputs.x.astype(np.longdouble), inputs.counts)
        g = inputs.dy * norm.spread(shape, inputs.weight)
        through_eps = eps * (var + eps) ** -1.5 * norm.over(shape, g * want.x_hat)
        error = norm.over(shape, got.dx * want.x_hat) - through_eps
        assert np.all(np.abs(error) <= 1e-6 * norm.over(shape, want.terms * np.abs(want.x_hat)))


class TestSiblings:
    """Two names of one norm give the same, gradients too."""

    SHAPE = (6, 4, 5)

    def assert_equal(self, one: Any, other: Any) -> None:
        plain = Norm("", one, lambda *_: self.SHAPE, (0,))
        for dtype, tolerance in ((np.float64, FLOAT64), (np.float32, FLOAT32)):
            inputs = drawn(plain, self.SHAPE, dtype=dtype, offset=3.0)
            wanted = ours(replace(inputs, norm=replace(plain, function=other)))
            assert_close(ours(inputs), wanted, tolerance)

    def test_one_group_is_layer_norm_of_all_but_the_samples(self):
        def one_group(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return F.group_norm(x, 1, weight, bias, eps)

        def layer(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            y = F.layer_norm(x, self.SHAPE[1:], eps=eps)
            return y * weight.reshape(-1, 1) + bias.reshape(-1, 1)

        self.assert_equal(one_group, layer)

    def test_a_group_for_each_channel_is_instance_norm(self):
        def groups(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return F.group_norm(x, self.SHAPE[1], weight, bias, eps)

        self.assert_equal(groups, instance)

    def test_instance_norm_is_batch_norm_of_each_sample(self):
        def each(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return tg.cat([batch(sample, weight, bias, None, eps) for sample in x.split(1)])

        self.assert_equal(instance, each)

    @pytest.mark.parametrize(
        "layer",
        [
            lambda channels, eps: nn.GhostBatchNorm(channels, 6, eps, affine=False),
            lambda channels, eps: nn.BatchRenorm(channels, eps, affine=False),
            lambda channels, eps: nn.SyncBatchNorm(channels, eps, affine=False),
        ],
        ids=["ghost_of_one_virtual_batch", "renorm_without_correction", "sync_alone"],
    )
    def test_a_special_case_is_batch_norm(self, layer):
        def special(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return with_affine(layer(x.shape[1], eps), weight, bias)(x)

        self.assert_equal(special, batch)

    def test_channels_last_are_channels_first_transposed(self):
        def last(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return batch_last(x.movedim(1, -1), weight, bias, None, eps).movedim(-1, 1)

        self.assert_equal(last, batch)

    def test_a_mask_of_all_true_is_none(self):
        def masked(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
            return batch(x, weight, bias, tg.ones(len(x), x.shape[2], dtype=tg.bool), eps)

        self.assert_equal(masked, batch)


class TestMasks:
    @settings(max_examples=20, deadline=None)
    @given(
        n=st.integers(2, 30),
        positions=st.integers(1, 5),
        seed=seeds,
        padding=st.sampled_from([0.0, 1e30, np.nan, np.inf]),
    )
    def test_what_counts_is_as_the_packed_batch(self, n, positions, seed, padding):
        """Whatever stands in the padding, where no gradient comes in."""
        norm = next(norm for norm in NORMS if norm.masked)
        inputs = drawn(norm, (n, 3, positions), seed)
        kept = inputs.mask[:, None, :] & np.ones((1, 3, 1), bool)
        padded = replace(
            inputs, x=np.where(kept, inputs.x, padding), dy=np.where(kept, inputs.dy, 0)
        )

        def packed(x: Any) -> Any:
            return np.moveaxis(x, 1, -1)[inputs.mask]

        together = replace(
            inputs, norm=NORMS[0], x=packed(inputs.x), dy=packed(inputs.dy), mask=None
        )
        got, wanted = ours(padded), ours(together)
        # dx of two values is ε's share of what cancels: 1e-5 and less of it is left, so are digits
        assert_close(replace(got, y=packed(got.y), dx=packed(got.dx)), wanted, 1e-9)
        np.testing.assert_array_equal(got.dx[~kept], 0)

        layers = nn.BatchNorm1d(3, dtype=tg.float64), nn.BatchNorm1d(3, dtype=tg.float64)
        layers[0](tg.tensor(padded.x), tg.tensor(inputs.mask))
        layers[1](tg.tensor(together.x))
        for a, b in zip(*(layer.buffers() for layer in layers), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


class TestTheOrderOfSamples:
    @over_a_sample
    @settings(max_examples=6, deadline=None)
    @given(sizes=sizes, seed=seeds)
    def test_changes_no_bit_where_each_is_by_itself(self, norm, sizes, seed):
        inputs = drawn(norm, norm.sizes(*sizes), seed, np.float32)
        order = np.random.default_rng(seed).permutation(len(inputs.x))
        got = ours(replace(inputs, x=inputs.x[order], dy=inputs.dy[order]))
        wanted = ours(inputs)
        np.testing.assert_array_equal(got.y, wanted.y[order])
        np.testing.assert_array_equal(got.dx, wanted.dx[order])

    @over_the_batch
    @settings(max_examples=6, deadline=None)
    @given(sizes=sizes, seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
    def test_matters_to_sums_over_the_batch_by_their_rounding(self, norm, sizes, seed, dtype):
        inputs = drawn(norm, norm.sizes(*sizes), seed, dtype)
        order = np.random.default_rng(seed).permutation(len(inputs.x))
        mask = None if inputs.mask is None else inputs.mask[order]
        got = ours(replace(inputs, x=inputs.x[order], dy=inputs.dy[order], mask=mask))
        wanted, tolerance = ours(inputs), FLOAT32 if dtype == "float32" else FLOAT64
        size = float(np.max(exact(inputs).terms))
        np.testing.assert_allclose(got.y, wanted.y[order], rtol=tolerance, atol=tolerance * 10)
        np.testing.assert_allclose(got.dx, wanted.dx[order], rtol=0, atol=tolerance * size)

    def test_matters_to_running_statistics_by_their_rounding(self, device):
        x = np.random.default_rng(0).normal(1e3, 1.0, (64, 3))
        layers = [nn.BatchNorm1d(3, dtype=tg.float64, device=device) for _ in range(2)]
        for layer, values in zip(layers, (x, x[::-1].copy()), strict=True):
            layer(tg.tensor(values, device=device))
        for a, b in zip(*(layer.buffers() for layer in layers), strict=True):
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=FLOAT64)


DIGESTS = """
import hashlib
from tests.nn.normalization.family import NORMS, drawn, ours
for norm in NORMS:
    for dtype in ("float32", "float64"):
        found = ours(drawn(norm, norm.sizes(200, 8, 24), dtype=dtype, offset=10.0))
        arrays = (found.y, found.dx, found.dweight, found.dbias)
        joined = b"".join(a.tobytes() for a in arrays if a is not None)
        print(norm.name, dtype, hashlib.sha256(joined).hexdigest())
"""


class TestBits:
    @every_norm
    def test_are_the_same_in_every_run_and_in_threads_beside_each_other(self, norm):
        inputs = drawn(norm, norm.sizes(64, 5, 16), dtype=np.float32)
        wanted = ours(inputs)
        with ThreadPoolExecutor(6) as pool:
            for got in pool.map(ours, [inputs] * 12):
                assert_same_bits(got, wanted)

    def test_do_not_depend_on_the_number_of_threads(self):
        """Numba's, OpenBLAS's and OpenMP's, of which a process has its own."""
        digests = set()
        for threads in ("1", "3"):
            names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
            environment = {**os.environ, **dict.fromkeys(names, threads)}
            root = Path(__file__).parents[3]
            command = [sys.executable, "-c", DIGESTS]
            done = subprocess.run(
                command, cwd=root, env=environment, check=True, capture_output=True, text=True
            )
            assert done.stdout.count("float32") == len(NORMS)
            digests.add(done.stdout)
        assert len(digests) == 1


class TestLayouts:
    """Where the values lie in memory is nobody's concern: copies in C order give the same bits."""

    def results(self, inputs: Any, x: Any, dy: Any) -> Results:
        x.requires_grad_()
        weight, bias, mask = (
            None if v is None else tg.tensor(v) for v in (inputs.weight, inputs.bias, inputs.mask)
        )
        y = inputs.norm.function(x, weight, bias, mask, inputs.eps)
        y.backward(dy)
        return Results(y.detach().numpy(), x.grad.numpy())

    @every_norm
    @pytest.mark.parametrize("layout", ["transposed", "reversed", "every_other", "read_only"])
    def test_of_inputs_and_gradients(self, norm, layout):
        shape = norm.sizes(6, 3, 4)
        inputs = drawn(norm, shape, dtype=np.float32)

        def laid_out(values: Any) -> Any:
            if layout == "transposed":
                return np.copy(values.T, order="C").T
            if layout == "reversed":
                return np.copy(values[::-1, ::-1], order="C")[::-1, ::-1]
            if layout == "every_other":
                return np.repeat(np.repeat(values, 2, -1), 2, 0)[::2, ..., ::2]
            values = values.copy()
            values.flags.writeable = False
            return values

        x, dy = laid_out(inputs.x), laid_out(inputs.dy)
        assert (layout == "read_only") == x.flags.c_contiguous
        got = self.results(inputs, tg.from_numpy(x), tg.from_numpy(dy))
        np.testing.assert_array_equal(x, inputs.x)
        np.testing.assert_array_equal(dy, inputs.dy)
        assert_same_bits(got, replace(ours(inputs), dweight=None, dbias=None))

    @every_norm
    def test_of_numbers_that_stand_for_many(self, norm):
        """Expanded samples and positions, and the gradient that a sum sends back."""
        shape = norm.sizes(6, 3, 4)
        inputs = drawn(norm, shape, dtype=np.float32)
        x = np.broadcast_to(inputs.x[..., :1], shape)
        dy = np.broadcast_to(np.float32(0.5), shape)
        got = self.results(inputs, tg.from_numpy(x), tg.from_numpy(dy))
        same = replace(inputs, x=x.copy(), dy=dy.copy())
        assert_same_bits(got, replace(ours(same), dweight=None, dbias=None))
