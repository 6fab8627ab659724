"""Convolution layers, and the operations beneath where samples do not reach."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import config, nn
from tinygrad_bn.autograd import gradcheck
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

CLASSES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2},
    {"padding": "same", "bias": False},
    {"groups": 2, "padding": 2, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "reflect", "stride": 2},
    {"padding": "same", "padding_mode": "replicate"},
    {"padding": "valid", "padding_mode": "reflect", "groups": 4},
]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def by_definition(x, w, stride, padding, dilation, groups):
    """One product after the other, of zeros too."""
    n, _, height, width = x.shape
    out, inputs, *kernel = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = [dilation * (k - 1) + 1 for k in kernel]
    rows, columns = (
        (s + 2 * padding - r) // stride + 1 for s, r in zip((height, width), reach, strict=True)
    )
    y = np.zeros((n, out, rows, columns))
    for o, i, j in itertools.product(range(out), range(rows), range(columns)):
        first = o // (out // groups) * inputs
        window = padded[
            :,
            first : first + inputs,
            i * stride : i * stride + reach[0] : dilation,
            j * stride : j * stride + reach[1] : dilation,
        ]
        y[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    return y


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 3),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    room=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    last=st.booleans(),
)
def test_is_its_definition(
    n, groups, inputs, outputs, kernel, room, stride, padding, dilation, last
):
    size = [
        max(dilation * (k - 1) + 1 - 2 * padding, 1) + r for k, r in zip(kernel, room, strict=True)
    ]
    x, w = normal(n, groups * inputs, *size), normal(groups * outputs, inputs, *kernel)
    ours = tg.tensor(np.moveaxis(x, 1, -1).copy() if last else x)
    axis = -1 if last else 1
    y = F.conv2d(ours, tg.tensor(w), None, stride, padding, dilation, groups, axis=axis).numpy()
    assert y.flags.c_contiguous
    y = np.moveaxis(y, -1, 1) if last else y
    # sums of at most 18 products of numbers up to 4
    np.testing.assert_allclose(
        y, by_definition(x, w, stride, padding, dilation, groups), atol=1e-13
    )


@pytest.mark.torch
@pytest.mark.parametrize("axes", CLASSES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestLikePyTorch:
    def layers(self, axes, options):
        torch = pytest.importorskip("torch")
        theirs = getattr(torch.nn, f"Conv{axes}d")(4, 8, 3, **options).double()
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


class TestChannelsLast:
    @pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
    @pytest.mark.parametrize("kernel", [1, 3])
    def test_is_the_same_function_of_values_laid_out_otherwise(self, mode, kernel, device):
        options = {"padding": kernel // 2, "padding_mode": mode, "groups": 2}
        one = nn.Conv2d(4, 6, kernel, **options, dtype=tg.float64, device=device)
        other = nn.Conv2d(4, 6, kernel, **options, dtype=tg.float64, device=device, axis=-1)
        other.load_state_dict(one.state_dict())
        x = tg.tensor(normal(2, 4, 5, 3), device=device, requires_grad=True)
        z = tg.tensor(normal(2, 4, 5, 3), device=device, requires_grad=True)
        y, w = one(x), other(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y.square().sum().backward()
        w.square().sum().backward()
        for a, b in [(y, w), (x.grad, z.grad), (one.weight.grad, other.weight.grad)]:
            np.testing.assert_allclose(
                a.detach().cpu().numpy(), b.detach().cpu().numpy(), atol=1e-12
            )
        assert "axis=-1" in repr(other)


class TestMemory:
    @pytest.mark.parametrize("limit", [1, 5000, 2**26])
    def test_blocks_of_samples_change_no_more_than_the_order_of_sums(
        self, limit, device, monkeypatch
    ):
        x = tg.tensor(normal(5, 4, 6, 6), requires_grad=True, device=device)
        w = tg.tensor(normal(4, 2, 3, 3), requires_grad=True, device=device)
        with_all = tg.autograd.grad(F.conv2d(x, w, groups=2).square().sum(), (x, w))
        monkeypatch.setitem(config._defaults, "workspace", limit)
        y = F.conv2d(x, w, groups=2)
        for a, b in zip(tg.autograd.grad(y.square().sum(), (x, w)), with_all, strict=True):
            np.testing.assert_allclose(a.cpu().numpy(), b.cpu().numpy(), rtol=1e-12, atol=1e-12)

    def test_no_more_samples_than_the_limit_allows_are_unfolded(self, monkeypatch):
        """36 points of 16 windows in float64 are 4608 bytes a sample."""
        from tinygrad_bn.ops import wiring

        seen = []
        unfolded = wiring.unfolded
        monkeypatch.setattr(
            wiring, "unfolded", lambda *args: seen.append(args[1].shape[0]) or unfolded(*args)
        )
        monkeypatch.setitem(config._defaults, "workspace", 10_000)
        with tg.reference_kernels():
            F.conv2d(tg.tensor(normal(5, 4, 6, 6)), tg.tensor(normal(2, 4, 3, 3)))
        assert seen == [2, 2, 1]

    def test_points_are_not_unfolded(self, monkeypatch):
        from tinygrad_bn.ops import wiring

        monkeypatch.delattr(wiring, "unfolded")
        y = F.conv2d(tg.tensor(normal(5, 4, 6, 6)), tg.tensor(normal(2, 4, 1, 1)))
        assert y.shape == (5, 2, 6, 6)

    def test_the_limit_is_a_number_of_bytes(self, monkeypatch):
        monkeypatch.setitem(config._defaults, "workspace", 1)
        tg.set_workspace_limit(2**20)
        assert tg.get_workspace_limit() == 2**20
        for wrong in (0, -1, 1.5, None):
            with pytest.raises(ArgumentError, match="bytes"):
                tg.set_workspace_limit(wrong)
        assert tg.get_workspace_limit() == 2**20


class TestSixteenBits:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_are_added_in_float32_and_rounded_once(self, dtype, device):
        """In sixteen bits a sum of ones would stop at 2048, or at 256; over blocks as well."""
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        x = tg.ones(2, 512, 3, 3, dtype=dtype, device=device, requires_grad=True)
        w = tg.ones(1, 512, 3, 3, dtype=dtype, device=device, requires_grad=True)
        y = F.conv2d(x, w, padding=1)
        assert y.dtype == w.dtype
        assert y[0, 0, 1, 1].item() == 4608
        y.sum().backward()
        assert w.grad[0, 0, 1, 1].item() == 18


class TestBadInput:
    """Refused by name, before anything is computed."""

    @pytest.mark.parametrize(
        ("x", "w", "options", "error", "match"),
        [
            ((2, 3, 4), (5, 3, 2, 2), {}, ShapeError, r"3 channels.*got 2"),
            ((4, 4), (5, 3, 2, 2), {}, ShapeError, r"rank 4, or 3.*\(4, 4\)"),
            ((1, 2, 3, 4, 4), (5, 3, 2, 2), {}, ShapeError, "rank 4"),
            ((1, 3, 4, 4), (5, 3, 2), {}, ShapeError, "2 axes of a kernel"),
            ((1, 3, 4, 4), (5, 3, 0, 2), {}, ShapeError, "2 axes of a kernel"),
            ((1, 4, 4, 4), (5, 3, 2, 2), {}, ShapeError, r"3 channels.*got 4"),
            ((1, 6, 4, 4), (5, 3, 2, 2), {"groups": 2}, ShapeError, "2 equal groups"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"groups": 0}, ArgumentError, "groups ≥ 1"),
            ((1, 3, 4, 4), (5, 3, 5, 2), {}, ShapeError, r"windows of \(5, 2\).*\(4, 4\)"),
            ((1, 3, 4, 4), (5, 3, 3, 2), {"dilation": 2}, ShapeError, r"windows of \(5, 3\)"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"stride": 0}, ArgumentError, "stride ≥ 1"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"stride": (1, 1, 1)}, ShapeError, "1 or 2 numbers"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"padding": -1}, ArgumentError, "padding ≥ 0"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"padding": 0.5}, DtypeError, "whole numbers"),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"padding": "full"}, ArgumentError, "'full'"),
            (
                (1, 3, 4, 4), (5, 3, 2, 2), {"padding": "same", "stride": 2}, ArgumentError,
                "stride 1",
            ),
            ((1, 3, 4, 4), (5, 3, 2, 2), {"axis": 2}, ArgumentError, "1 or -1"),
        ],
    )  # fmt: skip
    def test_is_named(self, x, w, options, error, match):
        with pytest.raises(error, match=match):
            F.conv2d(tg.zeros(x), tg.zeros(w), **options)

    def test_of_another_dtype_place_or_bias(self):
        x, w = tg.zeros(1, 3, 4, 4), tg.zeros(5, 3, 2, 2)
        for bad in (x.double(), x.long()):
            with pytest.raises(DtypeError):
                F.conv2d(bad, w)
        with pytest.raises(DtypeError):
            F.conv2d(x.long(), w.long())
        with pytest.raises(DtypeError, match="bias"):
            F.conv2d(x, w, tg.zeros(5, dtype=tg.float64))
        with pytest.raises(ShapeError, match=r"bias of shape \(5,\)"):
            F.conv2d(x, w, tg.zeros(3))
        with pytest.raises(BackendError):
            F.conv2d(x, w.to("cuda"))

    @pytest.mark.parametrize(
        "arguments",
        [
            (0, 4, 3),
            (4, 0, 3),
            (4, 4, 0),
            (4, 4, 3, 0),
            (4, 4, 3, 1, -1),
            (4, 4, 3, 2, "same"),
            (4, 4, 3, 1, "full"),
            (4, 4, 3, 1, 0, 0),
            (4, 6, 3, 1, 0, 1, 4),
            (4, 4, 3, 1, 0, 1, 1, True, "mirror"),
        ],
        ids=str,
    )
    def test_of_a_layer_is_refused_when_it_is_made(self, arguments):
        with pytest.raises(ArgumentError):
            nn.Conv2d(*arguments)


class TestParameters:
    def test_start_uniform_within_one_over_the_root_of_the_fan_in(self):
        m = nn.Conv2d(8, 200, 3, groups=2)
        bound = 1 / math.sqrt(4 * 9)
        for p in (m.weight, m.bias):
            x = p.detach().numpy() / bound
            assert np.abs(x).max() <= 1
            assert abs(x.std() - math.sqrt(1 / 3)) < 5 / math.sqrt(5 * x.size)  # 5 standard errors

    def test_the_seed_decides(self):
        weights = []
        for _ in range(2):
            tg.manual_seed(3)
            weights.append(nn.Conv1d(3, 2, 2).weight.detach().numpy())
        assert np.array_equal(*weights)


def test_nan_stays_in_the_windows_that_hold_it(device):
    x = normal(2, 2, 6, 6)
    x[0, 1, 0, 0] = np.nan
    y = F.conv2d(tg.tensor(x, device=device), tg.tensor(normal(3, 2, 2, 2), device=device))
    bad = np.isnan(y.cpu().numpy())
    assert bad[0, :, 0, 0].all()
    assert bad.sum() == 3


def test_a_gradient_penalty_through_convolutions(device):
    """The gradient of the norm of a gradient, as Wasserstein networks take it."""
    x = tg.tensor(normal(2, 2, 4, 4), device=device, requires_grad=True)
    w = tg.tensor(normal(2, 2, 3, 3), device=device, requires_grad=True)

    def penalty(x, w):
        y = F.conv2d(x, w, padding=1).tanh().sum()
        (dx,) = tg.autograd.grad(y, [x], create_graph=True)
        return dx.square().sum()

    # differences of 1e-6 in float64; the sum is about 10
    assert gradcheck(penalty, (x, w), atol=1e-6, rtol=1e-6)
