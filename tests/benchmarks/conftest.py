"""The programs under benchmarks/ import each other as a script's neighbours do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

ABSENT = {"torch": "not installed: pip install torch"}


def once(call: Any, repeats: int) -> float:
    """A timer that measures nothing: it calls once, and says a millisecond."""
    call()
    return 1e-3


@pytest.fixture
def said() -> list[str]:
    """What a measurement of the GPU reports."""
    return []


@pytest.fixture
def bench(said: list[str]) -> Any:
    """What measures the GPU, without PyTorch."""
    from on_gpu import Bench, timing

    pace = timing.Pace(rounds=2, sample=1e-3, samples=1)
    return Bench(once, pace, said.append, absent=dict(ABSENT))


@pytest.fixture
def beside(bench: Any) -> Any:
    """The same beside PyTorch, on the CPU."""
    torch = pytest.importorskip("torch")
    return replace(bench, torch=torch, torch_device="cpu", absent={})
