"""Running statistics of a model: accumulated, estimated anew, frozen."""

from __future__ import annotations

import threading
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.data import DataLoader, TensorDataset
from tinygrad_bn.errors import ArgumentError, ShapeError, StateError
from tinygrad_bn.nn.utils import (
    accumulate_statistics,
    freeze_batch_norm,
    spectral_norm,
    unfreeze_batch_norm,
    update_bn,
)
from tinygrad_bn.utils.checkpoint import checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (24, 4))


def network(device="cpu", **options):
    tg.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm1d(4, **options),
        nn.Linear(4, 6),
        nn.BatchNorm1d(6, **options),
        nn.Tanh(),
        nn.Dropout(0.5),
    ).to(tg.float64, device=device)


def state(model):
    return [x.tolist() for x in model.state_dict().values()]


def statistics(norm):
    return np.array([norm.running_mean.tolist(), norm.running_var.tolist()])


class TestAccumulateStatistics:
    @pytest.mark.parametrize("momentum", [0.3, None])
    @pytest.mark.parametrize("cuts", [(12,), (2, 5, 21), ()])
    def test_advances_once_as_one_large_batch(self, momentum, cuts, device):
        norm = nn.BatchNorm1d(4, momentum=momentum, dtype=tg.float64, device=device)
        whole = deepcopy(norm)
        for step in range(3):
            x = X + step
            whole(tg.tensor(x, device=device))
            with accumulate_statistics(norm):
                for part in np.split(x, cuts):
                    norm(tg.tensor(part, device=device))
        # another order of the same sums in float64
        np.testing.assert_allclose(statistics(norm), statistics(whole), rtol=1e-13)
        assert norm.num_batches_tracked.item() == 3

    @given(
        sizes=st.lists(st.integers(2, 9), min_size=1, max_size=6),
        offset=st.sampled_from([0.0, 1e3, -1e6]),
        correction=st.sampled_from(["biased", "unbiased"]),
    )
    @settings(deadline=None, max_examples=30)
    def test_any_cut_gives_the_moments_of_all_values(self, sizes, offset, correction):
        norm = nn.BatchNorm1d(2, momentum=1.0, dtype=tg.float64, running_var_correction=correction)
        parts = [RNG.normal(offset, 1, (n, 2, 3)) + n for n in sizes]
        with accumulate_statistics(norm):
            for part in parts:
                norm(tg.tensor(part))
        values = np.concatenate(parts).swapaxes(1, 2).reshape(-1, 2)
        expected = values.mean(0), values.var(0, ddof=int(correction == "unbiased"))
        # NumPy's own mean of offsets of 1e6 is good to 1e-10, and its variance to 1e-9
        np.testing.assert_allclose(statistics(norm), expected, rtol=1e-8)

    def test_micro_batches_are_normalised_by_their_own_statistics(self):
        norm, plain = nn.BatchNorm1d(4).double(), nn.BatchNorm1d(4).double()
        with accumulate_statistics(norm):
            for part in np.split(X, 3):
                x = tg.tensor(part)
                assert norm(x).tolist() == plain(x).tolist()
                assert norm.num_batches_tracked.item() == 0
        assert plain.num_batches_tracked.item() == 3

    def test_an_exception_advances_nothing(self):
        model = network()
        before = state(model)
        with pytest.raises(ZeroDivisionError), accumulate_statistics(model):  # noqa: PT012
            model(tg.tensor(X))
            raise ZeroDivisionError
        assert state(model) == before
        model(tg.tensor(X))  # and what comes later advances again
        assert model[0].num_batches_tracked.item() == 1

    def test_an_inner_one_is_a_micro_batch_of_the_outer(self):
        norm, whole = (nn.BatchNorm1d(4, dtype=tg.float64) for _ in range(2))
        a, b, c = (tg.tensor(part) for part in np.split(X, 3))
        with accumulate_statistics(norm):
            norm(a)
            with accumulate_statistics(norm):
                norm(b)
                norm(c)
            assert norm.num_batches_tracked.item() == 0
            with pytest.raises(ZeroDivisionError), accumulate_statistics(norm):  # noqa: PT012
                norm(a * 100)
                raise ZeroDivisionError
        whole(tg.tensor(X))
        np.testing.assert_allclose(statistics(norm), statistics(whole), rtol=1e-13)
        assert norm.num_batches_tracked.item() == 1

    def test_only_training_forwards_of_what_is_not_frozen_count(self):
        model = network()
        model[2].freeze()
        before = state(model)
        with accumulate_statistics(model):
            model.eval()(tg.tensor(X))
            model.train()
        assert state(model) == before
        with accumulate_statistics(model):
            model(tg.tensor(X))
        counts = [model[i].num_batches_tracked.item() for i in (0, 2)]
        assert counts == [1, 0]

    def test_a_layer_called_twice_still_takes_one_step(self):
        norm = nn.BatchNorm1d(4, dtype=tg.float64)
        with accumulate_statistics(norm):
            norm(norm(tg.tensor(X)))
        assert norm.num_batches_tracked.item() == 1

    def test_a_forward_that_runs_again_for_its_gradient_does_not_count(self):
        norm, plain = (nn.BatchNorm1d(4, dtype=tg.float64) for _ in range(2))
        for layer, run in ((norm, checkpoint), (plain, lambda f, x: f(x))):
            with accumulate_statistics(layer):
                for part in np.split(X, 2):
                    x = tg.tensor(part, requires_grad=True)
                    (run(layer, x) ** 2).sum().backward()
        assert state(norm) == state(plain)

    def test_belongs_to_the_layer_not_to_the_thread_or_a_copy(self):
        norm = nn.BatchNorm1d(4, dtype=tg.float64)
        with accumulate_statistics(norm):
            copy = deepcopy(norm)
            thread = threading.Thread(target=lambda: norm(tg.tensor(X)))
            thread.start()
            thread.join()
            copy(tg.tensor(X))
            assert norm.num_batches_tracked.item() == 0
        assert state(norm) == state(copy)
        assert copy.num_batches_tracked.item() == 1

    def test_gradients_are_those_of_the_sum(self):
        model, plain = network(), network()
        model[4].p = plain[4].p = 0.0
        with accumulate_statistics(model):
            for part in np.split(X, 3):
                model(tg.tensor(part)).sum().backward()
        sum(plain(tg.tensor(part)).sum() for part in np.split(X, 3)).backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=1e-13)


