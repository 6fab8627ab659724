"""The command: its environment, its options, and where its results go."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import machine
import pytest
import run

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "out": None,
    "quick": False,
    "cases": None,
    "optimizers": None,
    "threads": 1,
    "clock": "wall",
}


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "run.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=900,  # where nothing is compiled yet, on a machine that is busy
    )


def test_surroundings_hold_every_library_to_its_threads():
    found = machine.surroundings(1, {"OPENBLAS_CORETYPE": "Haswell", "HOME": "/x", "LANG": "C"})
    assert "OPENBLAS_CORETYPE" not in found
    assert found["HOME"] == "/x"
    pools = ("OPENBLAS", "OMP", "MKL", "NUMBA")
    assert {found[f"{pool}_NUM_THREADS"] for pool in pools} == {"1"}
    assert "--xla_cpu_multi_thread_eigen=false" in found["XLA_FLAGS"]
    assert machine.surroundings(1, found) == found  # or it would start over for ever
    assert machine.surroundings(2, found)["OPENBLAS_NUM_THREADS"] == "2"


def test_the_process_starts_over_without_the_pinned_core_type_and_says_so():
    code = (
        "import os, sys; sys.path.append('benchmarks'); import machine\n"
        "cores = machine.settle(1)\n"
        "print(os.environ.get('OPENBLAS_CORETYPE'), os.environ['OMP_NUM_THREADS'],"
        " len(os.sched_getaffinity(0)), len(cores))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    said, found = done.stdout.splitlines()
    assert "starting over without OPENBLAS_CORETYPE=Haswell" in said
    assert found == "None 1 1 1"


def test_only_a_whole_run_replaces_the_results():
    def folder(**given: object) -> Path:
        return run.folder_of(argparse.Namespace(**{**OPTIONS, **given}))

    assert folder() == machine.RESULTS
    partial = [
        {"quick": True},
        {"cases": ["tiny"]},
        {"optimizers": ["adam"]},
        {"threads": 2},
        {"clock": "cpu"},
    ]
    for given in partial:
        found = folder(**given)
        assert found != machine.RESULTS
        found.rmdir()
    assert folder(quick=True, out=Path("/somewhere")) == Path("/somewhere")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sections", "steps,nonsense"), "expected sections from"),
        (("--cases", "tiny,huge"), "expected some of tiny,b2,b16"),
        (("--optimizers", "lion"), "expected some of adam,sgd, got lion"),
    ],
)
def test_unknown_words_are_refused(words, message):
    done = command(*words)
    assert done.returncode
    assert message in done.stderr


def test_a_section_that_fails_takes_no_other_with_it(monkeypatch, tmp_path, capsys):
    def fails() -> dict[str, object]:
        raise RuntimeError("a reason")

    sections = {"steps": fails, "operations": lambda: {"microseconds an operation": {}}}
    asked = {**OPTIONS, "sections": list(sections), "out": tmp_path}
    monkeypatch.setattr(run, "settle", lambda threads: [0])
    monkeypatch.setattr(run, "options", lambda: argparse.Namespace(**asked))
    monkeypatch.setattr(run, "measurements", lambda asked, report: sections)
    with pytest.raises(SystemExit, match="but steps failed"):
        run.main()
    assert "a reason" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["per_operation.json"]


@pytest.mark.slow
def test_a_run_without_rivals_names_them_and_writes_where_it_was_made(tmp_path):
    hide = tmp_path / "hide"
    hide.mkdir()
    finder = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: (\n"
        "    None if name in ('torch', 'jax', 'sklearn') else find(name, package))\n"
    )
    (hide / "sitecustomize.py").write_text(finder)
    words = ["--quick", "--sections", "steps", "--cases", "tiny", "--optimizers", "adam"]
    done = command(*words, "--out", str(tmp_path / "out"), PYTHONPATH=f"{ROOT}{os.pathsep}{hide}")
    assert done.returncode == 0, done.stderr
    assert "missing: torch (not installed: pip install torch)" in done.stdout
    assert "missing: jax (not installed: pip install jax)" in done.stdout
    found = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert set(found["absent"]) == {"torch", "jax"}
    assert found["how"]["quick"] is True
    assert found["how"]["threads"] == 1
    assert found["machine"]["commit"]
    assert any(pool["architecture"] for pool in found["machine"]["blas"])
    row = found["optimizers"]["adam"]["tiny"]
    assert row["seconds"]["tinygrad_bn compiled"]["median"] > 0
    assert set(row["agreement"]) == {"tinygrad_bn eager", "tinygrad_bn compiled"}
    assert (tmp_path / "out" / "ratios.png").exists()
