"""Arguments of walks through time, for every cell with every norm that it can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_bn.ops.recurrent_cells import CELLS
from tinygrad_bn.ops.recurrent_norms import Norm

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
STATISTICS = ("none", "batch", "given", "mixed", "layer")


class Draw:
    """Draws of normal numbers in one dtype."""

    def __init__(self, seed: int, dtype: Any) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def __call__(self, *shape: int, scale: float = 0.5, around: float = 0.0) -> Any:
        return (around + scale * self.rng.standard_normal(shape)).astype(self.dtype)


def norms_of(
    cell: str, statistics: str, size: int, steps: int, draw: Draw, joint: bool
) -> tuple[Any, ...]:
    """The norms of a cell, each with its arrays; those of layers are in two parts where they can
    be, or one of the ``joint`` products.
    """
    if statistics == "none":
        return ()
    layer = statistics == "layer"
    widths = {"sum": GATES[cell] * size} if joint else dict.fromkeys("xh", GATES[cell] * size)
    if cell == "lstm":
        widths["c"] = size
    found = []
    for place, width in widths.items():
        parts = (width - size, size) if layer and cell == "gru" and place != "c" else (width,)
        eps = tuple(1e-5 * (k + 1) for k in range(len(parts) if layer else steps))
        flags = tuple(
            statistics == "batch" or (statistics == "mixed" and k % 2 == 0) for k in range(steps)
        )
        given = (draw(steps, width), np.abs(draw(steps, width)) + 0.5)
        norm = Norm(place, eps, parts, ()) if layer else Norm(place, eps, (), flags)
        arrays = (None, None) if layer or all(flags) else given
        weight = draw(width, scale=0.1, around=0.8)
        found.append((norm, weight, draw(width) if place == "c" else None, *arrays))
    return tuple(found)


def forward_arguments(
    cell: str,
    sizes: Sequence[int],
    *,
    statistics: str = "none",
    joint: bool = False,
    features: int = 5,
    size: int = 7,
    projected: bool = False,
    biased: bool = True,
    reverse: bool = False,
    dtype: Any = np.float64,
    seed: int = 0,
) -> tuple[Any, ...]:
    """What `walk_forward` is called with, less the backend."""
    draw, columns = Draw(seed, dtype), GATES[cell] * size
    p = 3 if projected else size
    weights = (
        draw(columns, features),
        draw(columns, p),
        draw(columns) if biased else None,
        draw(columns) if biased else None,
        draw(p, size) if projected else None,
    )
    states = (draw(sizes[0], p), draw(sizes[0], size))[: CELLS[cell].states]
    norms = norms_of(cell, statistics, size, len(sizes), draw, joint)
    x = draw(sum(sizes), features, scale=1.0)
    return cell, x, weights, states, norms, tuple(sizes), reverse


def backward_arguments(
    forward: tuple[Any, ...], found: Sequence[Any], missing: int | None = None
) -> tuple[Any, ...]:
    """What `walk_backward` is called with, from what `walk_forward` was and gave; all gradients are
    needed but the ``missing`` one.
    """
    cell, x, weights, states, norms, sizes, reverse = forward
    draw, count = Draw(9, x.dtype), len(states)
    y, kept = found[0], tuple(found[1 + count :])
    dstates = tuple(draw(*state.shape) for state in states)
    dy = draw(*y.shape)
    return (
        *(cell, dy, dstates, x, weights, states, norms, y, kept, sizes, reverse),
        tuple(v is not None and k != missing for k, v in enumerate((x, *weights))),
    )
