"""What is folded by name, and what is left alone: nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.folds import experienced, paths, reason, relative_error
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, ModuleError
from tinygrad_bn.nn.utils import fold_batch_norm, folds_of, weight_norm

RNG = np.random.default_rng(0)


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
            ((0, "norm2"), ArgumentError, "expected two paths as a pair"),
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
        weight_norm(model[0])
        assert "0 has other parameters or parts than a Linear" in reason(model, "1")
        model = self.chain()
        model[0].register_parameter("scale", nn.Parameter(tg.ones(1)))
        assert "0 has other parameters" in reason(model, "1")

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
