"""Batch norms of residual networks folded into their convolutions."""

from __future__ import annotations

import numpy as np

import tinygrad_bn as tg
from tests.nn.networks.architectures import NORMS, batches, residual
from tests.nn.utils.folds import experienced, paths, reason, relative_error
from tinygrad_bn import nn
from tinygrad_bn.nn.utils import fold_batch_norm, folds_of


def images(count=5):
    return tg.tensor(batches(1, n=count)[0][0])


def pairs_of(model):
    """The convolutions of blocks with the norms behind them, which only names tell."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "conv2")]
    return [(f"{name}.conv{i}", f"{name}.norm{i}") for name in blocks for i in (1, 2)]


def test_all_norms_go_into_the_convolutions_before_them(device):
    """Of blocks by their names, of stem and shortcuts by their place."""
    model = experienced(residual(tg, NORMS["batch"]).double().to(device))
    pairs = pairs_of(model)
    assert len(pairs) == 6
    assert all(fold.into for fold in folds_of(model, pairs))
    folded = fold_batch_norm(model, pairs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert relative_error(folded, model, images().to(device)) < 1e-12


def test_without_names_those_of_the_blocks_stay():
    model = experienced(residual(tg, NORMS["batch"]).double())
    assert paths(model) == [
        ("1", "0"),
        ("3.norm1", None),
        ("3.norm2", None),
        ("4.norm1", None),
        ("4.norm2", None),
        ("4.shortcut.1", "4.shortcut.0"),
        ("5.norm1", None),
        ("5.norm2", None),
        ("5.shortcut.1", "5.shortcut.0"),
    ]
    assert relative_error(fold_batch_norm(model), model, images()) < 1e-12


class PreActivated(nn.Module):
    """x + f(x) as He et al. 2016 order it: norm, ReLU, convolution, twice; after a norm that no
    ReLU follows.
    """

    def __init__(self, channels, padding):
        super().__init__()
        first = nn.Conv2d(channels, channels, 3, padding=padding)
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            first,
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=2 - padding),
        )

    def forward(self, x):
        return x + self.body(x)


def test_a_norm_before_a_convolution_goes_into_it_where_no_zeros_stand_around():
    model = experienced(nn.Sequential(PreActivated(3, 0), nn.ReLU(), PreActivated(3, 0)).double())
    assert paths(model) == [
        ("0.body.0", "0.body.1"),
        ("0.body.2", "0.body.1"),
        ("2.body.0", "2.body.1"),
        ("2.body.2", "2.body.1"),
    ]
    assert relative_error(fold_batch_norm(model), model, images()) < 1e-12


def test_and_stays_where_they_do():
    model = experienced(nn.Sequential(PreActivated(3, 1), PreActivated(3, 0)).double())
    assert "zeros around" in reason(model, "0.body.0")
    assert dict(paths(model))["0.body.2"] == "0.body.1"
    assert relative_error(fold_batch_norm(model), model, images()) < 1e-12


def test_a_compiled_folded_network_is_the_eager_one():
    model = experienced(residual(tg, NORMS["batch"]).double())
    folded = fold_batch_norm(model, pairs_of(model))
    compiled = tg.compile(folded)
    with tg.no_grad():
        for x in (images(), images(2), images()):
            np.testing.assert_array_equal(compiled(x).numpy(), folded(x).numpy())
