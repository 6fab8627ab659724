"""``tinygrad-bn demo``: what batch normalization does, in a table and a figure."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from time import perf_counter

import numpy as np
from rich import box
from rich.table import Table
from threadpoolctl import threadpool_limits

from tinygrad_bn.cli.figure_one import Settings, Trace, summary, train
from tinygrad_bn.cli.plotting import demo_figure, save_figure
from tinygrad_bn.cli.progress import Display
from tinygrad_bn.cli.run_folder import make_folder
from tinygrad_bn.data.datasets import digits
from tinygrad_bn.trainer import Step

NAMES = {False: "without batch norm", True: "with batch norm"}
ROWS = 10
"""About how many checkpoints the table shows, after the first, of all that the figure shows."""


def run(args: Namespace) -> int:
    """Train, print the table, write the figure."""
    folder = make_folder(Path(args.out))
    settings = Settings(steps=args.steps, lr=args.lr)
    with Display() as display:
        began = perf_counter()
        # for matrices this small a second thread costs more than it brings
        with threadpool_limits(1, user_api="blas"):
            without, with_bn = train_all(args.seeds, settings, display)
        display.say(f"trained {2 * args.seeds} networks in {perf_counter() - began:.1f} s\n")
        display.console.print(table(without, with_bn))
    figure = demo_figure(without, with_bn)
    for suffix in ("png", "svg"):
        path = folder / f"batch_norm.{suffix}"
        save_figure(figure, path)
        display.say(f"wrote {path}")
    return 0


def train_all(seeds: int, settings: Settings, display: Display) -> tuple[list[Trace], list[Trace]]:
    """Train both networks with every seed: those without batch norm, and those with it."""
    split = digits()
    traces: dict[bool, list[Trace]] = {False: [], True: []}
    for seed in range(seeds):
        for batch_norm, name in NAMES.items():
            title = f"{name:18}  seed {seed + 1}/{seeds}"
            display.begin(title, settings.steps)

            def on_step(step: Step, trace: Trace) -> None:
                display.advance()
                if display.wants_note() and trace.accuracy:
                    display.note(f"loss {step.loss.item():.3f}  accuracy {trace.accuracy[-1]:.1%}")

            trace = train(split, batch_norm, seed, settings, on_step)
            traces[batch_norm].append(trace)
            display.end(f"{title}  test accuracy {trace.accuracy[-1]:6.1%}")
    return traces[False], traces[True]


def table(without: list[Trace], with_bn: list[Trace]) -> Table:
    """Test accuracy against steps."""
    seeds = f"mean ± s.d. of {len(without)} seeds" if len(without) > 1 else "one seed"
    found = Table(title=f"Test accuracy in %, {seeds}", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in ("steps", *NAMES.values(), "ahead by"):
        found.add_column(heading, justify="right")
    steps = without[0].steps
    (plain, plain_std), (normal, normal_std) = summary(without), summary(with_bn)
    chosen = np.linspace(0, len(steps), ROWS + 1).astype(int) - 1
    for i in np.unique(chosen.clip(min=0)):
        found.add_row(
            str(steps[i]),
            f"{plain[i]:.1f} ± {plain_std[i]:4.1f}",
            f"{normal[i]:.1f} ± {normal_std[i]:4.1f}",
            f"{normal[i] - plain[i]:+.1f}",
        )
    return found
