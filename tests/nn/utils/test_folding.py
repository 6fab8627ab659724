"""Batch norms folded into what stands beside them."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.utils.folds import experienced, paths, reason, relative_error
from tinygrad_bn import nn, optim
from tinygrad_bn.data import DataLoader, datasets
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.nn.utils import FoldedBatchNorm, fold_batch_norm, folds_of

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def trained():
    """A network that has learned to read digits, and the digits that it has not seen."""
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm1d(64),
        nn.Linear(64, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Sequential(nn.Linear(128, 96), nn.Dropout(0.2), nn.BatchNorm1d(96, momentum=None)),
        nn.Sequential(nn.Tanh(), nn.BatchNorm1d(96, affine=False), nn.Linear(96, 64)),
        nn.GELU(),
        nn.BatchNorm1d(64, axis=-1),
        nn.Identity(),
        nn.Linear(64, 10, bias=False),
    )
    data = datasets.digits()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    loader = DataLoader(data.train, 64, shuffle=True)
    tg.fit(model, loader, nn.functional.cross_entropy, optimizer, epochs=6)
    return model, data.test.tensors


class TestTrainedNetwork:
    def test_folds_all_before_and_after_and_gives_the_same(self, trained):
        model, (x, labels) = trained
        before = {key: value.tolist() for key, value in model.state_dict().items()}
        folded = fold_batch_norm(model)
        assert paths(model) == [
            ("0", "1"),
            ("2", "1"),
            ("4.2", "4.0"),
            ("5.1", "5.2"),
            ("7", "9"),
        ]
        assert not any(isinstance(m, BatchNorm) for m in folded.modules())
        # weights rounded to float32 once more than those that were trained
        assert relative_error(folded, model.eval(), x) < 1e-6
        with tg.no_grad():
            assert (folded(x).argmax(1) == labels).float().mean().item() > 0.9
        assert {key: value.tolist() for key, value in model.state_dict().items()} == before

    def test_on_either_device(self, trained, device):
        model, (x, _) = trained
        model = deepcopy(model).eval().to(device)
        folded = fold_batch_norm(model)
        assert {p.device for p in folded.parameters()} == {x.to(device).device}
        assert relative_error(folded, model, x.to(device)) < 1e-6

    def test_in_float64_hardly_a_digit_is_lost(self, trained):
        model, (x, _) = trained
        model = deepcopy(model).double().eval()
        assert relative_error(fold_batch_norm(model), model, x.double()) < 1e-14

    def test_is_as_near_to_the_truth_as_what_was_trained(self, trained):
        model, (x, _) = trained
        exact = deepcopy(model).double().eval()(x.double()).detach().numpy()
        with tg.no_grad():
            errors = [np.abs(m(x).numpy() - exact).max() for m in (fold_batch_norm(model), model)]
        assert errors[0] < 2 * errors[1]  # both are a few roundings of float32, in other places


class TestWhatIsFolded:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}, {"eps": 0.1}])
    @pytest.mark.parametrize("after", [True, False])
    def test_with_every_option(self, bias, options, after):
        norm, layer = nn.BatchNorm1d(5, **options), nn.Linear(5, 5, bias=bias)
        model = nn.Sequential(*((layer, norm) if after else (norm, layer))).double()
        model = experienced(model)
        x = tg.tensor(RNG.normal(size=(7, 5)))
        folded = fold_batch_norm(model)
        assert relative_error(folded, model, x) < 1e-14
        assert [type(m) for m in folded].count(FoldedBatchNorm) == 1

    @pytest.mark.parametrize(
        "norm",
        [
            lambda: nn.GhostBatchNorm(5, 4),
            lambda: nn.BatchRenorm(5),
            lambda: nn.SyncBatchNorm(5),
            lambda: BatchNorm(5),
        ],
        ids=["ghost", "renorm", "sync", "any rank"],
    )
    def test_every_kind_that_evaluates_alike(self, norm):
        model = experienced(nn.Sequential(nn.Linear(5, 5), norm()).double())
        x = tg.tensor(RNG.normal(size=(7, 5)))
        assert paths(model) == [("1", "0")]
        assert relative_error(fold_batch_norm(model), model, x) < 1e-14

    @given(
        kinds=st.lists(st.sampled_from("LNNADSI("), min_size=1, max_size=10),
        seed=st.integers(0, 100),
    )
    @settings(deadline=None, max_examples=50)
    def test_any_chain_computes_the_same(self, kinds, seed):
        make = {
            "L": lambda: nn.Linear(4, 4),
            "N": lambda: nn.BatchNorm1d(4),
            "A": nn.Tanh,
            "D": nn.Dropout,
            "S": nn.AlphaDropout,
            "I": nn.Identity,
        }
        modules: list[nn.Module] = []
        for kind in kinds:  # a bracket puts what is there so far into a Sequential of its own
            modules = [nn.Sequential(*modules)] if kind == "(" else [*modules, make[kind]()]
        model = experienced(nn.Sequential(*modules).double(), seed)
        folded = fold_batch_norm(model)
        assert relative_error(folded, model, tg.tensor(RNG.normal(size=(6, 4)))) < 1e-12
        left = sum(isinstance(m, BatchNorm) for m in folded.modules())
        flat = [k for k in kinds if k in "LNA"]
        runs = "".join(flat).split("A")
        assert left == sum(run.count("N") for run in runs if "L" not in run)

    def test_never_across_an_activation(self):
        model = experienced(
            nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3))
        )
        assert paths(model) == [("2", None)]
        assert "nothing that takes it in" in reason(model, "2")

    def test_runs_of_norms_go_into_one_layer(self):
        model = experienced(
            nn.Sequential(
                nn.BatchNorm1d(3),
                nn.BatchNorm1d(3),
                nn.Linear(3, 4),
                nn.BatchNorm1d(4),
                nn.BatchNorm1d(4),
            ).double()
        )
        assert [into for _, into in paths(model)] == ["2"] * 4
        x = tg.tensor(RNG.normal(size=(5, 3)))
        assert relative_error(fold_batch_norm(model), model, x) < 1e-14

    def test_folding_again_changes_nothing(self):
        model = experienced(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
        once = fold_batch_norm(model)
        twice = fold_batch_norm(once)
        assert [p.tolist() for p in twice.parameters()] == [p.tolist() for p in once.parameters()]
        assert folds_of(once) == []

    def test_sixteen_bits_round_once(self):
        model = experienced(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).half())
        folded = fold_batch_norm(model)
        norm, weight = model[1], model[0].weight.detach().numpy().astype(np.float64)
        rstd = (norm.running_var.numpy().astype(np.float64) + norm.eps) ** -0.5
        expected = weight * (rstd * norm.weight.detach().numpy())[:, None]
        assert folded[0].weight.tolist() == expected.astype(np.float16).tolist()

    def test_paths_of_the_others_stay_and_a_norm_becomes_an_identity(self):
        model = experienced(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
        folded = fold_batch_norm(model)
        assert list(folded.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert isinstance(folded[1], nn.Identity)
        assert repr(folded[1]) == "FoldedBatchNorm(into='0', ranks=(2,))"


class TestTheCopy:
    def test_evaluates_while_the_model_stays_in_training(self):
        model = experienced(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).train()
        folded = fold_batch_norm(model)
        assert all(m.training for m in model.modules())
        assert not any(m.training for m in folded.modules())

    def test_has_hooks_but_no_memory_and_no_stale_gradient(self):
        model = experienced(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()))
        seen = []
        model[2].register_forward_hook(lambda module, args, y: seen.append(module))
        model(tg.ones(2, 3)).sum().backward()
        folded = fold_batch_norm(model)
        folded(tg.ones(2, 3))
        assert seen == [model[2], folded[2]]
        assert folded[0].weight.grad is None
        assert model[0].weight.grad is not None
        assert not np.shares_memory(folded[0].weight.array, model[0].weight.array)

    @pytest.mark.parametrize("wanted", [True, False])
    def test_a_bias_that_is_made_learns_if_the_weight_does(self, wanted):
        model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
        model.requires_grad_(wanted)
        folded = fold_batch_norm(model)
        assert folded[0].bias.requires_grad is wanted
        assert "bias=True" in repr(folded[0])


class TestRanks:
    """Linear acts on the last axis, batch norm on its own: only where these are one is it right."""

    def test_a_fold_for_two_axes_refuses_three(self):
        model = experienced(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)))
        x = tg.tensor(RNG.normal(size=(2, 4, 5)), dtype=tg.float32)
        assert model(x).shape == (2, 4, 4)  # axis 1 has as many channels by chance
        with pytest.raises(ShapeError, match=r"expected rank 2, .* folded into '0', got \(2, 4, 4"):
            fold_batch_norm(model)(x)

    def test_so_does_one_into_what_comes_after(self):
        model = experienced(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 5)))
        with pytest.raises(ShapeError, match=r"expected rank 2"):
            fold_batch_norm(model)(tg.zeros(2, 4, 4))

    def test_channels_last_fold_for_every_rank(self):
        model = experienced(
            nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, axis=-1), BatchNorm(4, axis=-1))
        )
        folded = fold_batch_norm(model)
        for shape in ((6, 5), (2, 3, 5)):
            x = tg.tensor(RNG.normal(size=shape), dtype=tg.float32)
            assert relative_error(folded, model, x) < 1e-6

    @pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm1d(4, axis=0)])
    def test_an_axis_that_is_never_the_last_is_left_alone(self, norm):
        model = nn.Sequential(nn.Linear(5, 4), norm)
        assert "is not the one that 0 acts on" in reason(model, "1")
        assert fold_batch_norm(model)[1].num_features == 4

    def test_images_with_channels_last(self):
        model = experienced(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm2d(4, axis=3)))
        x = tg.tensor(RNG.normal(size=(2, 3, 3, 5)), dtype=tg.float32)
        assert relative_error(fold_batch_norm(model), model, x) < 1e-6
