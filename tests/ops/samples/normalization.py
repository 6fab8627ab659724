"""Samples of the norms; their gradients are checked to order 3."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, uniform


def batch(t, x, w, b):
    return t.nn.functional.batch_norm(x, None, None, w, b, training=True)


def fixed(t, x, mean, var, w, b):
    return t.nn.functional.batch_norm(x, mean, var, w, b)


def layer(t, x, w, b):
    return t.nn.functional.layer_norm(x, w.shape, w, b)


AFFINE = (normal(3, seed=1), normal(3, seed=2))

SAMPLES = [
    Sample("batch_norm", batch, (normal(7, 3), *AFFINE), order=3),
    Sample("batch_norm", batch, (normal(4, 3, 5), *AFFINE), order=3),
    Sample("batch_norm", batch, (normal(2, 3, 2, 2), *AFFINE), order=3),
    Sample(
        "batch_norm", lambda t, x: batch(t, x, None, None), (normal(5, 3),), order=3, notes="plain"
    ),
    Sample(
        "batch_norm",
        fixed,
        (normal(4, 3), normal(3, seed=4), uniform(3), *AFFINE),
        gradient_inputs=(0, 3, 4),
        notes="running",
    ),
    Sample("layer_norm", layer, (normal(4, 6), normal(6), normal(6, seed=1)), order=3),
    Sample("layer_norm", layer, (normal(2, 3, 4), normal(3, 4), normal(3, 4, seed=1)), order=3),
    Sample(
        "layer_norm",
        lambda t, x: t.nn.functional.layer_norm(x, (3,)),
        (normal(5, 3),),
        order=3,
        notes="plain",
    ),
]
