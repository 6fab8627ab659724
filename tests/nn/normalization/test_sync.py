"""Synchronised batch norm: k ranks with their shards do what one does with the whole batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.distributed.watched import spawn
from tests.nn.normalization.sharding import (
    EXACT,
    assert_same_steps,
    shards,
    steps_of,
    whole_and_sync,
)
from tinygrad_bn.autograd import functional


class TestEqualsBatchNorm:
    @pytest.mark.parametrize(
        "sizes", [[6], [3, 3], [1, 4, 2], [5, 0, 2, 1], [0, 0, 4], [1, 1, 1, 1]], ids=str
    )
    def test_whatever_the_shards(self, sizes, device):
        whole, sync = whole_and_sync((3,))
        assert_same_steps(whole.to(device), sync.to(device), sizes, (3,))

    @pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4), (3, 2, 1, 2), (0,), (3, 0)], ids=str)
    def test_for_every_rank_of_input(self, shape):
        assert_same_steps(*whole_and_sync(shape), [2, 1, 3], shape)

    @pytest.mark.parametrize(
        "options",
        [
            {"momentum": None},
            {"momentum": 0.7, "eps": 0.1},
            {"affine": False},
            {"bias": False},
            {"track_running_stats": False},
            {"running_var_correction": "biased"},
            {"axis": -1},
        ],
        ids=lambda options: ",".join(options),
    )
    @pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
    def test_for_every_option(self, options, masked):
        shape = (4, 3)
        assert_same_steps(*whole_and_sync(shape, **options), [2, 0, 3], shape, masked=masked)

    def test_a_shard_may_be_masked_out(self):
        whole, sync = whole_and_sync((3, 2))
        rng = np.random.default_rng(1)
        xs, dys = rng.normal(size=(2, 1, 6, 3, 2))
        masks = np.ones((1, 6, 2), bool)
        masks[:, 2:5] = False
        expected = steps_of(whole, xs, dys, masks)[0]
        parts = list(zip(*(shards(v[0], [2, 3, 1]) for v in (xs, dys, masks)), strict=True))
        found = spawn(lambda r: steps_of(sync, *([part] for part in parts[r])), 3)
        for key in ("y", "dx"):
            together = np.concatenate([rank[0][key] for rank in found])
            np.testing.assert_allclose(together, expected[key], **EXACT)

    @settings(deadline=None, max_examples=30)
    @given(
        sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(lambda s: sum(s) > 1),
        channels=st.integers(1, 4),
        space=st.lists(st.integers(1, 3), max_size=2),
        masked=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_for_shards_and_shapes_of_any_size(self, sizes, channels, space, masked, seed):
        shape = (channels, *space)
        whole, sync = whole_and_sync(shape, seed)
        assert_same_steps(whole, sync, sizes, shape, steps=2, seed=seed, masked=masked)

    def test_fifty_times_with_the_same_bits(self):
        _, sync = whole_and_sync((5,))
        rng = np.random.default_rng(2)
        x, dy = rng.normal(size=(2, 9, 5))
        parts = list(zip(shards(x, [2, 4, 3]), shards(dy, [2, 4, 3]), strict=True))

        def work(rank):
            (found,) = steps_of(sync, *([part] for part in parts[rank]))
            return [found[key].tobytes() for key in sorted(found)]

        first = spawn(work, 3)
        assert all(spawn(work, 3) == first for _ in range(49))


def gradients_to_order_3(layer, xs, weights):
    """Gradients of a loss, of a function of those, and of one of those, in x, γ and β."""
    inputs = [tg.tensor(x, requires_grad=True) for x in xs]
    parameters = list(layer.parameters())
    factors = [tg.tensor(w) for w in weights]
    losses = [(layer(x).sin() * w).sum() for x, w in zip(inputs, factors, strict=True)]
    found = []
    for _ in range(3):
        grads = tg.autograd.grad(losses, [*inputs, *parameters], create_graph=True)
        found.append([g.detach().numpy() for g in grads])
        losses = [
            ((g + x) * w).tanh().sum() for g, x, w in zip(grads, inputs, factors, strict=False)
        ]
    return found


class TestHigherGradients:
    @pytest.mark.parametrize("sizes", [[6], [3, 3], [1, 4, 2], [3, 0, 2, 1]], ids=str)
    @pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
    def test_to_order_3_are_those_of_the_whole_batch(self, sizes, affine):
        whole, sync = whole_and_sync((3,), affine=affine)
        rng = np.random.default_rng(7)
        x, weights = rng.normal(size=(2, sum(sizes), 3))
        expected = gradients_to_order_3(whole, [x], [weights])
        parts = list(zip(shards(x, sizes), shards(weights, sizes), strict=True))

        def work(rank):
            replica = copy.deepcopy(sync)
            return gradients_to_order_3(replica, *([part] for part in parts[rank]))

        found = spawn(work, len(sizes))
        for order in range(3):
            dx, *rest = expected[order]
            # third derivatives reach some 100, of terms that cancel
            close = {"rtol": 1e-10, "atol": 1e-11}
            together = np.concatenate([rank[order][0] for rank in found])
            np.testing.assert_allclose(together, dx, **close)
            for k, value in enumerate(rest, 1):
                np.testing.assert_allclose(sum(r[order][k] for r in found), value, **close)

    def test_a_gradient_penalty_is_that_of_the_whole_batch(self, device):
        whole, sync = whole_and_sync((4,))
        x = np.random.default_rng(8).normal(size=(8, 4))

        def penalised(layer, part):
            layer = copy.deepcopy(layer).to(device)
            x = tg.tensor(part, device=device, requires_grad=True)
            (slope,) = tg.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
            slope.square().sum().backward()
            return [np.array(v.grad.tolist()) for v in (x, layer.weight, layer.bias)]

        expected = penalised(whole, x)
        parts = shards(x, [5, 0, 3])
        found = spawn(lambda rank: penalised(sync, parts[rank]), 3)
        dx = np.concatenate([part[0].reshape(-1, 4) for part in found])
        np.testing.assert_allclose(dx, expected[0], **EXACT)
        for k in (1, 2):
            np.testing.assert_allclose(sum(part[k] for part in found), expected[k], **EXACT)

    def test_products_with_jacobian_and_hessian(self):
        whole, sync = whole_and_sync((3,))
        x, v = np.random.default_rng(9).normal(size=(2, 6, 3))

        def products(layer, x, v):
            layer, x, v = copy.deepcopy(layer), tg.tensor(x), tg.tensor(v)
            _, forward = functional.jvp(layer, x, v)
            _, hessian = functional.hvp(lambda t: layer(t).sin().sum(), x, v)
            return forward.numpy(), hessian.numpy()

        expected = products(whole, x, v)
        parts = list(zip(shards(x, [4, 2]), shards(v, [4, 2]), strict=True))
        found = spawn(lambda rank: products(sync, *parts[rank]), 2)
        for together, value in zip(zip(*found, strict=True), expected, strict=True):
            np.testing.assert_allclose(np.concatenate(together), value, **EXACT)
