"""The report on batch norms: what it measures, and that it leaves no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.utils import bn_report, update_bn

RNG = np.random.default_rng(0)


def norm_knowing(mean, var, **options):
    norm = nn.BatchNorm1d(len(mean), dtype=tg.float64, **options)
    with tg.no_grad():
        norm.running_mean.overwrite(np.asarray(mean))
        norm.running_var.overwrite(np.asarray(var))
    return norm


def as_known(layer):
    return [x.tolist() for x in layer.state_dict().values()], [m.training for m in layer.modules()]


@pytest.mark.parametrize("correction", ["biased", "unbiased"])
def test_shifts_and_ratios_are_those_of_the_formulas(correction, device):
    x = RNG.normal(size=(10, 3)) * [1.0, 2.0, 3.0] + [0.0, 1.0, -5.0]
    known_mean, known_var = np.array([0.5, 1.0, 2.0]), np.array([1.0, 9.0, 4.0])
    norm = norm_knowing(known_mean, known_var, eps=0.1, running_var_correction=correction)
    (layer,) = bn_report(nn.Sequential(norm).to(device=device), tg.tensor(x, device=device))
    var = x.var(0, ddof=int(correction == "unbiased"))
    shift = np.abs(x.mean(0) - known_mean) / np.sqrt(known_var + 0.1)
    ratio = np.abs(np.log((var + 0.1) / (known_var + 0.1)))
    assert (layer.path, layer.kind, layer.channels, layer.count) == ("0", "BatchNorm1d", 3, 10)
    assert layer.mean_shift == pytest.approx(shift.mean())
    assert layer.max_shift == pytest.approx(shift.max())
    assert layer.mean_log_ratio == pytest.approx(ratio.mean())
    assert layer.max_log_ratio == pytest.approx(ratio.max())
    assert (layer.dead, layer.nonfinite) == (0, 0)


def test_what_was_just_estimated_does_not_drift():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)).double()
    x = tg.tensor(RNG.normal(3, 2, (20, 4)))
    assert bn_report(model, x)["0"].max_shift > 1
    update_bn([x], model)
    layer = bn_report(model, x)["0"]
    assert layer.max_shift < 1e-13
    assert layer.max_log_ratio < 1e-13


def test_every_layer_meets_what_inference_gives_it():
    model = nn.Sequential(norm_knowing([10.0] * 2, [4.0] * 2), nn.Dropout(0.9), nn.BatchNorm1d(2))
    x = RNG.normal(size=(50, 2))
    layer = bn_report(model.double(), tg.tensor(x))["2"]
    # evaluation subtracts 10 and divides by 2, and drops nothing
    expected = np.abs((x.mean(0) - 10) / 2).max()
    assert layer.max_shift == pytest.approx(expected, rel=1e-4)  # up to ε


def test_dead_and_nonfinite_channels_spoil_nobody_elses_figures():
    x = RNG.normal(size=(8, 4))
    x[:, 1] = 0.1
    x[3, 2] = np.nan
    norm = norm_knowing([0.0] * 4, [1.0, 1.0, 1.0, math.inf])
    layer = bn_report(norm, tg.tensor(x))[""]
    assert (layer.dead, layer.nonfinite) == (1, 2)
    assert layer.max_shift == pytest.approx(np.abs(x.mean(0)[:2] / np.sqrt(1 + 1e-5)).max())
    assert math.isfinite(layer.max_log_ratio)


def test_masks_and_several_calls_count_as_the_values_that_they_keep():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.spare = nn.BatchNorm1d(3), nn.BatchNorm1d(2)

        def forward(self, x):
            mask = tg.tensor(np.arange(6) < 4)
            self.norm(x, mask)
            return self.norm(x + 1, mask=mask)

    x = RNG.normal(size=(6, 3))
    x[4:] = np.nan
    report = bn_report(Twice().double(), [tg.tensor(x), "labels"])
    kept = np.concatenate([x[:4], x[:4] + 1])
    assert report["norm"].count == 8
    assert report["norm"].max_shift == pytest.approx(np.abs(kept.mean(0)).max(), rel=1e-4)
    assert report["norm"].nonfinite == 0
    assert report["spare"].count == 0
    assert math.isnan(report["spare"].max_shift)


def test_conditions_and_ghosts_are_batch_norms_too():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.ghost, self.conditional = nn.GhostBatchNorm(3, 4), nn.ConditionalBatchNorm(3, 2)
            self.centred = nn.MeanOnlyBatchNorm(3)

        def forward(self, x):
            return self.conditional(self.centred(self.ghost(x)), tg.arange(6) % 2)

    report = bn_report(Both(), tg.randn(6, 3))
    assert [layer.kind for layer in report] == ["GhostBatchNorm", "ConditionalBatchNorm"]
    assert [layer.count for layer in report] == [6, 6]


def test_without_running_statistics_there_is_no_drift():
    norm = nn.BatchNorm1d(3, track_running_stats=False)
    layer = bn_report(norm, tg.ones(4, 3))[""]
    assert math.isnan(layer.max_shift)
    assert layer.dead == 3


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(fails):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model[1].eval()
    before, stream = as_known(model), tg.get_rng_state().tolist()
    if fails:
        with pytest.raises(ShapeError):
            bn_report(model, tg.zeros(4, 5))
    else:
        bn_report(model, tg.randn(4, 3, generator=tg.Generator().manual_seed(0)))
    assert as_known(model) == before
    assert tg.get_rng_state().tolist() == stream
    seen = []
    model[3].register_forward_hook(lambda *_: seen.append(1))
    model(tg.zeros(4, 3) + tg.arange(4).unsqueeze(1))
    assert seen == [1]
    assert model[3].num_batches_tracked.item() == 1


def test_prints_a_table():
    model = nn.Sequential(
        nn.BatchNorm1d(3, track_running_stats=False), nn.Sequential(nn.BatchNorm1d(3))
    )
    text = str(bn_report(model, tg.randn(16, 3)))
    title, first, second = text.splitlines()
    assert title.split("  ")[0] == "path"
    assert "max log ratio" in title
    assert first.split() == ["0", "BatchNorm1d", "3", "16", "–", "–", "–", "–", "0", "0"]
    assert second.startswith("1.0   BatchNorm1d")
    assert len(bn_report(nn.Linear(2, 2), tg.zeros(1, 2))) == 0
