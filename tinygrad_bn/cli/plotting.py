"""The figures that commands write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinygrad_bn.cli.figure_one import PERCENTILES, UNIT, Trace, summary
from tinygrad_bn.files import replacing

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
"""Okabe and Ito's colours, which people of every colour vision tell apart."""
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "tinygrad-bn",  # the same figure is the same file
}


def demo_figure(without: Sequence[Trace], with_bn: Sequence[Trace]) -> Figure:
    """Test accuracy over training, and what reaches one sigmoid meanwhile, with and without."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
        accuracy_curves(left, without, with_bn)
        right.sharey(middle)
        input_percentiles(middle, without[0], VERMILION, "without batch norm")
        input_percentiles(right, with_bn[0], BLUE, "with batch norm")
        middle.set_ylabel("input of its sigmoid\n(percentiles over the test digits)")
        right.tick_params(labelleft=False)
    return figure


def accuracy_curves(axes: Axes, without: Sequence[Trace], with_bn: Sequence[Trace]) -> None:
    """Mean over the seeds, in a band of one standard deviation to each side."""
    for traces, color, label in (
        (with_bn, BLUE, "with batch norm"),
        (without, VERMILION, "without"),
    ):
        mean, std = summary(list(traces))
        axes.fill_between(
            traces[0].steps, mean - std, mean + std, color=color, alpha=0.2, linewidth=0
        )
        axes.plot(traces[0].steps, mean, color=color, label=label)
    axes.set(xlabel="training step", ylabel="test accuracy (%)", ylim=(0, 100))
    axes.set_xlim(0, without[0].steps[-1])
    seeds = f"mean ± s.d. of {len(without)} seeds" if len(without) > 1 else "one seed"
    axes.set_title(f"Handwritten digits:\n{seeds}")
    axes.legend(loc="lower right")


def input_percentiles(axes: Axes, trace: Trace, color: str, name: str) -> None:
    """The median between the outer percentiles, each named at its end."""
    low, median, high = np.array(trace.percentiles).T
    axes.fill_between(trace.steps, low, high, color=color, alpha=0.15, linewidth=0)
    for values, percentile, width in zip(
        (low, median, high), PERCENTILES, (1, 1.8, 1), strict=True
    ):
        axes.plot(trace.steps, values, color=color, linewidth=width)
        axes.annotate(
            f"{percentile}th",
            (trace.steps[-1], values[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=9,
            annotation_clip=False,
        )
    axes.set(xlabel="training step", title=f"Unit {UNIT + 1} of the last hidden layer,\n{name}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(0, trace.steps[-1])


def run_figure(history: Sequence[dict[str, float]]) -> Figure:
    """Loss and accuracy over the epochs of a run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        losses, accuracies = figure.subplots(1, 2)
        epochs = [record["epoch"] for record in history]
        for prefix, color, label in (
            ("", GREY, "training"),
            ("validation_", VERMILION, "validation"),
            ("test_", BLUE, "test"),
        ):
            loss = [record[f"{prefix}loss"] for record in history]
            accuracy = [100 * record[f"{prefix}accuracy"] for record in history]
            losses.plot(epochs, loss, ".-", color=color, label=label)
            accuracies.plot(epochs, accuracy, ".-", color=color, label=label)
        losses.set(xlabel="epoch", ylabel="cross entropy (nats)", title="Loss")
        accuracies.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
        for axes in (losses, accuracies):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        losses.legend()
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    kind = path.suffix[1:]
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(STYLE), replacing(path) as file:
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
