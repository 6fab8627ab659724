"""Pooling layers, and the operations beneath where samples do not reach."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import config, nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

SIZES = {1: (9,), 2: (7, 8), 3: (4, 5, 6)}
WINDOWS = [(2,), (3, 2), (3, 2, 1)]
KINDS = {
    "MaxPool": [
        *((args, {}) for args in WINDOWS),
        ((2,), {"dilation": 2, "stride": 1}),
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
        ((2, 3), {"ceil_mode": True}),
        ((2,), {"return_indices": True}),
    ],
    "AvgPool": [
        *((args, {}) for args in WINDOWS),
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
        ((2, 3), {"ceil_mode": True}),
    ],
    "AdaptiveAvgPool": [((1,), {}), ((3,), {}), ((4,), {})],
    "AdaptiveMaxPool": [((1,), {}), ((3,), {}), ((2,), {"return_indices": True})],
}
CASES = [(kind, args, options) for kind, cases in KINDS.items() for args, options in cases]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@pytest.mark.torch
@pytest.mark.parametrize("axes", SIZES)
@pytest.mark.parametrize(("kind", "args", "options"), CASES, ids=str)
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
def test_is_as_in_pytorch(axes, kind, args, options, batched):
    torch = pytest.importorskip("torch")
    ours, theirs = (getattr(t.nn, f"{kind}{axes}d")(*args, **options) for t in (tg, torch))
    x = normal(*([2] if batched else []), 3, *SIZES[axes])
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    if options.get("return_indices"):
        np.testing.assert_array_equal(y[1].numpy(), z[1].numpy())
        y, z = y[0], z[0]
    dy = normal(*z.shape, seed=1)
    y.backward(tg.tensor(dy))
    z.backward(torch.tensor(dy))
    # float64; means of up to some hundred values
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-14)
    assert repr(ours) == repr(theirs)
    assert not ours.state_dict()


@pytest.mark.parametrize(("kind", "args", "options"), CASES, ids=str)
def test_channels_last_is_the_same_laid_out_otherwise(kind, args, options, device):
    one = getattr(nn, f"{kind}2d")(*args, **options)
    other = getattr(nn, f"{kind}2d")(*args, **options, axis=-1)
    x = tg.tensor(normal(2, 3, 7, 8), device=device)
    y, z = one(x), other(x.permute(0, 2, 3, 1))
    for a, b in zip(*((v if isinstance(v, tuple) else (v,)) for v in (y, z)), strict=True):
        # the same sums; a kernel may fuse products where axes lie otherwise
        np.testing.assert_allclose(
            a.cpu().numpy(), b.permute(0, 3, 1, 2).cpu().numpy(), rtol=0, atol=1e-15
        )


class TestMax:
    def test_ties_go_to_the_first(self, device):
        x = tg.zeros(1, 1, 2, 2, device=device, requires_grad=True)
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        y.sum().backward()
        assert indices.tolist() == [[[[0]]]]
        assert x.grad.tolist() == [[[[1, 0], [0, 0]]]]

    def test_nan_is_greatest_and_stays_in_its_windows(self, device):
        x = tg.tensor([[[1.0, math.nan, 2.0, 3.0]]], device=device)
        assert str(F.max_pool1d(x, 2).tolist()) == "[[[nan, 3.0]]]"

    def test_padding_is_never_taken(self, device):
        x = tg.full((1, 1, 3), -math.inf, device=device)
        y, indices = F.max_pool1d(x, 2, stride=2, padding=1, return_indices=True)
        assert y.tolist() == [[[-math.inf, -math.inf]]]
        assert indices.tolist() == [[[0, 1]]]

    def test_overlapping_windows_add_their_gradients(self, device):
        x = tg.tensor([[[0.0, 5.0, 0.0]]], device=device, requires_grad=True)
        F.max_pool1d(x, 2, stride=1).sum().backward()
        assert x.grad.tolist() == [[[0, 2, 0]]]

    @pytest.mark.parametrize("limit", [1, 300])
    def test_blocks_of_images_give_the_same(self, limit, monkeypatch, device):
        x = tg.tensor(normal(3, 2, 5, 5), device=device)
        with tg.reference_kernels():
            whole = F.max_pool2d(x, 3, 1, return_indices=True)
            monkeypatch.setitem(config._defaults, "workspace", limit)
            parts = F.max_pool2d(x, 3, 1, return_indices=True)
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(a.cpu().numpy(), b.cpu().numpy())


class TestAverage:
    def test_nan_stays_in_its_windows(self, device):
        x = tg.tensor([[[1.0, math.nan, 2.0, 4.0]]], device=device)
        assert str(F.avg_pool1d(x, 2).tolist()) == "[[[nan, 3.0]]]"
        assert str(F.adaptive_avg_pool1d(x, 2).tolist()) == "[[[nan, 3.0]]]"

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_sixteen_bits_are_added_in_float32(self, dtype, device):
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        y = F.adaptive_avg_pool2d(tg.full((1, 1, 80, 80), 60.0, dtype=dtype, device=device), 1)
        assert y.item() == 60  # 384000 is beyond float16

    def test_is_a_mean_over_samples_that_may_be_none(self, device):
        assert F.avg_pool2d(tg.zeros(0, 2, 4, 4, device=device), 2).shape == (0, 2, 2, 2)
        assert F.max_pool2d(tg.zeros(0, 2, 4, 4, device=device), 2).shape == (0, 2, 2, 2)


class TestBadInput:
    """Refused by name, before anything is computed."""

    @pytest.mark.parametrize("function", [F.avg_pool2d, F.max_pool2d])
    @pytest.mark.parametrize(
        ("shape", "options", "error", "match"),
        [
            ((4, 4), {"kernel_size": 2}, ShapeError, "rank 4, or 3"),
            ((1, 2, 4, 4, 4), {"kernel_size": 2}, ShapeError, "rank 4, or 3"),
            ((1, 2, 4, 3), {"kernel_size": (2, 4)}, ShapeError, "windows of 4 positions and 3"),
            ((1, 2, 0, 3), {"kernel_size": 1}, ShapeError, "and 0 with"),
            ((1, 2, 4, 4), {"kernel_size": 0}, ArgumentError, "kernel_size ≥ 1"),
            ((1, 2, 4, 4), {"kernel_size": 2.0}, DtypeError, "whole numbers"),
            ((1, 2, 4, 4), {"kernel_size": (2, 2, 2)}, ShapeError, "1 or 2 numbers"),
            ((1, 2, 4, 4), {"kernel_size": 2, "stride": 0}, ArgumentError, "stride ≥ 1"),
            ((1, 2, 4, 4), {"kernel_size": 3, "padding": 2}, ArgumentError, "at most half"),
            ((1, 2, 4, 4), {"kernel_size": 2, "axis": 3}, ArgumentError, "1 or -1"),
        ],
    )
    def test_is_named(self, function, shape, options, error, match):
        with pytest.raises(error, match=match):
            function(tg.zeros(shape), **options)

    def test_of_other_kinds(self):
        x = tg.zeros(1, 1, 4, 4)
        for function in (F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
            with pytest.raises(DtypeError):
                function(x.long(), 2)
        with pytest.raises(ArgumentError, match="divisor_override other than 0"):
            F.avg_pool2d(x, 2, divisor_override=0)
        with pytest.raises(ArgumentError, match="output_size ≥ 1"):
            F.adaptive_avg_pool2d(x, 0)
        with pytest.raises(ShapeError, match="output_size"):
            F.adaptive_max_pool2d(x, (2, 2, 2))
        with pytest.raises(ShapeError, match="positions to pool"):
            F.adaptive_max_pool2d(tg.zeros(1, 1, 4, 0), 2)
        with pytest.raises(ShapeError, match="a position in every window"):
            F.max_pool1d(tg.zeros(1, 1, 1), 2, padding=2, dilation=3)
        for kind in (nn.MaxPool2d, nn.AvgPool2d):
            with pytest.raises(ArgumentError):
                kind(3, padding=2)
