"""A training run: what it leaves in its folder, and that it goes on exactly."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.cli import run_folder
from tinygrad_bn.cli.run_folder import RunFolder
from tinygrad_bn.cli.session import Session
from tinygrad_bn.errors import DataError

SMALL = "train --data digits --hidden 16,16 --batch-size 100 --dropout 0.2 --epochs"
"""Thirteen steps an epoch; dropout, so that the random stream matters within an epoch too."""


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in tg.load(folder / "last.safetensors")["model"].items()}


def require_same_run(ours: Path, theirs: Path) -> None:
    """The weights, last and best, bit for bit, and all metrics that are not times."""
    a, b = weights(ours), weights(theirs)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    a, b = (tg.load(folder / "best.safetensors") for folder in (ours, theirs))
    for name in a:
        np.testing.assert_array_equal(a[name].numpy(), b[name].numpy(), err_msg=name)
    for row, other in zip(metrics(ours), metrics(theirs), strict=True):
        times = {"seconds", "samples_per_second"}
        assert {k: row[k] for k in row.keys() - times} == {k: other[k] for k in row.keys() - times}


def metrics(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Press Ctrl-C in the step of that number."""
    train = Session.train

    def interrupted(self, on_step, on_epoch):
        def step(s):
            on_step(s)
            if s.number == at:
                raise KeyboardInterrupt

        return train(self, step, on_epoch)

    monkeypatch.setattr(Session, "train", interrupted)


def test_a_run_leaves_configuration_metrics_curves_and_checkpoints(command, tmp_path):
    run = tmp_path / "run"
    result = command(SMALL, "2 --seed 7 --out", run)
    assert result.code == 0, result.err
    assert len([line for line in result.out.splitlines() if line.startswith("epoch ")]) == 2

    config = json.loads((run / "config.json").read_text())
    assert (config["hidden"], config["seed"], config["lr"]) == ([16, 16], 7, 0.002)
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    for row in rows:
        assert all(0 < float(row[k]) < 1 for k in row if k.endswith("accuracy"))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    # what is best is what the metrics say: its weights give that accuracy again
    session = Session(RunFolder.open(run).read_config())
    session.model.load_state_dict(tg.load(run / "best.safetensors"))
    best = max(rows, key=lambda row: float(row["validation_accuracy"]))
    measured = session.validate(session.model)
    assert measured["test_accuracy"] == float(best["test_accuracy"])
    assert sorted(p.name for p in run.iterdir()) == [
        "best.safetensors",
        "config.json",
        "curves.png",
        "last.safetensors",
        "metrics.csv",
    ]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw", "nadam", "rmsprop"])
def test_an_interrupted_epoch_begins_again_and_ends_alike(
    command, tmp_path, monkeypatch, optimizer
):
    words = f"3 --optimizer {optimizer} --weight-decay 0.01 --out"
    assert command(SMALL, words, tmp_path / "unbroken").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, at=20)  # in the middle of the second epoch
        stopped = command(SMALL, words, tmp_path / "broken")
    assert stopped.code == 130
    assert "1 of 3 epochs complete" in stopped.out
    assert f"tinygrad-bn train --resume {tmp_path / 'broken'}" in stopped.out
    assert len(metrics(tmp_path / "broken")) == 1

    resumed = command("train --resume", tmp_path / "broken")
    assert resumed.code == 0, resumed.err
    require_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_an_interruption_in_the_first_epoch_loses_nothing_either(command, tmp_path, monkeypatch):
    words = "1 --norm layer --schedule constant --out"
    assert command(SMALL, words, tmp_path / "unbroken").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, at=5)
        assert command(SMALL, words, tmp_path / "broken").code == 130
    assert command("train --resume", tmp_path / "broken").code == 0
    require_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_a_run_on_a_gpu_is_resumed_alike(command, tmp_path, monkeypatch):
    words = "2 --device cuda --out"
    assert command(SMALL, words, tmp_path / "unbroken").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, at=20)
        assert command(SMALL, words, tmp_path / "broken").code == 130
    assert command("train --resume", tmp_path / "broken").code == 0
    require_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_a_checkpoint_that_could_not_be_written_costs_one_epoch(command, tmp_path, monkeypatch):
    """The disk is full when the second epoch's state is to be saved, after its metrics were."""
    assert command(SMALL, "3 --out", tmp_path / "unbroken").code == 0
    save = run_folder.save

    def full(state, path):
        if path.name == "last.safetensors" and len(state["history"]) == 2:
            raise DataError(f"cannot write {path}: No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save", full)
        failed = command(SMALL, "3 --out", tmp_path / "broken")
    assert failed.code == 2
    assert "No space left" in failed.err
    assert command("train --resume", tmp_path / "broken").code == 0
    require_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_a_real_signal_ends_the_process_with_130(tmp_path):
    run, words = tmp_path / "run", f"{SMALL} 100000 --out {tmp_path / 'run'}"
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # may have been ignored\n"
        "from tinygrad_bn.cli.main import main\n"
        f"sys.exit(main({words.split()!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        while not (run / "metrics.csv").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"resume with: tinygrad-bn train --resume {run}" in out
    # saving is not interrupted half-way: what is counted as complete is what both files hold
    complete = len(tg.load(run / "last.safetensors")["history"])
    assert complete == len(metrics(run)) >= 1
    assert f"interrupted with {complete} of 100000 epochs complete" in out
    assert not list(run.glob("*.tmp"))


