"""The folder of a training run: its configuration, metrics, curves and checkpoints."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from tinygrad_bn.cli.options import Config
from tinygrad_bn.errors import ArgumentError, DataError
from tinygrad_bn.files import read_whole, replacing
from tinygrad_bn.io import load, save

Record = dict[str, float]
COLUMNS = (
    *("epoch", "loss", "accuracy"),
    *("validation_loss", "validation_accuracy", "test_loss", "test_accuracy"),
    *("seconds", "samples_per_second"),
)
"""Of the metrics: losses are means of cross entropy, accuracies are shares; without a prefix they
are those of the training samples as they were learned from."""


def make_folder(path: Path) -> Path:
    """A folder that is there, and can be written to.

    Raises
    ------
    DataError
        If it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise DataError(f"cannot write to the folder {path}: {error.strerror or error}") from error
    return path


class RunFolder:
    """Each file in it is replaced whole, so that an interruption leaves the old one or the new.

    Attributes
    ----------
    config : ``config.json``, all that determines the run.
    last : ``last.safetensors``, all that is needed to go on after the last complete epoch.
    best : ``best.safetensors``, the model's state dict after the epoch with the best validation.
    metrics : ``metrics.csv``, a row for each complete epoch.
    curves : ``curves.png``, the same as a picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.csv"
        self.curves = path / "curves.png"

    @classmethod
    def create(cls, path: Path, config: Config, state: dict[str, Any]) -> Self:
        """A new run before its first epoch.

        Raises
        ------
        ArgumentError
            If there is something in the folder already.
        DataError
            If it cannot be written; nothing is left in it then.
        """
        if path.is_dir() and any(path.iterdir()):
            resume = f"; --resume {path} goes on" if (path / "config.json").is_file() else ""
            raise ArgumentError(f"expected a new or empty folder, got {path}{resume}")
        folder = cls(make_folder(path))
        try:
            folder.save(state)
            folder.write(folder.config, config.to_json())
        except DataError:
            folder.last.unlink(missing_ok=True)
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """A run that was begun.

        Raises
        ------
        DataError
            If there is none, or it cannot be written.
        """
        folder = cls(path)
        if not folder.config.is_file() or not folder.last.is_file():
            raise DataError(
                f"expected a run's folder, with config.json and a checkpoint, got {path}"
            )
        make_folder(path)
        return folder

    def read_config(self) -> Config:
        """Its configuration."""
        return Config.from_json(read_whole(self.config).decode(errors="replace"), self.config)

    def save(self, state: dict[str, Any], best: Any = None) -> None:
        """Write the state after an epoch, its metrics, and the model's if it is the best yet.

        ``last`` comes last: as long as it is the old one, the epoch counts as not done.
        """
        if best is not None:
            save(best, self.best)
        if state["history"]:
            self.write(self.metrics, table(state["history"]))
        save(state, self.last)

    def load(self) -> dict[str, Any]:
        """The state after the last complete epoch."""
        state = load(self.last, device="cpu")
        if not isinstance(state, dict) or "history" not in state:
            raise DataError(f"expected a run's checkpoint, got {self.last}")
        return state

    def write(self, path: Path, text: str) -> None:
        with replacing(path) as file:
            file.write(text.encode())


def table(history: list[Record]) -> str:
    """The records as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
