"""The page docs/precision.md, whose prose is ``precision_page.md``, and its plot, from what
``precision.py`` has measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

DOCS = Path(__file__).parent.parent / "docs"
COLOURS = {
    "tinygrad_bn": "#0b6e4f",
    "PyTorch": "#c8553d",
    "Chainer's formula": "#7a6c5d",
    "one pass": "#a9a9a9",
}
METHODS = tuple(COLOURS)
LIBRARIES = METHODS[:2]
PROMISED = {"y": 2e-6, "dx": 1e-6}
TITLES = {"y": "y: largest error", "dx": "dx: relative error"}
CEILING = 30.0
"""Above it no digit is right, and it does not matter how far."""

LINES: dict[str, dict[str, Any]] = {
    "tinygrad_bn": {"lw": 2.4},
    "PyTorch": {"lw": 3.2, "alpha": 0.55},
    "Chainer's formula": {"lw": 1.3},
    "one pass": {"lw": 1.6},
}
"""Two of them lie on each other: a broad line under a narrow one."""
LABELS: dict[str, dict[str, tuple[float, float, str]]] = {
    "y": {
        "tinygrad_bn": (1e4, 1e-7, "center"),
        "PyTorch": (1.5e4, 3e-3, "left"),
        "Chainer's formula": (1.5e4, 1e-3, "left"),
        "one pass": (40, 3e-2, "right"),
    },
    "dx": {
        "tinygrad_bn": (1e4, 2.2e-8, "center"),
        "PyTorch": (2e4, 8e-5, "left"),
        "Chainer's formula": (2e4, 2.7e-5, "left"),
        "one pass": (40, 6e-3, "right"),
    },
}
"""Where the name of each line stands, and to which side of that."""


def told(value: float) -> str:
    """A number in two digits, as a person would write it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞"
    if value == 0 or 0.01 <= value < 100:
        return f"{value:.2g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pair(found: dict[str, float]) -> str:
    return f"{told(found['y'])}, {told(found['dx'])}"


def named(results: dict[str, Any]) -> str:
    rows = [[name, *(pair(of[m]) for m in METHODS)] for name, of in results["named"].items()]
    return table(["y, dx", *METHODS], rows)


def orders(results: dict[str, Any]) -> str:
    rows = []
    for norm, of_norm in results["orders"].items():
        for derivative, of in of_norm.items():
            cells = [f"{told(of[m]['median'])}, {told(of[m]['worst'])}" for m in LIBRARIES]
            wrong = of["PyTorch"]["median"] > 1e-6
            rows.append([norm, derivative, cells[0], f"**{cells[1]}**" if wrong else cells[1]])
    return table(["norm", "median, worst", *LIBRARIES], rows)


def plotted(curves: dict[str, Any], path: Path) -> None:
    """The errors against mean/std, a panel for y and one for dx, with labels on the lines."""
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), dpi=160, sharey=True)
    for panel, key in zip(panels, ("y", "dx"), strict=True):
        draw_panel(panel, curves, key)
    panels[0].set_ylim(1e-8, CEILING)
    figure.tight_layout(w_pad=2.5)
    figure.savefig(path)
    pyplot.close(figure)


def draw_panel(panel: Any, curves: dict[str, Any], key: str) -> None:
    ratios = curves["mean/std"]
    panel.set(xscale="log", yscale="log", xlim=(1, 1e7), xlabel="mean / std")
    panel.set_title(TITLES[key], loc="left", fontsize=11)
    panel.plot([1, 1e6], [PROMISED[key]] * 2, color=COLOURS["tinygrad_bn"], lw=1, ls=(0, (4, 3)))
    for name in METHODS:
        colour, found = COLOURS[name], until_hopeless(curves["errors"][name][key])
        panel.plot(ratios[: len(found)], found, color=colour, **LINES[name])
        x, y, side = LABELS[key][name]
        panel.text(x, y, name, color=colour, fontsize=9, ha=side, va="center")
    options = {"color": COLOURS["tinygrad_bn"], "fontsize": 8, "va": "center"}
    panel.text(1.15e6, PROMISED[key], "promised", **options)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(True, which="major", color="#e6e6e6", lw=0.6)
    panel.tick_params(which="minor", length=0)
    panel.set_axisbelow(True)


def until_hopeless(errors: list[float]) -> list[float]:
    """The errors up to the first one above the ceiling: what comes after it means nothing."""
    last = next((i for i, e in enumerate(errors) if not e <= CEILING), len(errors))
    return errors[: last + 1]


def write_page(results: dict[str, Any], torch_version: str, draws: int, seeds: int) -> list[Path]:
    """Write the page and its plot."""
    page, plot = DOCS / "precision.md", DOCS / "precision.png"
    plotted(results["curves"], plot)
    prose = Path(__file__).with_suffix(".md").read_text()
    text = prose.format(
        draws=draws,
        seeds=seeds,
        torch=torch_version.partition("+")[0],
        named=named(results),
        constant=table(list(METHODS), [[told(results["constant"][m]) for m in METHODS]]),
        family=table(
            ["y, dx", *LIBRARIES],
            [[name, *(pair(of[m]) for m in LIBRARIES)] for name, of in results["family"].items()],
        ),
        sixteen=table(
            ["", *LIBRARIES],
            [
                [name, *(told(of[m]) for m in LIBRARIES)]
                for name, of in results["sixteen bits"].items()
            ],
        ),
        orders=orders(results),
    )
    page.write_text(text)
    return [page, plot]
