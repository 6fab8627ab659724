"""Tests are collected where little is installed, as on a machine with a GPU, CuPy and PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import without_hypothesis

ROOT = Path(__file__).parents[1]
ABSENT = (
    "numba llvmlite hypothesis scipy ml_dtypes pandas safetensors rich matplotlib threadpoolctl "
    "xdist onnx sklearn jax build"
).split()
BARE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run_bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What pytest says there."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BARE, "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
def test_everything_for_the_gpu_is_collected() -> None:
    found = run_bare("--collect-only", "-m", "cuda", "tests")
    assert found.returncode == 0, found.stdout[-3000:]
    for folder in ("cuda", "cublaslt", "second_gpu", "optim", "nn/normalization"):
        assert f"tests/{folder}/test_" in found.stdout, folder


PROPERTIES = """
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SHAPES = st.lists(st.integers(0, 3) | st.none()).map(tuple).filter(len)


@st.composite
def cases(draw, name):
    return draw(SHAPES)


@pytest.mark.parametrize("name", ["a", "b"])
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), shape=hnp.array_shapes())
def test_by_name(name, data, shape):
    raise AssertionError


@example(1, 2)
@given(SHAPES, cases("x"))
def test_by_place(first, second):
    raise AssertionError


class TestClass:
    @given(st.floats(0, 1))
    def test_method(self, x):
        raise AssertionError


def test_without(tmp_path):
    assert assume(True)
"""


def test_properties_are_skipped_and_what_stands_beside_them_runs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from tests import without_hypothesis\nwithout_hypothesis.install()\n"
    )
    (tmp_path / "test_properties.py").write_text(PROPERTIES)
    found = run_bare("-rs", "--rootdir", str(tmp_path), str(tmp_path))
    assert "1 passed, 4 skipped" in found.stdout, found.stdout
    assert "needs hypothesis, which is not installed" in found.stdout


def test_nothing_stands_in_for_hypothesis_where_it_is() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    without_hypothesis.install()
    assert sys.modules["hypothesis"] is hypothesis
    if not isinstance(hypothesis, without_hypothesis.Anything):
        assert hypothesis.__file__
