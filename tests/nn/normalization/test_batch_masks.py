"""Batch norm with a mask: what it keeps makes the statistics, what it leaves out alters nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.batches import SHAPES, every_shape_and_axis, formula, shaped, state
from tinygrad_bn import nn
from tinygrad_bn.errors import BackendError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F
from tinygrad_bn.nn.normalization import BatchNorm

RNG = np.random.default_rng(0)


class TestMask:
    @pytest.mark.parametrize(("shape", "axis"), every_shape_and_axis())
    def test_statistics_are_of_what_it_keeps_and_normalise_all(self, shape, axis, device):
        x, mask = shaped(shape, axis)
        layer = BatchNorm(3, momentum=1.0, axis=axis, dtype=tg.float64, device=device)
        y = layer(tg.tensor(x, device=device), tg.tensor(mask, device=device))
        expected, mean, var = formula(x, mask, axis)
        np.testing.assert_allclose(y.tolist(), expected, atol=1e-13)
        np.testing.assert_allclose(layer.running_mean.tolist(), mean, rtol=1e-13)
        unbiased = var * mask.sum() / (mask.sum() - 1)
        np.testing.assert_allclose(layer.running_var.tolist(), unbiased, rtol=1e-13)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.torch
    def test_gradients_are_those_of_a_composition_in_pytorch(self, shape):
        torch = pytest.importorskip("torch")
        x, mask = shaped(shape, 1)
        w, b, dy = RNG.normal(size=3), RNG.normal(size=3), RNG.normal(size=shape)
        ours = [tg.tensor(v, requires_grad=True) for v in (x, w, b)]
        y = F.batch_norm(ours[0], None, None, *ours[1:], training=True, mask=tg.tensor(mask))
        y.backward(tg.tensor(dy))  # a gradient comes in from what is masked out, too
        theirs = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
        column = (-1, *[1] * (len(shape) - 2))
        x_hat, _, _ = formula(theirs[0], torch.tensor(mask), 1, lib=torch)
        z = x_hat * theirs[1].reshape(column) + theirs[2].reshape(column)
        z.backward(torch.tensor(dy))
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=1e-12)

    def test_gradients_of_gradients_too(self):
        x, mask = shaped((4, 3, 2), 1)
        inputs = [tg.tensor(v, requires_grad=True) for v in (x, RNG.normal(size=3))]

        def masked(x, w):
            return F.batch_norm(x, None, None, w, training=True, mask=tg.tensor(mask))

        assert tg.autograd.gradgradcheck(masked, inputs, order=3)

    @pytest.mark.parametrize("padding", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
    def test_what_stands_in_padding_reaches_nothing(self, padding, dtype, device):
        """Outputs, running statistics, gradients and gradients of those have the same bits as with
        zeros there.
        """
        values, mask = shaped((5, 3, 4), 1)
        hidden = np.broadcast_to(~mask[:, None], values.shape)
        seen = []
        for stands in (0.0, padding):
            x = np.where(hidden, stands, values)
            layer = nn.BatchNorm1d(3, dtype=dtype, device=device)
            leaves = [tg.tensor(x, dtype=dtype, device=device, requires_grad=True)]
            leaves += [layer.weight, layer.bias]
            keep = tg.tensor(mask, device=device)
            y = layer(leaves[0], keep)
            y = tg.where(keep.unsqueeze(1), y, tg.zeros_like(y))
            first = tg.autograd.grad((y**3).sum(), leaves, create_graph=True)
            second = tg.autograd.grad(sum((g * g).sum() for g in first), leaves)
            seen.append([v.tolist() for v in (y, *first, *second, *layer.buffers())])
            assert not first[0].detach()[tg.tensor(hidden, device=device)].any()
        assert seen[0] == seen[1]

    @given(st.data())
    @settings(deadline=None, max_examples=30)
    def test_is_the_batch_without_what_it_leaves_out(self, data):
        n = data.draw(st.integers(3, 12))
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        mask[:2] = True
        x = RNG.normal(data.draw(st.sampled_from([0, 1e4, -1e6])), 1, (n, 2)).astype(np.float32)
        layers = [nn.BatchNorm1d(2) for _ in range(2)]
        y = layers[0](tg.tensor(x), tg.tensor(mask)).detach().numpy()[mask]
        z = layers[1](tg.tensor(x[mask])).detach().numpy()
        # the roundings of float32 at the ends of two ways to the same statistics
        np.testing.assert_allclose(y, z, atol=2e-6)
        for a, b in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)

    def test_a_constant_channel_gives_exactly_its_bias(self):
        x = tg.full((6, 1), 0.1)
        x[4:] = 17.0
        bias = tg.tensor([0.7])
        y = F.batch_norm(x, None, None, None, bias, training=True, mask=tg.arange(6) < 4)
        assert (y[:4] == bias).all()

    def test_need_not_be_contiguous(self):
        x, mask = shaped((5, 3, 4), 1)
        keep = tg.tensor(np.ascontiguousarray(mask.T)).T
        y = F.batch_norm(tg.tensor(x), None, None, training=True, mask=keep)
        np.testing.assert_allclose(y.numpy(), formula(x, mask, 1)[0], atol=1e-13)

    @pytest.mark.parametrize("held", ["eval", "frozen"])
    def test_running_statistics_do_not_heed_it(self, held):
        layer = nn.BatchNorm1d(3)
        layer = layer.eval() if held == "eval" else layer.freeze()
        x = tg.randn(4, 3)
        assert layer(x, tg.zeros(4, dtype=bool)).tolist() == layer(x).tolist()
        with pytest.raises(ShapeError, match="expected a mask"):
            layer(x, tg.ones(5, dtype=bool))

    @pytest.mark.parametrize(
        ("mask", "error", "match"),
        [
            (tg.ones(4, 3, dtype=bool), ShapeError, r"expected a mask \(4, 5\).*got \(4, 3\)"),
            (tg.ones(4, 3, 5, dtype=bool), ShapeError, r"expected a mask \(4, 5\)"),
            (tg.ones(4, 1, dtype=bool), ShapeError, r"expected a mask \(4, 5\)"),
            (tg.ones(20, dtype=bool), ShapeError, r"expected a mask \(4, 5\)"),
            (tg.ones(4, 5), DtypeError, "expected a mask of booleans, got float32"),
            (tg.ones(4, 5, dtype=tg.int64), DtypeError, "booleans, got int64"),
            (np.ones((4, 5), bool), DtypeError, "expected mask to be a tensor, got ndarray"),
            (tg.zeros(4, 5, dtype=bool), ShapeError, "got 0 of"),
            (tg.arange(20).reshape(4, 5) == 7, ShapeError, "got 1 of"),
        ],
        ids=["4x3", "4x3x5", "4x1", "20", "float", "int", "numpy", "all-false", "one-left"],
    )
    def test_refusals_change_nothing(self, mask, error, match):
        layer = nn.BatchNorm1d(3)
        before = state(layer)
        with pytest.raises(error, match=match):
            layer(tg.randn(4, 3, 5), mask)
        assert state(layer) == before
        with pytest.raises(error, match=match):
            F.batch_norm(tg.randn(4, 3, 5), None, None, training=True, mask=mask)

    def test_on_another_device(self, cuda):
        layer = nn.BatchNorm1d(3)
        with pytest.raises(BackendError, match="expected a mask on cpu, got one on cuda:0"):
            layer(tg.randn(4, 3), tg.ones(4, dtype=bool, device=cuda))

    def test_two_values_are_enough(self):
        layer = nn.BatchNorm1d(1, dtype=tg.float64)
        y = layer(tg.tensor([[1.0], [3.0], [9.0]]).double(), tg.tensor([True, True, False]))
        np.testing.assert_allclose(y.tolist(), [[-1], [1], [7]], rtol=1e-5)  # up to ε
