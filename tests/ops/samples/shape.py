"""Samples of the operations that change shapes and order."""

from __future__ import annotations

import numpy as np

from tests.ops.samples import Sample, normal

X = (normal(2, 3, 4),)
SQUARE = (normal(3, 3),)


def pad(*args):
    return lambda t, x: t.nn.functional.pad(x, *args)


SAMPLES = [
    Sample("reshape", lambda t, x: x.reshape(4, -1), X),
    Sample("reshape", lambda t, x: x.transpose(0, 2).reshape(6, 4), X, notes="copy"),
    Sample("reshape", lambda t, x: x.reshape(0, 5), (normal(0, 3),), notes="empty"),
    Sample("reshape", lambda t, x: x.reshape(()), (normal(1, 1),), notes="to scalar"),
    Sample("reshape_as", lambda t, x, y: x.reshape_as(y), (normal(6), normal(2, 3))),
    Sample("view", lambda t, x: x.view(6, 4), X, any_layout=False),
    Sample("view_as", lambda t, x, y: x.view_as(y), (normal(6), normal(2, 3))),
    Sample("flatten", lambda t, x: t.flatten(x, 1), X),
    Sample("flatten", lambda t, x: t.flatten(x), (normal(),), notes="scalar"),
    Sample("unflatten", lambda t, x: x.unflatten(2, (2, -1)), X),
    Sample("permute", lambda t, x: t.permute(x, (2, 0, 1)), X),
    Sample("permute", lambda t, x: t.permute(x, dims=(2, 0, 1)), X, notes="by name"),
    Sample("transpose", lambda t, x: t.transpose(x, 0, -1), X),
    Sample("T", lambda t, x: x.T, (normal(2, 3),)),
    Sample("mT", lambda t, x: x.mT, X),
    Sample("t", lambda t, x: x.t(), (normal(3),)),
    Sample("movedim", lambda t, x: t.movedim(x, (0, 2), (-1, 0)), X),
    Sample("movedim", lambda t, x: t.movedim(x, 1, 0), X, notes="one"),
    Sample("squeeze", lambda t, x: t.squeeze(x), (normal(1, 3, 1),)),
    Sample("squeeze", lambda t, x: t.squeeze(x, (0, 1)), (normal(1, 3, 1),), notes="some"),
    Sample("unsqueeze", lambda t, x: t.unsqueeze(x, -1), X),
    Sample("expand", lambda t, x: x.expand(4, -1, 3), (normal(2, 1),)),
    Sample("expand", lambda t, x: x.expand(0, 3), (normal(1, 3),), notes="empty"),
    Sample("expand", lambda t, x: x.expand(size=(4, 2, 3)), (normal(2, 1),), notes="by name"),
    Sample("expand_as", lambda t, x, y: x.expand_as(y), (normal(3, 1), normal(2, 3, 2))),
    Sample("broadcast_to", lambda t, x: t.broadcast_to(x, (2, 3, 4)), (normal(3, 1),)),
    Sample(
        "broadcast_tensors",
        lambda t, x, y: t.broadcast_tensors(x, y)[0] * t.broadcast_tensors(x, y)[1],
        (normal(3, 1), normal(4)),
    ),
    Sample("flip", lambda t, x: t.flip(x, (0, 2)), X),
    Sample("flip", lambda t, x: t.flip(x, dims=(0, -1)), X, notes="by name"),
    Sample("fliplr", lambda t, x: t.fliplr(x), X),
    Sample("flipud", lambda t, x: t.flipud(x), X),
    Sample("roll", lambda t, x: t.roll(x, 5), X, notes="flat"),
    Sample("roll", lambda t, x: t.roll(x, (1, -2), (0, 2)), X),
    Sample("repeat", lambda t, x: x.repeat(2, 1, 3), (normal(3, 2),)),
    Sample("repeat", lambda t, x: x.repeat(0, 2), (normal(3, 2),), notes="zero times"),
    Sample("tile", lambda t, x: t.tile(x, (2,)), (normal(3, 2),)),
    Sample("tile", lambda t, x: t.tile(x, dims=(2, 1)), (normal(3, 2),), notes="by name"),
    Sample("repeat", lambda t, x: x.repeat(repeats=(2, 1)), (normal(3, 2),), notes="by name"),
    Sample(
        "repeat_interleave",
        lambda t, x, n: t.repeat_interleave(x, n, dim=-1, output_size=5),
        (normal(2, 4), np.array([2, 0, 3, 0])),
        notes="each",
    ),
    Sample(
        "repeat_interleave",
        lambda t, x, n: t.repeat_interleave(x, n, 0),
        (normal(0, 4), np.zeros(0, int)),
        order=0,
        notes="none",
    ),
    Sample("repeat_interleave", lambda t, x: t.repeat_interleave(x, 3, 1), (normal(2, 2, 2),)),
    Sample(
        "repeat_interleave", lambda t, x: t.repeat_interleave(x, 2), (normal(2, 2),), notes="flat"
    ),
    Sample("tril", lambda t, x: t.tril(x, -1), (normal(2, 3, 4),)),
    Sample("triu", lambda t, x: t.triu(x, 1), (normal(4, 3),)),
    Sample("diagonal", lambda t, x: t.diagonal(x, 1, 2, 0), X),
    Sample("diagonal", lambda t, x: t.diagonal(x, -1), SQUARE),
    Sample("diag", lambda t, x: t.diag(x, -1), (normal(3),)),
    Sample("diag", lambda t, x: t.diag(x, 1), SQUARE, notes="of a matrix"),
    Sample("trace", lambda t, x: t.trace(x), SQUARE),
    Sample("pad", pad((1, 2)), X),
    Sample("pad", pad((1, 0, 0, 2, 1, 1), "constant", 0.5), X, notes="value"),
    Sample("pad", pad((-1, 2, 0, -1)), X, notes="negative"),
    Sample("pad", pad((2, 3), "reflect"), X, notes="reflect"),
    Sample("pad", pad((2, 3), "replicate"), X, notes="replicate"),
    Sample("pad", pad((2, 4), "circular"), X, notes="circular"),
    Sample("pad", pad((-1, 2), "reflect"), X, notes="reflect the rest"),
    Sample("pad", pad((-3, 2), "replicate"), X, notes="replicate the rest"),
    Sample("pad", pad((-1, 3), "circular"), X, notes="circular for the rest"),
]