def test_a_run_that_is_complete_stays_as_it_is(command, tmp_path):
    assert command(SMALL, "1 --out", tmp_path).code == 0
    before = (tmp_path / "last.safetensors").read_bytes()
    result = command("train --resume", tmp_path)
    assert result.code == 0
    assert "test accuracy" in result.out
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_options_that_are_not_the_runs_are_refused_and_equal_ones_are_not(command, tmp_path):
    assert command(SMALL, "1 --out", tmp_path).code == 0
    refused = command("train --lr 0.5 --hidden 16 --resume", tmp_path)
    assert refused.code == 2
    assert "expected --hidden 16,16, --lr 0.002 as when the run began, got 16, 0.5" in refused.err
    assert command("train --hidden 16,16 --lr 0.002 --resume", tmp_path).code == 0


class TestFolders:
    def test_one_with_something_in_it_is_refused(self, command, tmp_path):
        (tmp_path / "thesis.txt").write_text("the only copy")
        result = command(SMALL, "1 --out", tmp_path)
        assert result.code == 2
        assert f"expected a new or empty folder, got {tmp_path}" in result.err
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    def test_one_with_a_run_in_it_is_refused_and_resuming_is_offered(self, command, tmp_path):
        assert command(SMALL, "1 --out", tmp_path).code == 0
        assert f"--resume {tmp_path} goes on" in command(SMALL, "1 --out", tmp_path).err

    def test_one_that_cannot_be_made_is_refused_before_training(self, command, tmp_path):
        (tmp_path / "file").write_text("")
        result = command(SMALL, "1 --out", tmp_path / "file" / "run")
        assert result.code == 2
        assert "cannot write" in result.err
        assert result.out == ""

    def test_a_disk_that_is_full_from_the_start_leaves_nothing(
        self, command, tmp_path, monkeypatch
    ):
        def full(state, path):
            raise DataError(f"cannot write {path}: No space left on device")

        monkeypatch.setattr(run_folder, "save", full)
        result = command(SMALL, "1 --out", tmp_path / "run")
        assert result.code == 2
        assert list((tmp_path / "run").iterdir()) == []

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"hidden": [1]}', '{"hidden": 3, "x": 1}'])
    def test_a_foreign_configuration_is_refused(self, command, tmp_path, text):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "last.safetensors").write_text("")
        result = command("train --resume", tmp_path)
        assert result.code == 2
        assert "expected a run's configuration" in result.err

    def test_a_truncated_checkpoint_is_refused(self, command, tmp_path):
        assert command(SMALL, "1 --out", tmp_path).code == 0
        whole = (tmp_path / "last.safetensors").read_bytes()
        (tmp_path / "last.safetensors").write_bytes(whole[:-100])
        result = command("train --resume", tmp_path)
        assert result.code == 2
        assert "expected a whole safetensors file" in result.err

    def test_there_is_no_run_to_resume(self, command, tmp_path):
        result = command("train --resume", tmp_path / "nowhere")
        assert result.code == 2
        assert "expected a run's folder" in result.err
        assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--hidden 16,,4", "expected a whole number of at least 1, got ''"),
        ("--hidden 0", "expected a whole number of at least 1, got '0'"),
        ("--lr -1", "expected a number in (0, inf), got '-1'"),
        ("--dropout 1", "expected a number in [0, 1), got '1'"),
        ("--norm group", "invalid choice: 'group'"),
        ("--batch-size 2.5", "expected a whole number of at least 1, got '2.5'"),
        ("--validation 0.0001", "expected a validation share"),
        ("--device tpu", "expected a device"),
        ("--resume other", "not allowed with argument"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(command, tmp_path, words, message):
    result = command(SMALL, "1 --out", tmp_path / "run", words)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_state(command, tmp_path):
    result = command(SMALL, "2 --norm none --optimizer sgd --lr 1e30 --out", tmp_path / "run")
    assert result.code == 2
    assert "expected a finite loss" in result.err
    assert all(np.isfinite(x).all() for x in weights(tmp_path / "run").values())


def test_debug_shows_where_an_error_comes_from(command, tmp_path):
    with pytest.raises(DataError):
        command("train --debug --resume", tmp_path)


def test_without_the_extra_the_command_says_how_to_install_it(tmp_path):
    script = (
        "import sys\n"
        "sys.modules['rich'] = None\n"
        "from tinygrad_bn.cli.main import main\n"
        f"sys.exit(main(['train', '--data', 'digits', '--out', {str(tmp_path / 'run')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install 'tinygrad-bn[cli]'")
    assert not (tmp_path / "run").exists()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "tinygrad_bn", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "demo" in done.stdout
