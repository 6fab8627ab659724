"""``info`` says what there is, also where little is."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np


def test_it_prints_sections_for_people(command):
    result = command("info")
    assert result.code == 0, result.err
    assert f"numpy          {np.__version__}" in result.out
    for section in ("versions", "machine", "backends", "numba", "cuda", "data"):
        assert f"\n{section}\n" in f"\n{result.out}"


def test_json_says_the_same_for_programs(command):
    found = json.loads(command("info --json").out)
    assert found["versions"]["numpy"] == np.__version__
    assert found["backends"]["numpy"] == "cpu"
    assert found["machine"]["cpus"] >= 1
    assert {"cupy", "driver", "devices", "problem"} <= set(found["cuda"])


def test_data_sets_are_found_where_they_are(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_BN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{name}-ubyte").write_bytes(b"")
    data = json.loads(command("info --json").out)["data"]
    assert data["folders"] == [str(tmp_path), str(tmp_path / "cache" / "tinygrad_bn")]
    assert data["sets"] == {
        "digits": "in the package",
        "mnist": str(tmp_path / "mnist"),
        "fashion-mnist": "not found",
    }


def test_every_blas_names_its_threads(command):
    for library in json.loads(command("info --json").out)["blas"]:
        assert library["num_threads"] >= 1
        assert library["version"]


def test_it_needs_no_extra_package():
    """Whoever lacks one may be looking for just that."""
    script = (
        "import sys\n"
        "for name in ('rich', 'matplotlib', 'threadpoolctl', 'safetensors', 'pandas', 'cupy'):\n"
        "    sys.modules[name] = None\n"
        "from tinygrad_bn.cli.main import main\n"
        "sys.exit(main(['info']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "versions" in done.stdout
