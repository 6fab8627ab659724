"""Ghost batch norm: batch norm of virtual batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.relatives import Relative, drawn, kept_of, state_of, values
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.normalization import BatchNorm, ghost


def cut(x, size, mask=None):
    """Where the virtual batches of x (N, C, S) begin: written for a reader, not for speed."""
    kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
    starts = list(range(0, len(x), size))
    count = 0
    while count < len(starts):
        ends = [*starts[1:], len(x)]
        if len(starts) > 1 and kept[starts[count] : ends[count]].sum() < 2:
            del starts[max(count, 1)]  # it joins the one before it; the first is joined by the next
            count = 0
        else:
            count += 1
    return starts


def ghosts(x, size, mask=None, eps=1e-5):
    """x (N, C, S), each virtual batch by its own moments."""
    kept = np.ones((len(x), x.shape[2]), bool) if mask is None else mask
    starts, parts = cut(x, size, mask), []
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        part = x[start:end]
        counted = np.moveaxis(part, 1, 2)[kept[start:end]]
        mean, var = counted.mean(0), counted.var(0)
        parts.append((part - mean[:, None]) / np.sqrt(var + eps)[:, None])
    return np.concatenate(parts)


class TestGhost(Relative):
    def make(self, virtual_batch_size=4, **options):
        return nn.GhostBatchNorm(3, virtual_batch_size, **options)

    def expected(self, x, mask, eps):
        return ghosts(x, 4, mask, eps)

    def biased(self):
        return {"running_var_correction": "biased", "virtual_batch_size": 16}

    def required(self):
        return {"virtual_batch_size": 4}

    @pytest.mark.parametrize("size", [0, -1, 2.5, "4"])
    def test_sizes_of_no_batch(self, size):
        with pytest.raises(ArgumentError, match="whole number ≥ 1 as virtual_batch_size, got"):
            nn.GhostBatchNorm(3, size)


class TestVirtualBatches:
    @pytest.mark.parametrize("options", [{}, {"axis": -1}, {"affine": False}, {"momentum": None}])
    @pytest.mark.parametrize("size", [8, 100])
    def test_a_single_one_is_batch_norm_to_the_bit(self, size, options, device):
        options = {"dtype": tg.float32, "device": device, **options}
        layers = BatchNorm(3, **options), nn.GhostBatchNorm(3, size, **options)
        x = drawn(8, 3, 5).astype(np.float32)
        x = np.moveaxis(x, 1, options.get("axis", 1))
        results = []
        for layer in layers:
            a = tg.tensor(x, device=device, requires_grad=True)
            y = layer(a)
            (y**3).sum().backward()
            grads = [p.grad.tolist() for p in (a, *layer.parameters())]
            results.append((y.tolist(), grads, state_of(layer)))
        assert results[0] == results[1]

    @pytest.mark.parametrize("samples", range(2, 11))
    def test_the_last_has_what_is_left_unless_that_is_a_single_value(self, samples):
        x = drawn(samples, 3)
        y = nn.GhostBatchNorm(3, 4, dtype=tg.float64)(tg.tensor(x))
        full = samples // 4 - (samples % 4 == 1 and samples > 4)
        parts = [*np.split(x[: 4 * full], full), x[4 * full :]] if full else [x]
        expected = np.concatenate([standardized(part, 0) for part in parts if len(part)])
        np.testing.assert_allclose(values(y), expected, atol=1e-13)

    def test_of_one_sample_are_instance_norm(self, device):
        x = tg.tensor(drawn(5, 3, 7), device=device)
        y = nn.GhostBatchNorm(3, 1, dtype=tg.float64, device=device)(x)
        np.testing.assert_allclose(values(y), values(nn.InstanceNorm1d(3)(x)), atol=1e-13)

    def test_of_one_value_are_refused_or_normalised_by_the_running_statistics(self):
        x = tg.tensor(drawn(5, 3))
        with pytest.raises(ShapeError, match=r"more than one value .* got 1 of \(5, 3\)"):
            nn.GhostBatchNorm(3, 1, dtype=tg.float64)(x)
        layer = nn.GhostBatchNorm(3, 1, dtype=tg.float64, on_single="running")
        np.testing.assert_allclose(values(layer(x)), values(x) / np.sqrt(1 + 1e-5))

    @pytest.mark.parametrize("where", ["first", "middle", "last", "first two"])
    def test_that_a_mask_leaves_less_than_two_values_join_another(self, where, device):
        x, mask = drawn(12, 3, 2), kept_of(12, 2)
        empty = {"first": 0, "middle": 4, "last": 8, "first two": 0}[where]
        mask[empty : empty + (8 if where == "first two" else 4)] = False
        mask[empty + 1, 0] = where != "last"  # one value, or none
        layer = nn.GhostBatchNorm(3, 4, dtype=tg.float64, device=device)
        y = layer(tg.tensor(x, device=device), tg.tensor(mask, device=device))
        np.testing.assert_allclose(values(y), ghosts(x, 4, mask), atol=1e-13)
        assert len(cut(x, 4, mask)) == (1 if where == "first two" else 2)

    def test_are_as_many_whether_normalised_at_once_or_one_after_another(self, monkeypatch):
        x, dy = drawn(23, 3, 4), drawn(23, 3, 4, seed=1)
        results = []
        for large in (1, 1 << 30):
            monkeypatch.setattr(ghost, "LARGE", large)
            layer = nn.GhostBatchNorm(3, 5, dtype=tg.float64)
            a = tg.tensor(x, requires_grad=True)
            y = layer(a)
            y.backward(tg.tensor(dy))
            found = [y, a.grad, layer.weight.grad, layer.running_mean, layer.running_var]
            results.append([values(v) for v in found])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)

    def test_do_not_see_each_other(self, device):
        """Neither the output of one nor its gradient depends on another's values."""
        x = drawn(8, 3)
        other = np.concatenate([x[:4], x[4:] * 5 + 1])
        results = []
        for values_ in (x, other):
            layer = nn.GhostBatchNorm(3, 4, dtype=tg.float64, device=device)
            a = tg.tensor(values_, device=device, requires_grad=True)
            y = layer(a)
            (y**3).sum().backward()
            results.append((values(y)[:4], values(a.grad)[:4]))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)


