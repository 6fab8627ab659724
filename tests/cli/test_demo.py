"""The demo trains, prints its table, and draws its figure; batch norm is ahead."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tinygrad_bn.cli.figure_one import Settings, Trace, network, summary, train
from tinygrad_bn.data.datasets import digits


def test_it_prints_accuracy_against_steps_and_writes_the_figure(command, tmp_path):
    result = command("demo --seeds 1 --steps 75 --out", tmp_path / "figures")
    assert result.code == 0, result.err
    rows = re.findall(r"^ +(\d+) +([\d.]+) ± +[\d.]+ +([\d.]+) ±", result.out, re.MULTILINE)
    assert [int(step) for step, _, _ in rows] == [25, 50, 75]
    assert all(float(with_bn) > float(without) for _, without, with_bn in rows[1:])

    png = (tmp_path / "figures" / "batch_norm.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    pixels = pytest.importorskip("matplotlib.image").imread(tmp_path / "figures" / "batch_norm.png")
    assert pixels.shape[0] > 500
    assert pixels.std() > 0.05  # not an empty page
    svg = ElementTree.parse(tmp_path / "figures" / "batch_norm.svg")
    assert len(svg.findall(".//{*}path")) > 50


def test_both_networks_of_a_seed_start_from_the_same_weights():
    import tinygrad_bn as tg

    weights = []
    for batch_norm in (False, True):
        tg.manual_seed(3)
        model = network(batch_norm, 64, 10, 0.125)
        weights.append([m.weight.detach().numpy() for m in model if hasattr(m, "in_features")])
    assert len(weights[0]) == 4
    for plain, normalized in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, normalized)


def test_a_seed_decides_everything():
    split, settings = digits(), Settings(steps=25)
    first, again = (train(split, True, 5, settings, lambda *_: None) for _ in range(2))
    assert first.accuracy == again.accuracy
    np.testing.assert_array_equal(first.percentiles, again.percentiles)


def test_percentiles_are_of_what_the_last_sigmoid_gets():
    split = digits()
    model = network(False, 64, 10, 0.125)
    got = []
    model[-2].register_forward_pre_hook(lambda module, args: got.append(args[0].detach().numpy()))
    trace = Trace()
    trace.measure(model, split, 1)
    low, median, high = trace.percentiles[0]
    assert low < median < high
    assert median == pytest.approx(np.median(got[0][:, 0]), rel=1e-6)  # float32


def test_the_summary_is_in_percent_over_seeds():
    mean, std = summary([Trace([1], [0.5], []), Trace([1], [0.7], [])])
    np.testing.assert_allclose([*mean, *std], [60, 10])


@pytest.mark.parametrize("words", ["--seeds 0", "--steps none", "--lr 0", "--lr nan"])
def test_what_means_nothing_is_refused(command, tmp_path, words):
    result = command("demo", words, "--out", tmp_path)
    assert result.code == 2
    assert "expected a" in result.err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_training(command, tmp_path):
    (tmp_path / "file").write_text("")
    result = command("demo --out", tmp_path / "file" / "figures")
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(r"tinygrad-bn: error: cannot write to the folder .*\n", result.err)
