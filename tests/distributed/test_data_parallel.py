"""Replicas on shards learn what one model learns on the whole batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.distributed.watched import spawn
from tinygrad_bn import distributed, nn
from tinygrad_bn.errors import ArgumentError, DistributedError

RNG = np.random.default_rng(5)


def with_gradient(values, shape=(2,), device="cpu"):
    p = nn.Parameter(tg.zeros(*shape, dtype=tg.float64, device=device))
    if values is not None:
        p.grad = tg.tensor(values, dtype=tg.float64, device=device)
    return p


class TestAverageGradients:
    def test_writes_the_mean_in_place_on_all_ranks(self, device):
        def work(rank):
            p = with_gradient([float(rank), 1.0], device=device)
            held = p.grad.array
            distributed.average_gradients(iter([p]))
            assert p.grad.array is held
            return p.grad.tolist()

        assert spawn(work, 4) == [[1.5, 1.0]] * 4

    def test_a_gradient_that_is_missing_is_zero_unless_nobody_has_one(self):
        def work(rank):
            some = with_gradient([2.0, 4.0] if rank == 1 else None)
            none = with_gradient(None)
            distributed.average_gradients([some, none])
            return some.grad.tolist(), none.grad

        assert spawn(work, 2) == [([1.0, 2.0], None)] * 2

    def test_a_gradient_with_a_graph_leaves_the_graph_alone(self):
        def work(rank):
            x = tg.tensor([1.0, 2.0], dtype=tg.float64, requires_grad=True)
            (x * x * (rank + 1)).sum().backward(create_graph=True)
            slope = x.grad
            distributed.average_gradients([x])
            (second,) = tg.autograd.grad(slope.square().sum(), x)
            return x.grad.tolist(), x.grad.requires_grad, second.tolist()

        assert spawn(work, 2) == [
            ([3.0, 6.0], False, [8.0 * (rank + 1) ** 2, 16.0 * (rank + 1) ** 2]) for rank in (0, 1)
        ]

    def test_over_a_part_of_the_ranks(self):
        def work(rank):
            p = with_gradient([float(rank), 0.0])
            distributed.average_gradients([p], distributed.split_group(rank % 2))
            return p.grad.tolist()

        assert spawn(work, 4) == [[1, 0], [2, 0], [1, 0], [2, 0]]

    def test_refuses_different_models_on_all_ranks_before_anything_changes(self):
        def work(rank):
            params = [with_gradient([1.0, 2.0]) for _ in range(1 + rank)]
            with pytest.raises(ArgumentError, match=r"as many parameters .* got \[1, 2\]"):
                distributed.average_gradients(params)
            return params[0].grad.tolist()

        assert spawn(work, 2) == [[1, 2]] * 2

    def test_refuses_other_shapes(self):
        def work(rank):
            distributed.average_gradients([with_gradient(np.ones(2 + rank), (2 + rank,))])

        with pytest.raises(DistributedError, match=r"float64 \(3,\)\) from rank 1"):
            spawn(work, 2)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("method", ["SGD", "Adam"])
def test_training_on_shards_is_training_on_the_whole_batch(ranks, method, device):
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 7, bias=False),
        nn.SyncBatchNorm(7),
        nn.Tanh(),
        nn.Linear(7, 6, bias=False),
        nn.SyncBatchNorm(6),
    )
    model.to(tg.float64, device=device)
    xs, ys = RNG.normal(size=(4, 12, 5)), RNG.normal(size=(4, 12, 6))

    def train(shard):
        replica = copy.deepcopy(model)
        optimizer = getattr(tg.optim, method)(replica.parameters(), lr=0.05)
        for x, y in zip(xs, ys, strict=True):
            optimizer.zero_grad()
            inputs, targets = (tg.tensor(v[shard], device=device) for v in (x, y))
            nn.functional.mse_loss(replica(inputs), targets).backward()
            distributed.average_gradients(replica.parameters())
            optimizer.step()
        return {key: value.cpu().numpy() for key, value in replica.state_dict().items()}

    each = 12 // ranks
    replicas = spawn(lambda rank: train(slice(rank * each, (rank + 1) * each)), ranks)
    for key, expected in train(slice(None)).items():
        # sums in another order; Adam divides by gradients near 0
        np.testing.assert_allclose(replicas[0][key], expected, rtol=1e-10, atol=1e-10, err_msg=key)
        assert len({replica[key].tobytes() for replica in replicas}) == 1, key
