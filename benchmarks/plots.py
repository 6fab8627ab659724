"""Plots of training steps, from results/steps.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import rivals
from cases import CASES, MNIST
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from tables import results

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}
LOOKS: dict[str, dict[str, Any]] = {
    "tinygrad_bn compiled": {"color": "#0072B2", "marker": "o", "lw": 2.6},
    "tinygrad_bn eager": {"color": "#56B4E9", "marker": "o"},
    "torch eager": {"color": "#E69F00", "marker": "s"},
    "torch fused": {"color": "#D55E00", "marker": "s"},
    "torch compiled": {"color": "#CC79A7", "marker": "s"},
    "jax jit": {"color": "#009E73", "marker": "^"},
}
"""Okabe and Ito's colours, which people of every colour vision tell apart."""
TITLES = {"adam": "Adam", "sgd": "SGD with momentum"}
OURS = ("tinygrad_bn compiled", "tinygrad_bn eager")
LEGEND = (
    "best of all (upper name) over ours, compiled",
    "best of PyTorch (lower name) over ours, eager",
)
SHORT = {
    "torch eager": "torch",
    "torch fused": "fused",
    "torch compiled": "compiled",
    "jax jit": "jax",
}
"""What fits below a bar."""


def drawn(folder: Path, target: Path) -> Iterator[Path]:
    """Draw what has been measured; the files."""
    found = results("steps", folder)
    if found is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in (("ratios", ratios(found)), ("batch_sizes", batch_sizes(found))):
            path = target / f"{name}.png"
            figure.savefig(path, dpi=160)
            yield path


def panels(
    found: dict[str, Any], width: float, height: float
) -> tuple[Figure, Iterator[tuple[str, Axes]]]:
    """A figure with a panel for each optimizer."""
    optimizers = list(found["optimizers"])
    figure = Figure(figsize=(width * len(optimizers), height), layout="constrained")
    axes = figure.subplots(1, len(optimizers), sharey=True, squeeze=False)[0]
    return figure, zip(optimizers, axes, strict=True)


def ratios(found: dict[str, Any]) -> Figure:
    """How many times as long as our compiled step the best rival takes, and the best of PyTorch as
    our eager one: the bars end at the median, the whiskers at the quartiles.
    """
    figure, places = panels(found, 7.6, 4.4)
    for optimizer, axes in places:
        rows = found["optimizers"][optimizer]
        for offset, form in zip((-0.2, 0.2), OURS, strict=True):
            bars(axes, rows, form, offset)
        axes.axhline(1, color="#222222", lw=1)
        labels = [
            "\n".join([name, *(SHORT[ahead["rival"]] for ahead in row["ahead"].values())])
            for name, row in rows.items()
        ]
        axes.set_xticks(range(len(rows)), labels, fontsize=8)
        axes.set(yscale="log", title=TITLES[optimizer])
        axes.grid(axis="x", visible=False)
        ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
        axes.set_yticks(ticks, [f"{tick:g}×" for tick in ticks])
        axes.minorticks_off()
        axes.margins(y=0.12)
    first = figure.axes[0]
    first.set_ylabel("time of a rival over ours")
    bars_of = first.get_legend_handles_labels()[0]
    first.legend(bars_of, LEGEND, loc="upper right")
    return figure


def bars(axes: Axes, rows: dict[str, Any], form: str, offset: float) -> None:
    known = [(i, row["ahead"][form]) for i, row in enumerate(rows.values()) if form in row["ahead"]]
    places = [i + offset for i, _ in known]
    heights = [ratio["median"] for _, ratio in known]
    lower = [max(0.0, ratio["median"] - ratio["quartiles"][0]) for _, ratio in known]
    upper = [max(0.0, ratio["quartiles"][1] - ratio["median"]) for _, ratio in known]
    whiskers = {"ecolor": "#333333", "elinewidth": 1}
    colour = LOOKS[form]["color"]
    # from 1, so that a bar below it hangs: who loses is seen
    axes.bar(
        places,
        [h - 1 for h in heights],
        0.38,
        1,
        color=colour,
        label=form,
        yerr=(lower, upper),
        error_kw=whiskers,
    )
    for x, height, below, above in zip(places, heights, lower, upper, strict=True):
        wins = height >= 1
        axes.annotate(
            f"{height:.2g}" if height < 10 else f"{height:.0f}",
            (x, height + above if wins else height - below),
            (0, 3 if wins else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if wins else "top",
            fontsize=8,
        )


def batch_sizes(found: dict[str, Any]) -> Figure:
    """Time of a step of the MNIST network against the batch size, above the floor."""
    figure, places = panels(found, 5.6, 4.6)
    lowest = 1e6
    for optimizer, axes in places:
        rows = {
            CASES[name].batch: row
            for name, row in found["optimizers"][optimizer].items()
            if CASES[name].widths == MNIST
        }
        for form in rivals.TRAINING:
            points = [
                (batch, row["seconds"][form]["median"] * 1e6)
                for batch, row in rows.items()
                if form in row["seconds"]
            ]
            if points:
                axes.plot(*zip(*points, strict=True), ms=4.5, label=form, **LOOKS[form])
        floor = [row["floor"]["total"] * 1e6 for row in rows.values()]
        if floor:
            lowest = min(lowest, *floor)
            axes.fill_between(list(rows), floor, 1, color="#DDDDDD", lw=0, zorder=0)
            axes.plot(list(rows), floor, color="#555555", lw=1.2, ls=(0, (4, 2)), label="floor")
        axes.set(xscale="log", yscale="log", xlabel="batch size", title=TITLES[optimizer])
        axes.set_xticks(list(rows), [str(batch) for batch in rows])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    figure.axes[0].set_ylabel("time of a training step (µs)")
    figure.axes[0].set_ylim(lowest / 2)
    if figure.axes[0].lines:
        figure.axes[0].legend(loc="upper left", fontsize=9)
    return figure
