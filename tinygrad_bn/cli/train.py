"""``tinygrad-bn train``: a run in a folder, which can be interrupted and resumed."""

from __future__ import annotations

import math
import signal
from argparse import Namespace
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from time import perf_counter
from typing import Any

from tinygrad_bn.cli.options import Config
from tinygrad_bn.cli.plotting import run_figure, save_figure
from tinygrad_bn.cli.progress import Display
from tinygrad_bn.cli.run_folder import Record, RunFolder
from tinygrad_bn.cli.session import Session
from tinygrad_bn.errors import GradientError
from tinygrad_bn.trainer import Step

INTERRUPTED = 130


def run(args: Namespace) -> int:
    """Begin a run or go on with one; 130 if Ctrl-C ends it."""
    options = vars(args)
    given = {o.name: options[o.name] for o in fields(Config) if o.name in options}
    session, folder = (
        resumed(Path(args.resume), given) if "resume" in options else begun(Path(args.out), given)
    )
    with Display() as display:
        try:
            Training(session, folder, display).run()
        except KeyboardInterrupt:
            draw(session, folder)
            display.say(
                f"interrupted with {session.epoch} of {session.config.epochs} epochs complete; "
                f"resume with: tinygrad-bn train --resume {folder.path}"
            )
            return INTERRUPTED
        draw(session, folder)
        best = session.best()
        display.say(
            f"test accuracy {session.history[-1]['test_accuracy']:.2%} at the end, "
            f"{best['test_accuracy']:.2%} after epoch {best['epoch']}, the best in validation; "
            f"all in {folder.path}"
        )
    return 0


def begun(path: Path, given: dict[str, Any]) -> tuple[Session, RunFolder]:
    """A new run."""
    config = Config(**given).with_learning_rate()
    session = Session(config)
    return session, RunFolder.create(path, config, session.state())


def resumed(path: Path, given: dict[str, Any]) -> tuple[Session, RunFolder]:
    """A run that was begun, after its last complete epoch."""
    folder = RunFolder.open(path)
    config = folder.read_config()
    config.require(given)
    session = Session(config)
    session.load_state(folder.load())
    return session, folder


def draw(session: Session, folder: RunFolder) -> None:
    """The curves as far as they go."""
    if session.history:
        save_figure(run_figure(session.history), folder.curves)


class Training:
    """Shows a session's steps, counts its hits, and saves its epochs."""

    def __init__(self, session: Session, folder: RunFolder, display: Display) -> None:
        self.session, self.folder, self.display = session, folder, display
        self.hits: Any = 0
        self.seen, self.began = 0, 0.0

    def run(self) -> None:
        """Train to the end."""
        if self.session.epoch < self.session.config.epochs:
            self.begin_epoch()
            self.session.train(self.on_step, self.on_epoch)

    def begin_epoch(self) -> None:
        self.hits, self.seen, self.began = 0, 0, perf_counter()
        self.display.begin(self.title(self.session.epoch + 1), len(self.session.loader))

    def title(self, epoch: float) -> str:
        total = str(self.session.config.epochs)
        return f"epoch {epoch:{len(total)}}/{total}"

    def on_step(self, step: Step) -> None:
        self.hits = self.hits + (step.output.argmax(dim=1) == step.target).sum()
        self.seen += len(step.target)
        self.display.advance()
        if self.display.wants_note():
            self.display.note(
                f"loss {step.loss.item():.4f}  accuracy {float(self.hits) / self.seen:.2%}  "
                f"{self.seen / (perf_counter() - self.began):,.0f} samples/s"
            )

    def on_epoch(self, record: Record) -> None:
        if not math.isfinite(record["loss"]):
            raise GradientError(
                f"expected a finite loss, got {record['loss']} in epoch {record['epoch']}; "
                "a smaller --lr may help"
            )
        record["accuracy"] = float(self.hits) / self.seen
        with interruptions_held_back():
            self.session.history.append(record)
            best = self.session.best() is record
            weights = self.session.model.state_dict() if best else None
            self.folder.save(self.session.state(), weights)
        self.display.end(
            f"{self.title(record['epoch'])}  loss {record['loss']:.4f}  "
            f"accuracy {record['accuracy']:7.2%}  validation {record['validation_accuracy']:7.2%}  "
            f"test {record['test_accuracy']:7.2%}  {record['samples_per_second']:9,.0f} samples/s"
        )
        if self.session.epoch < self.session.config.epochs:
            self.begin_epoch()


@contextmanager
def interruptions_held_back() -> Generator[None]:
    """Let Ctrl-C wait until the block is done, so that the files in a folder agree."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
