"""Clipping gradients, and parameters as one vector."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, GradientError, ShapeError
from tinygrad_bn.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)


def with_gradients(*grads, dtype=tg.float64):
    params = []
    for grad in grads:
        params.append(nn.Parameter(tg.zeros(np.shape(grad), dtype=dtype)))
        params[-1].grad = tg.tensor(np.array(grad), dtype=dtype)
    return params


class TestClipNorm:
    @pytest.mark.parametrize(
        ("norm_type", "norm"), [(2, 13.0), (1, 19.0), (3, 1819 ** (1 / 3)), (math.inf, 12.0)]
    )
    def test_scales_all_gradients_alike(self, norm_type, norm):
        params = with_gradients([3.0, -4.0], [[12.0]])
        held = [p.grad.array for p in params]
        total = clip_grad_norm_((p for p in params), 2.0, norm_type)
        assert total.item() == pytest.approx(norm)
        assert all(p.grad.array is array for p, array in zip(params, held, strict=True))
        grads = np.concatenate([p.grad.numpy().ravel() for p in params])
        # the 1e-6 beside the norm shows here
        assert np.linalg.norm(grads, norm_type) == pytest.approx(2, rel=1e-6)
        assert grads == pytest.approx(np.array([3, -4, 12]) * 2 / total.item(), rel=1e-6)

    def test_leaves_short_gradients_exactly(self):
        params = with_gradients([0.3, -0.4])
        assert clip_grad_norm_(params, 1.0).item() == pytest.approx(0.5)
        assert params[0].grad.tolist() == [0.3, -0.4]

    def test_takes_one_tensor_and_skips_what_has_no_gradient(self):
        (p,) = with_gradients([6.0, 8.0])
        assert clip_grad_norm_(p, 5.0).item() == 10
        assert clip_grad_norm_([nn.Parameter(tg.zeros(2))], 1.0).item() == 0
        assert clip_grad_norm_([], 1.0).item() == 0

    def test_zero_gradients_stay_zero(self):
        params = with_gradients([0.0, 0.0])
        clip_grad_norm_(params, 1.0)
        assert params[0].grad.tolist() == [0, 0]

    def test_16_bit_gradients_do_not_overflow(self):
        params = with_gradients([60000.0] * 4, dtype=tg.float16)
        total = clip_grad_norm_(params, 2.0)
        assert total.item() == 120000
        assert params[0].grad.dtype == tg.float16
        assert params[0].grad.numpy() == pytest.approx(1, rel=1e-3)  # one rounding in float16

    @pytest.mark.parametrize("bad", [math.inf, math.nan])
    def test_gradients_that_are_not_finite_are_refused_if_asked(self, bad):
        params = with_gradients([1.0, bad])
        with pytest.raises(GradientError, match="finite norm"):
            clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
        assert params[0].grad[0].item() == 1

    def test_parameters_on_two_devices(self, cuda):
        params = [*with_gradients([3.0]), nn.Parameter(tg.zeros(1, dtype=tg.float64, device=cuda))]
        params[1].grad = tg.tensor([4.0], dtype=tg.float64, device=cuda)
        total = clip_grad_norm_(params, 1.0)
        assert (total.item(), total.device) == (5, "cpu")
        # the 1e-6 beside the norm
        assert [p.grad.item() for p in params] == pytest.approx([0.6, 0.8], rel=1e-6)

    def test_mixed_dtypes(self):
        params = with_gradients([3.0]) + with_gradients([4.0], dtype=tg.float32)
        assert clip_grad_norm_(params, 1.0).item() == 5
        assert [p.grad.dtype for p in params] == [tg.float64, tg.float32]

    @pytest.mark.parametrize("arguments", [(-1.0,), (math.nan,), (1.0, 0), (1.0, -math.inf)])
    def test_bad_arguments_are_refused(self, arguments):
        params = with_gradients([3.0, 4.0])
        with pytest.raises(ArgumentError):
            clip_grad_norm_(params, *arguments)
        assert params[0].grad.tolist() == [3, 4]

    def test_the_total_norm_alone(self):
        assert get_total_norm([tg.tensor([3.0]), tg.zeros(0), tg.tensor([4.0])]).item() == 5
        assert get_total_norm([tg.zeros(0)]).item() == 0

    @pytest.mark.torch
    @pytest.mark.parametrize("norm_type", [1.0, 2.0, 2.5, math.inf])
    def test_agrees_with_pytorch(self, norm_type):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(0)
        grads = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
        ours = with_gradients(*grads)
        theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        a = clip_grad_norm_(ours, 0.7, norm_type)
        b = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
        assert a.item() == pytest.approx(b.item(), rel=1e-14)  # sums of 17 terms in float64
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-14)


class TestClipValue:
    def test_holds_every_element_within(self):
        params = with_gradients([3.0, -0.5], [[-9.0]])
        held = params[0].grad.array
        clip_grad_value_(params, 1.0)
        assert [p.grad.tolist() for p in params] == [[1, -0.5], [[-1]]]
        assert params[0].grad.array is held
        with pytest.raises(ArgumentError):
            clip_grad_value_(params, -1.0)


class TestVectors:
    def test_there_and_back(self):
        m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        vector = parameters_to_vector(m.parameters())
        assert vector.shape == (13,)
        held = [p.array for p in m.parameters()]
        vector_to_parameters(vector.detach() * 2, m.parameters())
        assert all(p.array is array for p, array in zip(m.parameters(), held, strict=True))
        assert np.array_equal(
            parameters_to_vector(m.parameters()).detach().numpy(), 2 * vector.detach().numpy()
        )
        assert all(p.is_leaf and p.requires_grad for p in m.parameters())

    def test_the_gradient_flows_through_the_vector(self):
        m = nn.Linear(2, 1)
        parameters_to_vector(m.parameters()).square().sum().backward()
        assert np.array_equal(m.weight.grad.numpy(), 2 * m.weight.detach().numpy())

    def test_vectors_on_another_device_are_refused(self, cuda):
        m = nn.Linear(2, 1)
        with pytest.raises(BackendError, match="on cpu, got cuda:0"):
            vector_to_parameters(tg.zeros(3, device=cuda), m.parameters())

    def test_vectors_of_other_sizes_change_nothing(self):
        m = nn.Linear(2, 1)
        before = parameters_to_vector(m.parameters()).tolist()
        for shape in ((2,), (4,), (3, 1)):
            with pytest.raises(ShapeError, match=r"\(3,\)"):
                vector_to_parameters(tg.zeros(shape), m.parameters())
        assert parameters_to_vector(m.parameters()).tolist() == before
