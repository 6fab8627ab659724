"""Transposed convolution layers, and the operation beneath where samples do not reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

CLASSES = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZES = {1: (5,), 2: (4, 3), 3: (2, 3, 2)}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "output_padding": 2, "groups": 2},
    {"dilation": 2, "bias": False},
    {"dilation": 3, "output_padding": 2},
    {"dilation": 3, "output_padding": 2, "padding": 1, "stride": 2},
    {"dilation": 3, "output_padding": 2, "padding": 3, "bias": False},
    {"groups": 4, "padding": 1},
]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    last=st.booleans(),
)
def test_is_the_transpose_of_convolution(groups, kernel, size, stride, padding, dilation, last):
    """⟨y, conv(x)⟩ = ⟨convᵀ(y), x⟩, with as much output padding as the size of x asks for."""
    reach = [dilation * (k - 1) + 1 for k in kernel]
    axis = -1 if last else 1
    w = tg.tensor(normal(2 * groups, 3, *kernel))
    shape = (2, *size, 3 * groups) if last else (2, 3 * groups, *size)
    x = tg.tensor(normal(*shape))
    options = {"dilation": dilation, "groups": groups, "stride": stride, "axis": axis}
    z = F.conv2d(x, w, padding=padding, **options)
    y = tg.tensor(normal(*z.shape, seed=1))
    more = [(n + 2 * padding - r) % stride for n, r in zip(size, reach, strict=True)]
    back = F.conv_transpose2d(y, w, padding=padding, output_padding=more, **options)
    assert back.shape == x.shape
    assert back.array.flags.c_contiguous
    # float64 sums of some hundred products
    np.testing.assert_allclose((y * z).sum().item(), (back * x).sum().item(), atol=1e-11)


@pytest.mark.torch
@pytest.mark.parametrize("axes", CLASSES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestLikePyTorch:
    def layers(self, axes, options):
        torch = pytest.importorskip("torch")
        theirs = getattr(torch.nn, f"ConvTranspose{axes}d")(4, 8, 3, **options).double()
        ours = CLASSES[axes](4, 8, 3, **options, dtype=tg.float64)
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        return ours, theirs, torch

    @pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
    def test_values_and_gradients(self, axes, options, batched):
        ours, theirs, torch = self.layers(axes, options)
        x = normal(*([2] if batched else []), 4, *SIZES[axes])
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        dy = normal(*z.shape, seed=1)
        y.backward(tg.tensor(dy))
        z.backward(torch.tensor(dy))
        pairs = [(y, z), (a.grad, b.grad)]
        pairs += [
            (p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
        ]
        for found, expected in pairs:
            # float64, sums of some hundred products in another order
            np.testing.assert_allclose(
                found.detach().numpy(), expected.detach().numpy(), atol=1e-12
            )

    def test_names(self, axes, options):
        ours, theirs, _ = self.layers(axes, options)
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())


class TestOutputSize:
    @pytest.mark.parametrize("size", [(9, 7), (10, 8), (9, 8), (2, 5, 10, 7)])
    @pytest.mark.torch
    def test_is_what_is_asked_for(self, size):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1).double()
        ours = nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, dtype=tg.float64)
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        x = normal(2, 3, 5, 4)
        y, z = ours(tg.tensor(x), output_size=size), theirs(torch.tensor(x), output_size=size)
        assert y.shape[-2:] == size[-2:]
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-13)

    def test_with_channels_last(self):
        m = nn.ConvTranspose2d(3, 5, 3, stride=2, axis=-1)
        assert m(tg.zeros(2, 4, 4, 3), (2, 10, 9, 5)).shape == (2, 10, 9, 5)
        assert m(tg.zeros(4, 4, 3), (10, 9)).shape == (10, 9, 5)

    @pytest.mark.parametrize("size", [(8, 9), (11, 9), (9,), (1, 9, 9), (9, 9, 9, 9, 9)])
    def test_that_cannot_be_is_refused(self, size):
        with pytest.raises(ShapeError, match=r"from \(9, 9\), less than \(2, 2\) beyond"):
            nn.ConvTranspose2d(3, 5, 3, stride=2)(tg.zeros(2, 3, 4, 4), size)


class TestBadInput:
    @pytest.mark.parametrize(
        ("x", "w", "options", "error", "match"),
        [
            ((1, 3, 4, 4), (2, 3, 2, 2), {}, ShapeError, "2 channels.*got 3"),
            ((1, 3, 4), (3, 2, 2, 2), {}, ShapeError, "3 channels.*got 1"),
            ((3, 4), (3, 2, 2, 2), {}, ShapeError, "rank 4, or 3"),
            ((1, 3, 4, 4), (3, 2, 2, 2), {"groups": 2}, ShapeError, "2 equal groups"),
            ((1, 3, 4, 4), (3, 2, 2, 2), {"output_padding": 1}, ArgumentError, "below stride"),
            ((1, 3, 1, 1), (3, 2, 2, 2), {"padding": 1}, ShapeError, r"size ≥ 1, got \(0, 0\)"),
            ((1, 3, 0, 1), (3, 2, 2, 2), {}, ShapeError, "with positions"),
            ((1, 3, 4, 4), (3, 2, 2, 2), {"padding": "same"}, DtypeError, "whole numbers"),
        ],
    )
    def test_is_named(self, x, w, options, error, match):
        with pytest.raises(error, match=match):
            F.conv_transpose2d(tg.zeros(x), tg.zeros(w), **options)

    def test_of_a_layer_is_refused_when_it_is_made(self):
        with pytest.raises(ArgumentError, match="zeros"):
            nn.ConvTranspose2d(2, 2, 3, padding_mode="reflect")
        with pytest.raises(DtypeError):
            nn.ConvTranspose2d(2, 2, 3, padding="same")
        with pytest.raises(ArgumentError):
            nn.ConvTranspose2d(2, 2, 3, output_padding=-1)
