"""Layers that change the size of images or put more around them, and what lies beneath."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

LAYERS = [
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (1.5, 2), "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", ((3, 9),), {"mode": "bicubic"}, (2, 3, 4, 5)),
    ("Upsample", (7,), {"mode": "linear", "align_corners": True}, (2, 3, 4)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 2)),
    ("PixelUnshuffle", (2,), {}, (2, 2, 4, 6)),
    ("Unfold", (2,), {"padding": 1}, (2, 3, 4, 5)),
    ("Fold", ((4, 5), (2, 1)), {}, (2, 6, 15)),
    ("ZeroPad1d", (2,), {}, (2, 3, 4)),
    ("ZeroPad2d", ((1, 2, -1, 0),), {}, (2, 3, 4, 5)),
    ("ZeroPad3d", (1,), {}, (2, 1, 2, 2, 3)),
    ("ConstantPad1d", ((1, 2), 3.5), {}, (2, 3, 4)),
    ("ConstantPad2d", (2, -1.0), {}, (2, 3, 4, 5)),
    ("ConstantPad3d", (1, 0.5), {}, (1, 2, 2, 3)),
    ("ReflectionPad1d", (2,), {}, (2, 3, 4)),
    ("ReflectionPad2d", ((1, 2, 3, 0),), {}, (3, 4, 5)),
    ("ReflectionPad3d", (1,), {}, (1, 1, 2, 2, 3)),
    ("ReplicationPad1d", ((3, 1),), {}, (3, 4)),
    ("ReplicationPad2d", (2,), {}, (2, 3, 4, 5)),
    ("ReplicationPad3d", (1,), {}, (1, 1, 2, 2, 3)),
    ("CircularPad1d", (2,), {}, (2, 3, 4)),
    ("CircularPad2d", ((1, 2, 3, 0),), {}, (2, 3, 4, 5)),
    ("CircularPad3d", (1,), {}, (1, 1, 2, 2, 3)),
]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS, ids=str)
def test_layers_are_as_in_pytorch(name, args, options, shape):
    torch = pytest.importorskip("torch")
    ours, theirs = (getattr(t.nn, name)(*args, **options) for t in (tg, torch))
    x = normal(*shape)
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    dy = normal(*z.shape, seed=1)
    y.backward(tg.tensor(dy))
    z.backward(torch.tensor(dy))
    # float64; sums of a few products
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-13)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-13)
    assert repr(ours) == repr(theirs)


@pytest.mark.torch
@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    factor=st.sampled_from([0.3, 0.5, 0.9, 1.0, 1.3, 2.0, 2.7, 3.0]),
    mode=st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]),
    corners=st.booleans(),
    recompute=st.booleans(),
)
def test_factors_are_as_in_pytorch(size, factor, mode, corners, recompute):
    torch = pytest.importorskip("torch")
    if math.floor(min(size) * factor) < 1:
        return
    options = {"scale_factor": factor, "mode": mode, "recompute_scale_factor": recompute}
    if not mode.startswith("nearest"):
        options["align_corners"] = corners
    x = normal(1, 2, *size)
    y = F.interpolate(tg.tensor(x), **options).numpy()
    z = torch.nn.functional.interpolate(torch.tensor(x), **options).numpy()
    np.testing.assert_allclose(y, z, atol=1e-12)


class TestInterpolation:
    def test_nearest_copies_and_keeps_nan_where_it_is(self, device):
        x = tg.tensor([[[1.0, math.nan, 3.0]]], device=device)
        assert str(F.interpolate(x, 6).tolist()) == "[[[1.0, 1.0, nan, nan, 3.0, 3.0]]]"
        y = F.interpolate(x, 5, mode="linear", align_corners=True)
        assert str(y.tolist()) == "[[[1.0, nan, nan, nan, 3.0]]]"

    def test_places_are_exact_where_float32_would_round_them(self, device):
        """Pixel 49 of 98 from 2 is the first of the second half, although 2 / 98 · 49 < 1."""
        x = tg.tensor([[[0.0, 1.0]]], device=device)
        assert F.interpolate(x, 98).sum().item() == 49

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
    def test_the_same_size_changes_nothing(self, mode, device):
        x = tg.tensor(normal(1, 2, 4, 5), device=device)
        np.testing.assert_array_equal(
            F.interpolate(x, (4, 5), mode=mode).cpu().numpy(), x.cpu().numpy()
        )

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
    def test_a_constant_stays(self, mode, device):
        y = F.interpolate(tg.full((1, 1, 3, 4), 2.0, device=device).double(), (7, 5), mode=mode)
        np.testing.assert_allclose(y.cpu().numpy(), 2, rtol=1e-14)  # the sum of rounded weights

    @pytest.mark.parametrize(
        ("shape", "options", "error", "match"),
        [
            ((2, 3), {"size": 2}, ShapeError, "rank 3, 4 or 5"),
            ((1, 1, 0), {"size": 2}, ShapeError, "with positions"),
            ((1, 1, 4), {}, ArgumentError, "either size or scale_factor"),
            ((1, 1, 4), {"size": 2, "scale_factor": 2}, ArgumentError, "either size or"),
            ((1, 1, 4), {"size": 0}, ArgumentError, "size ≥ 1"),
            ((1, 1, 4), {"size": 2.5}, DtypeError, "whole numbers"),
            ((1, 1, 4), {"size": (2, 2)}, ShapeError, "1 or 1 numbers"),
            ((1, 1, 4), {"scale_factor": 0.1}, ArgumentError, "a size ≥ 1"),
            ((1, 1, 4), {"scale_factor": -1}, ArgumentError, "numbers > 0"),
            ((1, 1, 4), {"scale_factor": (1, 2)}, ArgumentError, "numbers > 0"),
            ((1, 1, 4), {"size": 2, "mode": "bilinear"}, ArgumentError, "for rank 3 a mode of"),
            ((1, 1, 4, 4), {"size": 2, "mode": "sinc"}, ArgumentError, "bicubic; got 'sinc'"),
            ((1, 1, 4), {"size": 2, "align_corners": True}, ArgumentError, "align_corners for"),
            ((1, 1, 4), {"size": 2, "recompute_scale_factor": True}, ArgumentError, "got a size"),
        ],
    )
    def test_bad_input_is_named(self, shape, options, error, match):
        with pytest.raises(error, match=match):
            F.interpolate(tg.zeros(shape), **options)


def test_shuffled_pixels_come_back(device):
    x = tg.tensor(normal(2, 12, 3, 5), device=device)
    back = F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)
    np.testing.assert_array_equal(back.cpu().numpy(), x.cpu().numpy())
    for function, shape in ((F.pixel_shuffle, (6, 3, 3)), (F.pixel_unshuffle, (6, 3, 4))):
        with pytest.raises(ShapeError):
            function(tg.zeros(shape), 2)
        with pytest.raises(ShapeError):
            function(tg.zeros(4, 4), 2)
        with pytest.raises(ArgumentError):
            function(tg.zeros(shape), 0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: F.unfold(tg.zeros(4, 4), 2), ShapeError),
        (lambda: F.unfold(tg.zeros(1, 1, 4, 4), 5), ShapeError),
        (lambda: F.unfold(tg.zeros(1, 1, 4, 4), 0), ArgumentError),
        (lambda: F.unfold(tg.zeros(1, 1, 4, 4).long(), 2), DtypeError),
        (lambda: F.fold(tg.zeros(1, 3, 9), (4, 4), 2), ShapeError),
        (lambda: F.fold(tg.zeros(1, 4, 8), (4, 4), 2), ShapeError),
        (lambda: F.fold(tg.zeros(4), (4, 4), 2), ShapeError),
        (lambda: F.fold(tg.zeros(1, 4, 9), (1, 1), 2), ShapeError),
        (lambda: nn.ZeroPad2d((1, 2)), ShapeError),
        (lambda: nn.ZeroPad2d(1.5), DtypeError),
        (lambda: nn.ReflectionPad2d(1)(tg.zeros(2, 2)), ShapeError),
        (lambda: nn.PixelShuffle(0), ArgumentError),
    ],
)
def test_bad_input_is_refused(call, error):
    with pytest.raises(error, match="expected"):
        call()
