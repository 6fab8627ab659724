"""Synchronised batch norm: precision, modes and groups, and what ends all ranks."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic
from tests.distributed.watched import spawn
from tests.nn.normalization.exact import standardized
from tests.nn.normalization.sharding import EXACT, shards, steps_of, whole_and_sync
from tests.two_backends import only_stand_in
from tinygrad_bn import distributed, nn
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import DistributedError, ShapeError
from tinygrad_bn.utils.checkpoint import checkpoint


def outputs(x, sizes, device="cpu", dtype=tg.float32, **options):
    """The outputs of all ranks, and their layers."""
    parts = shards(x, sizes)

    def work(rank):
        channels = x.shape[1]
        layer = nn.SyncBatchNorm(channels, device=device, dtype=dtype, **options)
        y = layer(tg.tensor(parts[rank], device=device, dtype=dtype))
        return y.detach().cpu().numpy(), layer

    found = spawn(work, len(sizes))
    return np.concatenate([y for y, _ in found]), [layer for _, layer in found]


class TestExactness:
    """The bounds are those of batch norm on the whole batch, float32's rounding of the result."""

    @pytest.mark.parametrize(
        ("offset", "scale"),
        [(1e4, 1e-2), (-1e6, 1.0), (0, 1e-30), (0, 1e30)],
    )
    def test_far_from_zero_and_at_extreme_scales(self, offset, scale, device):
        x = np.random.default_rng(4).normal(offset, scale, (96, 5)).astype(np.float32)
        y, _ = outputs(x, [1, 60, 0, 35], device)
        expected = standardized(x, 0)
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * min(1, abs(expected).max()))

    def test_shards_far_from_each_other(self):
        x = np.repeat(np.array([1e6, -1e6, 3e5], np.float32), [4, 50, 9])[:, None]
        x = x + np.random.default_rng(5).normal(size=(63, 3)).astype(np.float32)
        y, _ = outputs(x, [4, 50, 9])
        np.testing.assert_allclose(y, standardized(x, 0), atol=2e-6)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_a_constant_channel_gives_exactly_its_bias(self, dtype):
        y, layers = outputs(np.full((7, 2), 0.1), [3, 0, 4], dtype=getattr(tg, dtype))
        assert (y == 0).all()
        assert layers[0].running_var.dtype == max(np.dtype(dtype), np.dtype(np.float32))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_stays_in_its_channel(self, value, device):
        x = np.random.default_rng(6).normal(size=(8, 3))
        clean, _ = outputs(x, [3, 0, 5], device)
        x[2, 1] = value
        y, layers = outputs(x, [3, 0, 5], device)
        assert np.isnan(y[:, 1]).all()
        assert y[:, [0, 2]].tobytes() == clean[:, [0, 2]].tobytes()
        for layer in layers:
            assert np.isfinite(np.asarray(layer.running_mean.tolist())[[0, 2]]).all()
            assert np.isfinite(np.asarray(layer.running_var.tolist())[[0, 2]]).all()
            assert not np.isfinite(layer.running_mean[1].item())

    @only_stand_in
    def test_nothing_leaves_the_device(self):
        layer = nn.SyncBatchNorm(3, device="cuda")
        x = tg.ones(4, 3, device="cuda")

        def work(rank):
            copy.deepcopy(layer)(x.detach().requires_grad_()).sum().backward()

        with count_traffic() as traffic:
            spawn(work, 2)
        assert (traffic.d2h, traffic.synchronizations) == (0, 0)


def state(layer):
    return {key: value.tolist() for key, value in layer.state_dict().items()}


