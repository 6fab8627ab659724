"""What is shipped, and what an import costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def python(code: str, *options: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_every_package_is_shipped():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts))
        for name, folder in settings["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(settings["packages"])


def test_an_import_loads_no_optional_library():
    heavy = "numba cupy scipy pandas matplotlib rich safetensors ml_dtypes torch".split()
    code = f"import sys, tinygrad_bn; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]\n"


def test_works_without_numba_and_says_so_nowhere():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import tinygrad_bn as tg\n"
        "norm = tg.nn.BatchNorm1d(3)\n"
        "norm(tg.randn(8, 3)).sum().backward()\n"
        "print(norm.running_mean.shape)"
    )
    assert python(code, "-W", "error") == "(3,)\n"


@pytest.mark.parametrize(
    "program", PROGRAMS, ids=["page", "gradients", "compiled", "mixed", "norms"]
)
def test_the_programs_of_the_readme_run(program):
    out = python(program)
    if "epoch" in program:
        accuracy = float(out.split()[-1])
        assert accuracy > 0.95
    elif "compile" in program:
        assert out.startswith("program of ")
        assert "adam" in out.lower()
    elif "autocast" in program:
        loss, scale = map(float, out.split())
        assert loss < 1.5
        assert scale >= 2.0**13  # eight steps, of which at most three were left out
    elif "fold" in program:
        assert "BatchNorm1d" in out
        assert float(out.split()[-1]) < 1e-6
    else:
        assert out == "True\n"


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_checkout(tmp_path):
    source = tmp_path / "source"  # building leaves files behind
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    fresh = tmp_path / "env/bin/python"
    install = [fresh, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    libraries = Path(np.__file__).parents[1]  # NumPy and SciPy; a path hides editable installs
    code = (
        "import tinygrad_bn as tg\n"
        "from tinygrad_bn.data.datasets import digits\n"
        "assert str(tg.__file__).startswith(str(__import__('sys').prefix)), tg.__file__\n"
        "images, labels = digits().train.tensors\n"
        "model = tg.nn.Sequential(tg.nn.Linear(64, 10), tg.nn.BatchNorm1d(10))\n"
        "tg.nn.functional.cross_entropy(model(images), labels).backward()\n"
        "print(model[0].weight.grad.shape, tg.__version__)"
    )
    result = subprocess.run(
        [fresh, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(libraries)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.stdout.startswith("(10, 64) 0.1.0"), result.stderr