class TestRunningStatistics:
    @settings(max_examples=30, deadline=None)
    @given(
        samples=st.integers(2, 40),
        size=st.integers(2, 12),
        space=st.integers(1, 3),
        masked=st.booleans(),
        correction=st.sampled_from(["unbiased", "biased"]),
    )
    def test_are_those_of_batch_norm(self, samples, size, space, masked, correction):
        """Whatever the virtual batches are: a step goes to the moments of all of them together."""
        x = tg.tensor(drawn(samples, 3, space))
        mask = tg.tensor(kept_of(samples, space)) if masked else None
        options = {"dtype": tg.float64, "running_var_correction": correction}
        layers = BatchNorm(3, **options), nn.GhostBatchNorm(3, size, **options)
        for layer in layers:
            layer(x, mask)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            plain, ghostly = (values(getattr(layer, name)) for layer in layers)
            np.testing.assert_allclose(ghostly, plain, rtol=1e-12)

    def test_absent_evaluation_too_takes_virtual_batches(self):
        layer = nn.GhostBatchNorm(3, 4, track_running_stats=False, dtype=tg.float64)
        x = drawn(8, 3, 1)
        for mode in (True, False):
            y = layer.train(mode)(tg.tensor(x))
            np.testing.assert_allclose(values(y), ghosts(x, 4), atol=1e-13)


@pytest.mark.torch
def test_gradients_are_those_of_pytorchs_chunks():
    torch = pytest.importorskip("torch")
    x, dy = drawn(10, 3, 4), drawn(10, 3, 4, seed=1)
    layer, theirs = nn.GhostBatchNorm(3, 4, dtype=tg.float64), torch.nn.BatchNorm1d(3).double()
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    layer(a).backward(tg.tensor(dy))
    torch.cat([theirs(part) for part in b.split(4)]).backward(torch.tensor(dy))
    for p, q in zip((a, *layer.parameters()), (b, *theirs.parameters()), strict=True):
        np.testing.assert_allclose(values(p.grad), q.grad.numpy(), atol=1e-12)


def test_says_what_it_is():
    assert repr(nn.GhostBatchNorm(3, 32)).startswith("GhostBatchNorm(3, virtual_batch_size=32, eps")
