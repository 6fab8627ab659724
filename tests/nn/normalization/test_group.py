"""Group norm: PyTorch's semantics, more exactly, and what it is at its two ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.draws import normal
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.training import assert_trains_like_pytorch
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F


def exact(x, groups, eps=1e-5):
    x = np.asarray(x, np.float64)
    return standardized(x.reshape(len(x), groups, -1), 2, eps).reshape(x.shape)


def run(function, x, weight, bias):
    """The output and all gradients, of normal dy."""
    tensors = [tg.tensor(v, requires_grad=True) for v in (x, weight, bias)]
    y = function(*tensors)
    y.backward(tg.tensor(np.random.default_rng(9).normal(size=y.shape)))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


class TestGroupNorm:
    @pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (2, 6, 3, 2), (2, 6, 2, 1, 3)])
    @pytest.mark.parametrize("groups", [1, 2, 3])
    def test_normalizes_groups_of_successive_channels(self, groups, shape, device):
        x = normal(*shape, mean=1e3)
        layer = nn.GroupNorm(groups, 6, device=device)
        layer.load_state_dict({"weight": normal(6), "bias": normal(6, mean=1.0)})
        y = layer(tg.tensor(x, device=device))
        weight, bias = (
            np.reshape(p.tolist(), (6, *(1,) * (len(shape) - 2))) for p in layer.parameters()
        )
        np.testing.assert_allclose(y.tolist(), exact(x, groups) * weight + bias, atol=2e-6)

    @settings(deadline=None, max_examples=30)
    @given(n=st.integers(1, 4), c=st.integers(1, 5), space=st.lists(st.integers(1, 4), max_size=2))
    def test_one_group_is_layer_norm(self, n, c, space):
        x, weight, bias = (normal(*s, dtype=np.float64) for s in ((n, c, *space), (c,), (1, c)))
        bias = bias[0]
        spread = (c, *(1,) * len(space))

        def layer(x, weight, bias):
            weight, bias = (p.reshape(spread).expand(c, *space) for p in (weight, bias))
            return F.layer_norm(x, x.shape[1:], weight, bias)

        group = run(lambda x, w, b: F.group_norm(x, 1, w, b), x, weight, bias)
        for found, expected in zip(group, run(layer, x, weight, bias), strict=True):
            # the same sums in another order; √ε = 3e-3 amplifies where a group has one value
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)

    @settings(deadline=None, max_examples=30)
    @given(
        n=st.integers(1, 4),
        c=st.integers(1, 5),
        space=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    )
    def test_a_group_for_each_channel_is_instance_norm(self, n, c, space):
        x, weight, bias = (normal(*s, dtype=np.float64) for s in ((n, c, *space), (c,), (1, c)))
        bias = bias[0]
        group = run(lambda x, w, b: F.group_norm(x, c, w, b), x, weight, bias)
        instance = run(lambda x, w, b: F.instance_norm(x, None, None, w, b), x, weight, bias)
        for found, expected in zip(group, instance, strict=True):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize(
        ("offset", "scale"), [(1e4, 1e-2), (-1e6, 1.0), (0.0, 1e30), (0.0, 1e-30)]
    )
    def test_at_any_offset_and_scale(self, offset, scale, device):
        x = normal(4, 6, 8, mean=offset, std=scale)
        y = F.group_norm(tg.tensor(x, device=device), 3)
        np.testing.assert_allclose(y.tolist(), exact(x, 3), rtol=2e-6, atol=2e-31)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_group_gives_exactly_its_bias(self, dtype, device):
        options = {"dtype": dtype, "device": device}
        bias = tg.tensor(normal(4), **options)
        x = tg.full((2, 4, 5), 0.1, **options)
        y = F.group_norm(x, 2, tg.ones(4, **options), bias)
        assert (y == bias.reshape(4, 1)).all()

    def test_a_group_of_one_value_gives_exactly_its_bias(self):
        bias = tg.tensor([0.7, -0.3])
        y = F.group_norm(tg.randn(1, 2), 2, None, bias)
        assert (y == bias).all()

    def test_nan_stays_in_its_group(self, device):
        x = normal(2, 4, 3)
        x[1, 2, 0] = np.nan
        y = np.array(F.group_norm(tg.tensor(x, device=device), 2).tolist())
        expected = np.zeros(x.shape, bool)
        expected[1, 2:] = True
        np.testing.assert_array_equal(np.isnan(y), expected)

    def test_sixteen_bits_are_normalized_in_sixty_four(self, device):
        x = tg.tensor(normal(3, 4, 9, mean=100, std=0.5), dtype=tg.float16, device=device)
        y = nn.GroupNorm(2, 4, dtype=tg.float16, device=device)(x)
        assert y.dtype == np.float16
        # half of float16's last digit at 4
        np.testing.assert_allclose(y.tolist(), exact(x.cpu().numpy(), 2), atol=2e-3)

    def test_refuses_groups_that_do_not_divide(self):
        with pytest.raises(ShapeError, match="channels that 4 groups divide, got 6"):
            nn.GroupNorm(4, 6)
        with pytest.raises(ShapeError, match="channels that 2 groups divide, got 7"):
            F.group_norm(tg.zeros(2, 7, 4), 2)
        for groups in (0, -2):
            with pytest.raises(ArgumentError, match=f"num_groups ≥ 1, got {groups}"):
                F.group_norm(tg.zeros(2, 4), groups)

    @pytest.mark.parametrize("shape", [(4,), (2, 6, 4), (4, 2)])
    def test_refuses_other_channels(self, shape):
        with pytest.raises(ShapeError, match=r"expected \(N, 4, \*S\)"):
            nn.GroupNorm(2, 4)(tg.zeros(shape))

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(ShapeError, match=r"weight of shape \(4,\), got \(2,\)"):
            F.group_norm(tg.zeros(1, 4, 3), 2, tg.ones(2))
        with pytest.raises(DtypeError, match="floats as input, got int64"):
            nn.GroupNorm(2, 4)(tg.zeros(1, 4, 3, dtype=tg.int64))
        with pytest.raises(BackendError, match="expected bias on cpu"):
            F.group_norm(tg.zeros(1, 4, 3), 2, None, tg.ones(4, device="cuda"))

    @pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (0, 4)])
    def test_nothing_gives_nothing(self, shape, device):
        x = tg.zeros(shape, device=device, requires_grad=True)
        layer = nn.GroupNorm(2, 4, device=device)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert [p.grad.tolist() for p in layer.parameters()] == [[0.0] * 4] * 2

    def test_shows_how_it_was_made(self):
        assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("groups", "options", "shape"),
    [
        (2, {}, (4, 6, 5)),
        (3, {"bias": False}, (4, 6)),
        (1, {"eps": 1e-2}, (2, 6, 3, 2)),
        (6, {"affine": False}, (3, 6, 4)),
    ],
    ids=str,
)
def test_fifty_steps_are_those_of_pytorch(groups, options, shape):
    assert_trains_like_pytorch("GroupNorm", (groups, 6), options, shape)
