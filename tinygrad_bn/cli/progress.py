"""What a command shows while it works."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH = 0.1
"""Seconds between two looks at numbers that change with every step."""


class Display:
    """A live bar for the task that is running, and a line for each that is done.

    Where stdout is no terminal, there are only the lines.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bars.add_task("", visible=False, note="")
        self.noted = 0.0

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def begin(self, name: str, total: int) -> None:
        """Start the bar of a task."""
        self.bars.reset(self.task, total=total, description=name, visible=True, note="")

    def advance(self) -> None:
        """One step of the task is done."""
        self.bars.advance(self.task)

    def wants_note(self) -> bool:
        """Whether somebody watches, and the last note is old enough to read a new one."""
        return not self.bars.disable and perf_counter() - self.noted > REFRESH

    def note(self, text: str) -> None:
        """Say something about the running task, beside its bar."""
        self.noted = perf_counter()
        self.bars.update(self.task, note=text)

    def end(self, line: str) -> None:
        """The task is done; what remains to be read is one line."""
        self.bars.update(self.task, visible=False)
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        self.console.print(line, soft_wrap=True, markup=False)