class TestUpdateBn:
    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_takes_all_values_alike_however_they_are_cut(self, momentum, device):
        model = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum, dtype=tg.float64, device=device))
        update_bn([tg.tensor(part) for part in np.split(X, [10, 20, 22])], model, device)
        expected = X.mean(0), X.var(0, ddof=1)
        np.testing.assert_allclose(statistics(model[0]), expected, rtol=1e-13)
        assert model[0].num_batches_tracked.item() == 4
        assert model[0].momentum == momentum

    def test_the_biased_variance_where_the_layer_has_it(self):
        model = nn.Sequential(nn.BatchNorm1d(4, running_var_correction="biased", dtype=tg.float64))
        update_bn([tg.tensor(X[:7]), tg.tensor(X[7:])], model)
        np.testing.assert_allclose(model[0].running_var.numpy(), X.var(0), rtol=1e-13)

    def test_takes_the_first_of_what_a_loader_gives(self):
        data = TensorDataset(tg.tensor(X), tg.arange(24))
        model, plain = network(), network()
        tg.manual_seed(1)
        update_bn(DataLoader(data, 8), model)
        tg.manual_seed(1)
        update_bn([tg.tensor(X[i : i + 8]) for i in (0, 8, 16)], plain)
        assert state(model) == state(plain)

    @pytest.mark.torch
    def test_one_batch_gives_what_pytorch_gives(self):
        torch = pytest.importorskip("torch")
        ours = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()).double()
        theirs = torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU()
        ).double()
        theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
        update_bn([tg.tensor(X)], ours)
        torch.optim.swa_utils.update_bn([torch.tensor(X)], theirs)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key].numpy(), value, atol=1e-13)

    @pytest.mark.parametrize(
        "norm",
        [
            lambda: nn.GhostBatchNorm(4, 8),
            lambda: nn.BatchRenorm(4),
            lambda: nn.MeanOnlyBatchNorm(4),
            lambda: nn.SyncBatchNorm(4),
            lambda: nn.EvoNormB0(4),
        ],
        ids=["ghost", "renorm", "mean-only", "sync", "evo"],
    )
    def test_every_kind_of_batch_norm_takes_part(self, norm):
        norm = norm().double()
        update_bn([tg.tensor(X[:9]), tg.tensor(X[9:])], norm)
        known = {"running_mean": X.mean(0), "running_var": X.var(0, ddof=1)}
        if isinstance(norm, nn.EvoNormB0):
            known["running_var"] = X.var(0)
        for name in norm.statistics:
            np.testing.assert_allclose(getattr(norm, name).numpy(), known[name], rtol=1e-13)

    def test_no_other_buffer_moves(self):
        model = nn.Sequential(
            nn.PowerNorm(4),
            spectral_norm(nn.Linear(4, 6)),
            nn.BatchNorm1d(6),
            nn.Unflatten(1, (2, 3)),
            nn.InstanceNorm1d(2, track_running_stats=True),
        ).double()

        def buffers(i):
            return [b.tolist() for b in model[i].buffers()]

        before = {i: buffers(i) for i in (0, 1, 4)}
        update_bn([tg.tensor(X)], model)
        assert {i: buffers(i) for i in before} == before
        assert model[2].num_batches_tracked.item() == 1
        model(tg.tensor(X))
        assert all(buffers(i) != before[i] for i in before)  # which training does move

    def test_forgets_even_nan(self):
        model = network()
        with tg.no_grad():
            model[0].running_var.fill_(np.nan)
            model[0].running_mean.fill_(np.inf)
        update_bn([tg.tensor(X)], model)
        np.testing.assert_allclose(model[0].running_var.numpy(), X.var(0, ddof=1), rtol=1e-13)

    def test_modes_momenta_and_frozen_layers_stay(self):
        model = network(momentum=0.25)
        model[0].eval()
        model[4].eval()
        model[2].freeze()
        frozen = statistics(model[2])
        update_bn([tg.tensor(X)], model)
        assert [m.training for m in model] == [False, True, True, True, False]
        assert model[0].momentum == 0.25
        np.testing.assert_array_equal(statistics(model[2]), frozen)
        assert model[0].num_batches_tracked.item() == 1

    def test_layers_that_no_batch_reaches_keep_theirs(self):
        class Skipping(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.spare = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

            def forward(self, x):
                return self.used(x)

        model = Skipping().double()
        with tg.no_grad():
            model.spare.running_mean.fill_(7.0)
        update_bn([tg.tensor(X)], model)
        assert model.spare.running_mean.tolist() == [7.0] * 4
        assert model.used.num_batches_tracked.item() == 1

    @pytest.mark.parametrize("wrong", ["batch", "loader", "none"])
    def test_an_error_changes_nothing(self, wrong):
        model = network()
        model[1].eval()
        before = state(model)

        def loader():
            if wrong == "none":
                return
            yield tg.tensor(X)
            if wrong == "loader":
                raise ZeroDivisionError
            yield tg.tensor(X[:, :3])

        error = {"batch": ShapeError, "loader": ZeroDivisionError, "none": ArgumentError}[wrong]
        with pytest.raises(error):
            update_bn(loader(), model)
        assert state(model) == before
        assert [m.training for m in model] == [True, False, True, True, True]

    def test_without_batch_norm_the_loader_is_left_alone(self):
        def loader():
            raise AssertionError("nothing to learn from it")
            yield

        update_bn(loader(), nn.Linear(4, 2))
        update_bn(loader(), nn.BatchNorm1d(4, track_running_stats=False))

    def test_records_no_graph(self):
        seen = []
        model = network()
        model[1].register_forward_hook(lambda module, args, y: seen.append(y.requires_grad))
        update_bn([tg.tensor(X)], model)
        assert seen == [False]

    def test_what_averaged_weights_need(self):
        model = network()
        averaged = optim.swa_utils.AveragedModel(model)
        averaged.update_parameters(model)
        optim.swa_utils.update_bn([tg.tensor(X)], averaged)
        np.testing.assert_allclose(averaged.module[0].running_mean.numpy(), X.mean(0), rtol=1e-13)


class TestFreezeBatchNorm:
    def test_holds_statistics_and_parameters_and_lets_go(self):
        model = network()
        assert freeze_batch_norm(model) is model
        before = state(model)
        model.eval().train()(tg.tensor(X)).sum().backward()
        assert state(model) == before
        assert model[0].weight.grad is None
        assert model[1].weight.grad is not None
        unfreeze_batch_norm(model)
        model(tg.tensor(X)).sum().backward()
        assert model[0].num_batches_tracked.item() == 1
        assert model[0].weight.grad is not None

    @pytest.mark.parametrize(("stats", "affine"), [(True, False), (False, True), (False, False)])
    def test_either_alone(self, stats, affine):
        model = freeze_batch_norm(network(), stats, affine)
        for norm in (model[0], model[2]):
            assert norm.stats_frozen is stats
            assert norm.weight.requires_grad is not affine
        unfreeze_batch_norm(freeze_batch_norm(model), stats, affine)
        assert model[0].stats_frozen is not stats
        assert model[0].bias.requires_grad is affine

    def test_a_layer_without_statistics_is_named_before_anything_changes(self):
        model = nn.Sequential(
            nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False))
        )
        with pytest.raises(StateError, match=r"got none in 1\.0: use stats=False"):
            freeze_batch_norm(model)
        assert not model[0].stats_frozen
        assert model[0].weight.requires_grad
        freeze_batch_norm(model, stats=False)
        assert not model[1][0].weight.requires_grad

    def test_every_kind_of_batch_norm_is_one(self):
        model = nn.Sequential(
            nn.GhostBatchNorm(4, 8), nn.ConditionalBatchNorm(4, 2), nn.MeanOnlyBatchNorm(4)
        )
        freeze_batch_norm(model)
        assert all(norm.stats_frozen for norm in model)
        assert not any(p.requires_grad for p in model.parameters())

    def test_other_layers_and_models_without_any_are_left_alone(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        freeze_batch_norm(model)
        assert all(p.requires_grad for p in model.parameters())
