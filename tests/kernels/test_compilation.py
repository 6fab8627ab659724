"""Whoever waits for kernels to be compiled is told so, once; kernels need no folder for a cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

STEP = """
import tinygrad_bn as tg
x = tg.ones(4, 3, requires_grad=True)
for _ in range(2):
    x.relu().sum().backward()
"""


def said(cache: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_an_empty_cache_is_told_of_and_a_full_one_is_not(tmp_path: Path) -> None:
    assert said(tmp_path) == [
        "tinygrad_bn compiles kernels for this machine: once, then a cache on disk has them"
    ]
    assert said(tmp_path) == []


def test_functions_of_others_are_none_of_its_business() -> None:
    """Not even one that belongs to no module."""
    numba = pytest.importorskip("numba")
    namespace: dict[str, Any] = {}
    exec("def f(x): return x + 1", namespace)
    namespace["f"].__module__ = None
    assert numba.njit(namespace["f"])(1) == 2


FOLDERLESS = """
from numba.core import caching
for found in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    found._locator_classes = []  # no folder can be written to
import tinygrad_bn as tg
step = tg.compile(lambda x: (x.T + 1).exp() * 2)
print(step(tg.zeros(2, 3)).shape, step(tg.zeros(2, 3)).shape)
"""


def test_a_step_is_compiled_where_no_folder_can_be_written_to() -> None:
    command = [sys.executable, "-c", FOLDERLESS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(3,", "2)", "(3,", "2)"]