class TestModes:
    def test_outside_of_a_group_is_batch_norm(self, device):
        whole, sync = whole_and_sync((3, 4))
        x, dy = np.random.default_rng(0).normal(size=(2, 1, 6, 3, 4))
        (expected,), (found,) = (steps_of(n.to(device), x, dy) for n in (whole, sync))
        for key, value in expected.items():
            assert found[key].tobytes() == value.tobytes()

    def test_evaluation_and_frozen_statistics_ask_nobody(self):
        def work(rank):
            if rank == 1:
                return None
            layer = nn.SyncBatchNorm(2)
            frozen = nn.SyncBatchNorm(2).freeze()
            bare = nn.SyncBatchNorm(2, track_running_stats=False).eval()
            x = tg.tensor([[1.0, 2.0], [3.0, 6.0]])
            assert layer.eval()(x).tolist() == frozen(x).tolist()
            return bare(x).tolist()

        expected = nn.BatchNorm1d(2, track_running_stats=False)(tg.tensor([[1.0, 2], [3, 6]]))
        assert spawn(work, 2) == [expected.tolist(), None]

    def test_one_value_a_channel_on_each_rank_is_enough(self):
        y, _ = outputs(np.array([[1.0], [3.0]]), [1, 1])
        np.testing.assert_allclose(y[:, 0], [-1, 1], atol=1e-5)  # ε

    def test_one_value_over_all_ranks_is_refused_on_all_before_anything_changes(self):
        def work(rank):
            layer = nn.SyncBatchNorm(2)
            before = state(layer)
            with pytest.raises(ShapeError, match=f"training, got 1 of .{rank == 1:d}, 2"):
                layer(tg.ones(int(rank == 1), 2))
            return state(layer) == before

        assert spawn(work, 3) == [True] * 3

    def test_nothing_on_all_ranks_gives_nothing_and_is_not_counted(self):
        def work(rank):
            layer = nn.SyncBatchNorm(2)
            before = state(layer)
            x = tg.ones(0, 2, requires_grad=True)
            layer(x).sum().backward()
            return x.grad.shape, state(layer) == before

        assert spawn(work, 2) == [((0, 2), True)] * 2

    def test_too_few_may_be_normalised_by_the_running_statistics(self):
        def work(rank):
            layer = nn.SyncBatchNorm(2, on_single="running")
            before = state(layer)
            y = layer(tg.full((1 - rank, 2), 3.0))
            assert state(layer) == before
            return y.tolist() == layer.eval()(tg.full((1 - rank, 2), 3.0)).tolist()

        assert all(spawn(work, 2))

    def test_a_group_of_its_own(self):
        x = np.random.default_rng(3).normal(size=(8, 2))
        parts = shards(x, [2, 2, 2, 2])

        def work(rank):
            half = distributed.split_group(rank // 2)
            layer = nn.SyncBatchNorm(2, process_group=half, dtype=tg.float64)
            assert copy.deepcopy(layer).process_group is half
            return layer(tg.tensor(parts[rank])).detach().numpy()

        y = np.concatenate(spawn(work, 4))
        expected = np.concatenate([standardized(half, 0) for half in shards(x, [4, 4])])
        np.testing.assert_allclose(y, expected, **EXACT)

    @only_stand_in
    def test_ranks_on_different_devices(self):
        whole, sync = whole_and_sync((3,))
        x, dy = np.random.default_rng(2).normal(size=(2, 9, 3))
        parts = list(zip(shards(x, [4, 2, 3]), shards(dy, [4, 2, 3]), strict=True))
        devices = ["cuda:0", "cuda:1", "cpu"]
        backends = [backend_for(device) for device in devices]

        def work(rank):
            layer = copy.deepcopy(sync).to(devices[rank])
            assert layer.running_mean.backend is backends[rank]
            return steps_of(layer, *([part] for part in parts[rank]))[0]

        (expected,) = steps_of(whole, [x], [dy])
        found = spawn(work, 3)
        for key in ("y", "dx"):
            together = np.concatenate([rank[key] for rank in found])
            np.testing.assert_allclose(together, expected[key], **EXACT)
        for rank in found:
            np.testing.assert_allclose(rank["running_var"], expected["running_var"], **EXACT)

    def test_checkpointing_counts_a_batch_once(self):
        whole, sync = whole_and_sync((3,))
        x, dy = np.random.default_rng(1).normal(size=(2, 6, 3))
        parts = list(zip(shards(x, [4, 2]), shards(dy, [4, 2]), strict=True))

        def work(rank):
            layer, (x, dy) = copy.deepcopy(sync), (tg.tensor(part) for part in parts[rank])
            x.requires_grad_()
            checkpoint(layer, x).backward(dy)
            return x.grad.numpy(), state(layer)

        (expected,) = steps_of(whole, [x], [dy])
        found = spawn(work, 2)
        np.testing.assert_allclose(np.concatenate([dx for dx, _ in found]), expected["dx"], **EXACT)
        for _, known in found:
            assert known["num_batches_tracked"] == 1
            np.testing.assert_allclose(known["running_var"], expected["running_var"], **EXACT)


class TestFailures:
    def test_a_bad_input_on_one_rank_ends_all(self):
        changed = []

        def work(rank):
            layer = nn.SyncBatchNorm(2)
            before = state(layer)
            try:
                layer(tg.ones(3, 2 + (rank == 1)))
            finally:
                changed.append(state(layer) != before)

        with pytest.raises(ShapeError, match=r"expected \(N, 2, \*S\) .* got \(3, 3\)"):
            spawn(work, 3)
        assert changed == [False] * 3

    def test_layers_of_different_sizes_are_named(self):
        def work(rank):
            nn.SyncBatchNorm(2 + rank)(tg.ones(3, 2 + rank))

        with pytest.raises(DistributedError, match=r"all_gather\(float64 \(2, 3\)\) from rank 1"):
            spawn(work, 2)

    def test_a_rank_that_does_not_differentiate(self):
        def work(rank):
            y = nn.SyncBatchNorm(2)(tg.randn(3, 2).requires_grad_())
            if rank == 0:
                y.sum().backward()

        with pytest.raises(DistributedError, match=r"all_reduce.* got rank 1 having returned"):
            spawn(work, 2)

    def test_a_rank_that_evaluates(self):
        def work(rank):
            nn.SyncBatchNorm(2).train(rank == 0)(tg.ones(3, 2))

        with pytest.raises(DistributedError, match=r"all_gather_object.* rank 1 having returned"):
            spawn(work, 2)


@pytest.mark.torch
def test_the_arguments_of_pytorch_come_first():
    torch = pytest.importorskip("torch")
    theirs = inspect.signature(torch.nn.SyncBatchNorm).parameters
    ours = inspect.signature(nn.SyncBatchNorm).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert [ours[k].default for k in theirs] == [p.default for p in theirs.values()]
    method = torch.nn.SyncBatchNorm.convert_sync_batchnorm
    known = inspect.signature(nn.SyncBatchNorm.convert_sync_batchnorm)
    assert list(known.parameters) == list(inspect.signature(method).parameters)
    assert list(nn.SyncBatchNorm(3).state_dict()) == list(torch.nn.SyncBatchNorm(3).state_dict())
