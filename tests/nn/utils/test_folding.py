"""Batch norms folded into what stands beside them."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.data import DataLoader, datasets
from tinygrad_bn.errors import ArgumentError, ModuleError, ShapeError
from tinygrad_bn.nn.normalization import BatchNorm
from tinygrad_bn.nn.utils import FoldedBatchNorm, fold_batch_norm, folds_of

RNG = np.random.default_rng(0)


def experienced(model, seed=0):
    """The model with statistics and parameters as after some training, in evaluation."""
    random = np.random.default_rng(seed)
    with tg.no_grad():
        for norm in model.modules():
            if isinstance(norm, BatchNorm):
                for name, low, high in (
                    ("running_mean", -3, 3),
                    ("running_var", 0.1, 4),
                    ("weight", -2, 2),
                    ("bias", -1, 1),
                ):
                    if (x := getattr(norm, name)) is not None:
                        x.overwrite(x.backend.asarray(random.uniform(low, high, x.shape)))
    return model.eval()


def relative_error(folded, model, x):
    with tg.no_grad():
        y, expected = np.asarray(folded(x).tolist()), np.asarray(model(x).tolist())
    return np.abs(y - expected).max() / np.abs(expected).max()


def paths(model):
    return [(fold.norm, fold.into) for fold in folds_of(model)]


def reason(model, norm, pairs=()):
    return next(fold.reason for fold in folds_of(model, pairs) if fold.norm == norm)


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

    @given(
        kinds=st.lists(st.sampled_from("LNNADI("), min_size=1, max_size=10),
        seed=st.integers(0, 100),
    )
    @settings(deadline=None, max_examples=50)
    def test_any_chain_computes_the_same(self, kinds, seed):
        make = {
            "L": lambda: nn.Linear(4, 4),
            "N": lambda: nn.BatchNorm1d(4),
            "A": nn.Tanh,
            "D": nn.Dropout,
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


class Residual(nn.Module):
    """A module whose forward only its author knows."""

    def __init__(self):
        super().__init__()
        self.norm0, self.fc1 = nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.fc2, self.norm2 = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.tail = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        y = self.norm2(self.fc2(self.fc1(self.norm0(x)).tanh()))
        return self.tail(x + y)


class TestPairs:
    def test_fold_what_no_sequential_shows(self):
        model = experienced(nn.Sequential(Residual(), nn.Tanh(), Residual()).double())
        pairs = [("0.fc2", "0.norm2"), ("2.norm0", "2.fc1")]
        folds = {fold.norm: fold.into for fold in folds_of(model, pairs) if fold.into}
        assert folds == {
            "0.norm2": "0.fc2",
            "0.tail.1": "0.tail.0",
            "2.norm0": "2.fc1",
            "2.tail.1": "2.tail.0",
        }
        x = tg.tensor(RNG.normal(size=(5, 4)))
        assert relative_error(fold_batch_norm(model, pairs), model, x) < 1e-13

    def test_without_them_nothing_is_guessed(self):
        folds = folds_of(Residual())
        assert [fold.into for fold in folds] == [None, None, "tail.0"]
        assert str(folds[0]).startswith("norm0 stays: nothing that takes it in")
        assert str(folds[2]) == "tail.1 → tail.0"

    @pytest.mark.parametrize(
        ("pair", "error", "match"),
        [
            (("fc1", "nowhere"), ModuleError, "has no module 'nowhere'"),
            (("fc1", "fc2"), ArgumentError, "expected a batch norm and a Linear .* got Linear and"),
            (("norm0", "norm2"), ArgumentError, "got BatchNorm1d and BatchNorm1d"),
            (("tail", "norm2"), ArgumentError, "tail is a Sequential"),
            (("narrow", "norm2"), ArgumentError, "narrow has 3 channels, not 4"),
            (("norm2", "narrow"), ArgumentError, "narrow has 2 channels, not 4"),
            (("fc1", "bare"), ArgumentError, "no running statistics"),
            (("fc1", "images"), ArgumentError, "axis 1 is not the one that fc1 acts on"),
            (("fc1",), ArgumentError, "expected two paths as a pair"),
        ],
        ids=str,
    )
    def test_are_checked(self, pair, error, match):
        model = Residual()
        model.narrow = nn.Linear(2, 3)
        model.bare = nn.BatchNorm1d(4, track_running_stats=False)
        model.images = nn.BatchNorm2d(4)
        before = [p.tolist() for p in model.parameters()]
        with pytest.raises(error, match=match):
            fold_batch_norm(model, [("fc2", "norm2"), pair] if "norm2" not in pair else [pair])
        assert [p.tolist() for p in model.parameters()] == before

    def test_a_norm_folds_once(self):
        with pytest.raises(ArgumentError, match="got Linear and FoldedBatchNorm"):
            fold_batch_norm(Residual(), [("fc2", "norm2"), ("fc1", "norm2")])


class TestWhatIsLeftAlone:
    def chain(self):
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def test_no_running_statistics(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
        assert reason(model, "1") == "it has no running statistics"

    @pytest.mark.parametrize("which", [0, 1])
    def test_hooks(self, which):
        model = self.chain()
        handle = model[which].register_forward_hook(lambda module, args, y: y * 2)
        assert reason(model, "1") == f"{which} has hooks"
        handle.remove()
        assert paths(model) == [("1", "0")]

    def test_hooks_between(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.BatchNorm1d(4))
        model[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        assert paths(model) == [("2", None)]
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.BatchNorm1d(4))
        model[0].register_forward_hook(lambda module, args, y: y * 2)
        assert paths(model) == [("1", None)]

    def test_a_hook_around_a_sequential_sees_the_same(self):
        model = nn.Sequential(self.chain(), nn.Tanh())
        model[0].register_forward_hook(lambda module, args, y: y * 2)
        model = experienced(model)
        assert paths(model) == [("0.1", "0.0")]
        x = tg.tensor(RNG.normal(size=(3, 4)), dtype=tg.float32)
        assert relative_error(fold_batch_norm(model), model, x) < 1e-6

    def test_modules_that_occur_twice(self):
        layer = nn.Linear(4, 4)
        model = nn.Sequential(layer, nn.BatchNorm1d(4), nn.Tanh(), layer)
        assert reason(model, "1") == "0 occurs more than once"
        block = self.chain()
        assert reason(nn.Sequential(block, nn.Tanh(), block), "0.1") == "0.1 occurs more than once"

    def test_parameters_that_are_shared(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4))
        model[3].weight = model[0].weight
        assert reason(model, "1") == "0 shares parameters"

    def test_weights_that_are_computed(self):
        model = self.chain()
        model[0].register_parameter("scale", nn.Parameter(tg.ones(1)))
        assert "0 has other parameters or parts than a Linear" in reason(model, "1")

    def test_a_forward_of_ones_own(self):
        class Doubled(nn.Linear):
            def forward(self, input):
                return super().forward(input) * 2

        class Named(nn.Linear):
            pass

        model = nn.Sequential(Doubled(4, 4), nn.BatchNorm1d(4))
        assert reason(model, "1") == "0 has a forward of its own"
        assert paths(nn.Sequential(Named(4, 4), nn.BatchNorm1d(4))) == [("1", "0")]
        model = self.chain()
        model[0].forward = lambda x: x
        assert reason(model, "1") == "0 has a forward of its own"

        class Reversed(nn.Sequential):
            def forward(self, input):
                return self[0](self[1](input))

        assert paths(Reversed(nn.Linear(4, 4), nn.BatchNorm1d(4))) == [("1", None)]

    def test_a_way_of_its_own_to_evaluate(self):
        class Peculiar(nn.BatchNorm1d):
            def normalized_by_running(self, input, axis):
                return super().normalized_by_running(input, axis) * 2

        model = nn.Sequential(nn.Linear(4, 4), Peculiar(4))
        assert reason(model, "1") == "it evaluates in a way of its own"

    def test_what_would_not_be_finite(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).half()
        with tg.no_grad():
            model[1].running_var.fill_(0.0)
            model[1].eps = 1e-20
            model[0].weight.fill_(1.0)
        assert "finite" in reason(model, "1")  # 1e10 is more than float16 holds
        with tg.no_grad():
            model[1].running_var.fill_(np.nan)
        assert "finite" in reason(model, "1")
        assert fold_batch_norm(model)[0].weight.tolist() == [[1.0] * 4] * 4

    def test_a_norm_on_another_device(self, cuda):
        model = self.chain()
        model[1].to(cuda)
        assert "0 is on cpu" in reason(model, "1")

    def test_other_norms_and_models_without_any(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.InstanceNorm1d(4))
        assert folds_of(model) == []
        assert folds_of(nn.BatchNorm1d(4))[0].into is None
        assert repr(fold_batch_norm(model)) == repr(model)
