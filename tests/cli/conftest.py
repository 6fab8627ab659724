"""Running the command as a shell would: in this process where that is enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")

from tinygrad_bn.cli.main import main


@dataclass
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``tinygrad-bn`` with these words."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        try:
            code = main(arguments(words))
        except SystemExit as exit:  # argparse's
            code = int(exit.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def arguments(words: Sequence[object]) -> list[str]:
    """Words and sentences as single words."""
    return [part for word in words for part in str(word).split()]
