"""Draw the curves that 10_cnn.py and 11_rows_of_digits.py left here, and print their tables.

    python examples/results/draw.py

Writes cnn.png and rows_of_digits.png into the folder above. A line is the mean over the seeds, and
a band goes from the lowest to the highest of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tinygrad_bn.cli.plotting import BLUE, STYLE, VERMILION

HERE = Path(__file__).parent
COLORS = {"with batch norm": BLUE, "without": VERMILION}
FIGURES = {
    "cnn.png": {"cnn_mnist": "MNIST", "cnn_fashion_mnist": "Fashion-MNIST"},
    "rows_of_digits.png": {"rows_of_digits": "MNIST, row by row through an LSTM"},
}
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 10, 12, 15, 20, 30, 50)


def curves(axes: Axes, result: dict[str, Any], title: str) -> None:
    """The test error against epochs; accuracies near 100 % would all look alike."""
    epochs, ends = result["epochs"], []
    for name, runs in result["accuracy in %"].items():
        errors = 100 - np.array(runs)
        x = np.linspace(0, epochs, errors.shape[1] + 1)[1:]
        axes.fill_between(
            x, errors.min(axis=0), errors.max(axis=0), color=COLORS[name], alpha=0.2, linewidth=0
        )
        axes.plot(x, errors.mean(axis=0), color=COLORS[name], label=name)
        ends += [errors.min(), errors[:, errors.shape[1] // epochs - 1 :].max()]
    axes.set_yscale("log")
    axes.set_ylim(min(ends) / 1.15, max(ends) * 1.15)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, epochs)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
    axes.set(xlabel="epoch", title=f"{title}: {seeds}")
    axes.legend(loc="upper right")


def table(result: dict[str, Any], title: str) -> str:
    """What each kind of network reaches after each epoch, and the worst of its seeds at the end."""
    epochs = result["epochs"]
    heads = [title, *(f"epoch {i}" for i in range(1, epochs + 1)), "lowest at the end"]
    lines = [heads, ["---"] * len(heads)]
    for name, runs in result["accuracy in %"].items():
        found = np.array(runs)[:, np.arange(1, epochs + 1) * len(runs[0]) // epochs - 1]
        means = [f"{mean:.2f}" for mean in found.mean(axis=0)]
        lines.append([name, *means, f"{found[:, -1].min():.2f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    for file, panels in FIGURES.items():
        found = {
            title: json.loads((HERE / f"{name}.json").read_text())
            for name, title in panels.items()
            if (HERE / f"{name}.json").exists()
        }
        if not found:
            continue
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(4.6 * len(found), 3.6), layout="constrained")
            every = np.atleast_1d(figure.subplots(1, len(found)))
            for axes, (title, result) in zip(every, found.items(), strict=True):
                curves(axes, result, title)
                print(table(result, title), end="\n\n")
            every[0].set_ylabel("test error")
            figure.savefig(HERE.parent / file, dpi=120)


if __name__ == "__main__":
    main()
