"""A model's batch norms become synchronised ones, and keep everything they have."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.distributed.watched import spawn
from tinygrad_bn import distributed, nn
from tinygrad_bn.nn.utils import convert_sync_batch_norm

LAYERS = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d]


class Scaled(nn.BatchNorm1d):
    """A subclass with a meaning of its own."""

    def forward(self, input, mask=None):
        return 2 * super().forward(input, mask)


def network():
    return nn.Sequential(
        nn.Linear(4, 3),
        nn.BatchNorm1d(3),
        nn.Sequential(nn.Tanh(), nn.BatchNorm1d(3)),
        nn.ModuleDict({"last": nn.BatchNorm1d(3)}),
    )


class TestConversion:
    def test_finds_every_batch_norm(self):
        model = network()
        before = {path: type(m) for path, m in model.named_modules()}
        keys = list(model.state_dict())
        assert convert_sync_batch_norm(model) is model
        norms = {path for path, kind in before.items() if kind is nn.BatchNorm1d}
        assert norms == {"1", "2.1", "3.last"}
        for path, module in model.named_modules():
            assert type(module) is (nn.SyncBatchNorm if path in norms else before[path])
        assert list(model.state_dict()) == keys

    @pytest.mark.parametrize("kind", LAYERS)
    def test_gives_another_module_for_a_batch_norm_itself(self, kind):
        layer = kind(3)
        sync = convert_sync_batch_norm(layer)
        assert type(sync) is nn.SyncBatchNorm
        assert type(layer) is kind

    @pytest.mark.parametrize(
        "options",
        [
            {"eps": 1e-3, "momentum": None, "axis": -1},
            {"affine": False, "track_running_stats": False},
            {"bias": False, "running_var_correction": "biased", "on_single": "running"},
        ],
        ids=lambda options: ",".join(options),
    )
    def test_keeps_parameters_buffers_and_options(self, options, device):
        layer = nn.BatchNorm1d(3, dtype=tg.float64, device=device, **options).eval()
        sync = convert_sync_batch_norm(layer)
        assert repr(sync) == repr(layer).replace("BatchNorm1d", "SyncBatchNorm")
        assert not sync.training
        for ours, theirs in (
            (sync.named_parameters(), layer.named_parameters()),
            (sync.named_buffers(), layer.named_buffers()),
        ):
            for (name, a), (other, b) in zip(ours, theirs, strict=True):
                assert name == other
                assert a is b
        known = set(vars(layer)) | {"process_group"}
        assert set(vars(sync)) == known
        assert {key: vars(sync)[key] for key in vars(layer)} == vars(layer)

    def test_keeps_what_is_frozen_and_hooks(self):
        layer, called = nn.BatchNorm1d(3).freeze(stats=True, affine=True), []
        layer.register_forward_hook(lambda module, args, output: called.append(module))
        sync = convert_sync_batch_norm(layer)
        assert sync.stats_frozen
        assert not any(p.requires_grad for p in sync.parameters())
        x = tg.ones(2, 3) * 5
        assert sync.train()(x).tolist() == layer(x).tolist()
        assert called == [sync, layer]

    def test_leaves_the_old_layer_its_own(self):
        layer = nn.BatchNorm1d(3)
        sync = convert_sync_batch_norm(layer)
        layer.extra = nn.Identity()
        layer.eval()
        assert sync.training
        assert [name for name, _ in sync.named_children()] == []

    def test_a_layer_in_two_places_stays_one(self):
        shared = nn.BatchNorm1d(3)
        model = nn.Sequential(shared, nn.Sequential(shared), nn.Tanh(), shared)
        convert_sync_batch_norm(model)
        assert type(model[0]) is nn.SyncBatchNorm
        assert model[0] is model[1][0]
        assert model[0] is model[3]

    def test_ends_where_modules_refer_to_each_other(self):
        parent, child = nn.Sequential(nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
        parent.register_module("child", child)
        child.register_module("parent", parent)
        convert_sync_batch_norm(parent)
        assert type(parent[0]) is type(child[0]) is nn.SyncBatchNorm

    def test_leaves_other_norms_and_subclasses(self):
        others = [nn.LayerNorm(3), nn.InstanceNorm1d(3), Scaled(3)]
        others += [nn.GhostBatchNorm(3, 2), nn.BatchRenorm(3)]
        model = convert_sync_batch_norm(nn.Sequential(*others))
        assert all(a is b for a, b in zip(model, others, strict=True))

    def test_under_the_name_of_pytorch(self):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))
        assert type(model[0]) is nn.SyncBatchNorm

    def test_takes_a_group_and_moves_to_another(self):
        def work(rank):
            half = distributed.split_group(rank // 2)
            model = convert_sync_batch_norm(network(), half)
            assert model[1].process_group is model[3]["last"].process_group is half
            return convert_sync_batch_norm(model)[1].process_group

        assert spawn(work, 4) == [None] * 4


def test_an_optimizer_goes_on_and_ranks_learn_what_the_whole_batch_teaches():
    model = network().double()
    x, dy = np.random.default_rng(0).normal(size=(2, 3, 8, 4))

    def train(model, rows, convert):
        model = copy.deepcopy(model)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(3):
            if step == 1 and convert:  # buffers of the optimizer hold the parameters by then
                convert_sync_batch_norm(model)
            optimizer.zero_grad()
            part = slice(None) if step == 0 else rows  # alike until there is something to share
            y = model[2](model[1](model[0](tg.tensor(x[step, part]))))
            y = model[3]["last"](y)
            (y * tg.tensor(dy[step, part, :3])).sum().backward()
            if step:
                scale = distributed.get_world_size()
                distributed.average_gradients(model.parameters())
                for p in model.parameters():
                    p.grad = p.grad * scale
            optimizer.step()
        return {key: value.numpy() for key, value in model.state_dict().items()}

    expected = train(model, slice(None), False)
    parts = [slice(0, 5), slice(5, 5), slice(5, 8)]
    for found in spawn(lambda rank: train(model, parts[rank], True), 3):
        for key, value in expected.items():
            # sums in another order, of gradients around 10
            np.testing.assert_allclose(found[key], value, rtol=1e-11, atol=1e-11, err_msg=key)
