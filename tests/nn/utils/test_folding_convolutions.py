"""Batch norms folded into convolutions before and after them."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.utils.folds import experienced, paths, reason, relative_error
from tinygrad_bn import nn, optim
from tinygrad_bn.data import DataLoader, datasets
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.utils import fold_batch_norm

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AFTER = [
    {},
    {"padding": 1, "stride": 2},
    {"padding": "same", "bias": False},
    {"groups": 2, "padding": 1, "padding_mode": "reflect"},
    {"groups": 4, "dilation": 2},
]
BEFORE = [
    {},
    {"stride": 2, "bias": False},
    {"padding": "valid", "groups": 2},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": "same", "padding_mode": "circular", "groups": 4},
]


TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def drawn(*shape):
    return tg.tensor(np.random.default_rng(list(shape)).standard_normal(shape))


class TestOne:
    @pytest.mark.parametrize("axes", CONVOLUTIONS)
    @pytest.mark.parametrize("options", AFTER, ids=str)
    def test_goes_into_the_convolution_before_it(self, axes, options, device):
        layers = CONVOLUTIONS[axes](4, 8, 3, **options), NORMS[axes](8)
        model = experienced(nn.Sequential(*layers).double().to(device))
        assert paths(model) == [("1", "0")]
        x = drawn(2, 4, *[6, 5, 7][:axes]).to(device)
        assert relative_error(fold_batch_norm(model), model, x) < 1e-14

    @pytest.mark.parametrize("axes", CONVOLUTIONS)
    @pytest.mark.parametrize("options", BEFORE, ids=str)
    def test_goes_into_the_convolution_after_it(self, axes, options, device):
        layers = NORMS[axes](4), CONVOLUTIONS[axes](4, 8, 3, **options)
        model = experienced(nn.Sequential(*layers).double().to(device))
        assert paths(model) == [("0", "1")]
        x = drawn(2, 4, *[6, 5, 7][:axes]).to(device)
        assert relative_error(fold_batch_norm(model), model, x) < 1e-14

    @pytest.mark.parametrize("axes", TRANSPOSED)
    @pytest.mark.parametrize(
        "options",
        [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "bias": False}],
        ids=str,
    )
    def test_goes_into_the_transposed_convolution_before_it(self, axes, options, device):
        layers = TRANSPOSED[axes](4, 8, 3, **options), NORMS[axes](8)
        model = experienced(nn.Sequential(*layers).double().to(device))
        assert paths(model) == [("1", "0")]
        x = drawn(2, 4, *[4, 3, 2][:axes]).to(device)
        assert relative_error(fold_batch_norm(model), model, x) < 1e-14

    @pytest.mark.parametrize("groups", [1, 2])
    def test_goes_into_the_transposed_convolution_of_points_after_it(self, groups):
        layers = nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 1, groups=groups)
        model = experienced(nn.Sequential(*layers).double())
        assert paths(model) == [("0", "1")]
        assert relative_error(fold_batch_norm(model), model, drawn(2, 4, 4, 3)) < 1e-14

    def test_goes_where_channels_come_last(self):
        layers = nn.Conv2d(4, 8, 3, axis=-1), nn.BatchNorm2d(8, axis=-1)
        model = experienced(nn.Sequential(*layers).double())
        assert paths(model) == [("1", "0")]
        assert relative_error(fold_batch_norm(model), model, drawn(2, 5, 6, 4)) < 1e-14


class TestWhatStays:
    @pytest.mark.parametrize("padding", [1, (0, 1), "same"])
    def test_before_zeros_that_it_does_not_shift(self, padding):
        model = experienced(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, padding=padding)))
        assert paths(model) == [("0", None)]
        assert "zeros around" in reason(model, "0")

    @pytest.mark.parametrize("options", [{}, {"stride": 3}, {"output_padding": 1, "stride": 2}])
    def test_before_a_transposed_convolution_that_spreads_its_shift_unevenly(self, options):
        model = experienced(
            nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 8, 3, **options))
        )
        assert paths(model) == [("0", None)]
        assert "more of its shift" in reason(model, "0")

    @pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
    def test_unless_it_shifts_nothing(self, kind):
        norm = nn.BatchNorm2d(4, affine=False)
        model = nn.Sequential(norm, kind(4, 8, 3, padding=1, groups=2)).double().eval()
        norm.running_var.fill_(3.0)
        assert paths(model) == [("0", "1")]
        assert relative_error(fold_batch_norm(model), model, drawn(2, 4, 5, 5)) < 1e-14

    def test_along_another_axis(self):
        model = experienced(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, axis=-1)))
        assert "its axis -1 is not the one" in reason(model, "1")

    def test_of_another_rank(self):
        model = experienced(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm1d(8)))
        assert paths(model) == [("1", None)]

    def test_of_other_channels(self):
        model = experienced(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(4, 8, 3, groups=2)))
        assert "1 has 4 channels, not 2" in reason(model, "0")

    def test_inputs_without_samples_are_refused(self):
        """A batch norm would have refused them too."""
        model = experienced(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)))
        with pytest.raises(ShapeError, match="rank 3, for which"):
            fold_batch_norm(model)(drawn(4, 8).float())


def test_a_trained_network_gives_the_same_folded():
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 10),
    )
    digits = datasets.digits()
    loader = DataLoader(digits.train, 64, shuffle=True, drop_last=True)
    tg.fit(
        model, loader, nn.functional.cross_entropy, optim.Adam(model.parameters(), 5e-3), epochs=4
    )
    x, labels = digits.test.tensors
    assert paths(model) == [("2", "1"), ("5", "4")]
    folded = fold_batch_norm(model)
    # weights rounded to float32 once more than those that were trained
    assert relative_error(folded, model.eval(), x) < 2e-6
    assert (folded(x).argmax(dim=1) == labels).float().mean().item() > 0.8
