"""Samples of joining and splitting."""

from __future__ import annotations

import numpy as np

from tests.ops.samples import Sample, normal

PAIR = (normal(2, 3), normal(2, 3, seed=1))
X = (normal(5, 4),)


def used(parts):
    """One tensor of some of the parts, so that others get no gradient of their own."""
    return parts[0] * 2 + parts[-1] * parts[-1]


SAMPLES = [
    Sample("cat", lambda t, x, y: t.cat((x, y)), (normal(2, 3), normal(1, 3))),
    Sample("cat", lambda t, x, y: t.cat([x, y, x], dim=-1), (normal(2, 3), normal(2, 0))),
    Sample(
        "cat",
        lambda t, x, y: t.cat([y, x, y], 1),
        (normal(2, 3), normal(0)),
        gradient_inputs=(0,),
        notes="nothing",
    ),
    Sample("cat", lambda t, x: t.cat([x]), (normal(3),), notes="one"),
    Sample("concat", lambda t, x, y: t.concat([x, y]), PAIR),
    Sample("stack", lambda t, x, y: t.stack((x, y)), PAIR),
    Sample("stack", lambda t, x, y: t.stack((x, y, x), -1), PAIR, notes="last"),
    Sample("stack", lambda t, x, y: t.stack((x, y)), (normal(), normal(seed=1)), notes="scalars"),
    Sample("split", lambda t, x: used(t.split(x, (2, 1, 2))), X, notes="sizes"),
    Sample("split", lambda t, x: t.split(x, 2)[1], X),
    Sample("split", lambda t, x: used(x.split(2, dim=1)), X, notes="all"),
    Sample("split", lambda t, x: t.split(x, [0, 5])[1], X, notes="empty part"),
    Sample("chunk", lambda t, x: t.chunk(x, 3)[-1], X),
    Sample("tensor_split", lambda t, x: t.tensor_split(x, 3)[0], X),
    Sample("tensor_split", lambda t, x: t.tensor_split(x, (1, 3), 1)[1], X, notes="indices"),
    Sample(
        "tensor_split",
        lambda t, x, i: t.tensor_split(x, i)[1],
        (*X, np.array([1, 3])),
        notes="tensor",
    ),
    Sample("unbind", lambda t, x: used(t.unbind(x, 1)), X),
    Sample(
        "meshgrid",
        lambda t, x, y: t.meshgrid(x, y, indexing="ij")[0] * t.meshgrid(x, y, indexing="xy")[1].T,
        (normal(2), normal(3)),
    ),
]
