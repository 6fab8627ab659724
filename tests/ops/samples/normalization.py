"""Samples of the norms; their gradients are checked to order 3."""

from __future__ import annotations

import math

from tests.ops.samples import Sample, normal, uniform
from tinygrad_bn.ops.deviation import BatchDeviation, RowDeviation
from tinygrad_bn.ops.filter_response import FilterResponse
from tinygrad_bn.ops.mean_centring import centred_by_batch
from tinygrad_bn.ops.power_normalization import power_normalized


def batch(t, x, w, b):
    return t.nn.functional.batch_norm(x, None, None, w, b, training=True)


def fixed(t, x, mean, var, w, b):
    return t.nn.functional.batch_norm(x, mean, var, w, b)


def layer(t, x, w, b):
    return t.nn.functional.layer_norm(x, w.shape, w, b)


def rms(t, x, w):
    return t.nn.functional.rms_norm(x, w.shape, w)


def group(groups):
    return lambda t, x, w, b: t.nn.functional.group_norm(x, groups, w, b)


def instance(t, x, w, b):
    return t.nn.functional.instance_norm(x, None, None, w, b)


def fixed_instance(t, x, mean, var, w, b):
    return t.nn.functional.instance_norm(x, mean, var, w, b, use_input_stats=False)


def normalize(p, dim=1, x=None, **options):
    """A sample of unit vectors by the p-norm; by default those of rank 2 lie along axis 1."""
    return Sample(
        "normalize",
        lambda t, x: t.nn.functional.normalize(x, p, dim, **options),
        (normal(4, 5) if x is None else x,),
        order=3,
        notes="-".join(map(str, (f"p={p}", f"dim={dim}", *options.values()))),
    )


def response(x, size, alpha=0.5, **options):
    """A sample of local response norm, by default with so much of it that it shows."""
    return Sample(
        "local_response_norm",
        lambda t, x: t.nn.functional.local_response_norm(x, size, alpha, **options),
        (x,),
        order=3,
        notes=f"n={size}" + "".join(f"-{k}={v}" for k, v in options.items()),
    )


def filter_response(_, x, w=None, b=None, learned=None):
    rows = (*x.shape[:2], 1, math.prod(x.shape[2:]))
    return FilterResponse.apply(x, w, b, learned, rows=rows, eps=1e-2)


def batch_deviation(_, x):
    return BatchDeviation.apply(x, eps=1e-2)[0]


def row_deviation(groups):
    def function(_, x):
        n, c, *space = x.shape
        rows = (n, groups, c // groups, math.prod(space))
        return RowDeviation.apply(x, rows=rows, eps=1e-2)

    return function


def centred(_, x, b=None, mask=None):
    count = x.numel() // x.shape[1] if mask is None else int(mask.sum())
    return centred_by_batch(x, b, mask, axis=1, count=count)[0]


def power(t, x, w=None, b=None, mask=None):
    """In its warm-up, where its gradient is the derivative; running statistics are not read."""
    count = x.numel() // x.shape[1] if mask is None else int(mask.sum())
    running, warm = t.full((3,), math.nan, device=x.device), t.tensor(True, device=x.device)
    place = {"eps": 1e-2, "axis": 1, "count": count}
    return power_normalized(x, w, b, mask, running, running, warm, **place)[0]


def masked(function):
    """With a mask that keeps where the first channel is above -0.5: no difference moves it."""
    return lambda t, *inputs: function(t, *inputs, mask=inputs[0].detach()[:, 0] > -0.5)


def ours(name, function, *inputs, **options):
    """A sample of an operation that PyTorch does not have; tests of its layers compose it there."""
    return Sample(name, function, inputs, order=3, oracle=False, **options)


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
    Sample("rms_norm", rms, (normal(4, 6), normal(6)), order=3),
    Sample("rms_norm", rms, (normal(2, 3, 4), normal(3, 4)), order=3),
    Sample(
        "rms_norm",
        lambda t, x: t.nn.functional.rms_norm(x, (3,), eps=0.1),
        (normal(5, 3),),
        order=3,
        notes="plain",
    ),
    *(
        Sample(
            "group_norm",
            group(groups),
            (normal(*shape), normal(6, seed=1), normal(6, seed=2)),
            order=3,
            notes=f"groups={groups}",
        )
        for groups, shape in ((1, (3, 6)), (2, (2, 6, 3)), (3, (2, 6, 2, 2)), (6, (2, 6, 4)))
    ),
    Sample(
        "group_norm",
        lambda t, x: t.nn.functional.group_norm(x, 2),
        (normal(3, 4, 2),),
        order=3,
        notes="plain",
    ),
    Sample("instance_norm", instance, (normal(2, 3, 5), *AFFINE), order=3),
    Sample("instance_norm", instance, (normal(2, 3, 2, 2), *AFFINE), order=3),
    Sample(
        "instance_norm",
        lambda t, x: instance(t, x, None, None),
        (normal(2, 2, 4),),
        order=3,
        notes="plain",
    ),
    Sample(
        "instance_norm",
        fixed_instance,
        (normal(4, 3, 2), normal(3, seed=4), uniform(3), *AFFINE),
        gradient_inputs=(0, 3, 4),
        notes="running",
    ),
    normalize(2.0),
    normalize(1),
    normalize(3),
    normalize(0.5),
    normalize(0),
    normalize(-1.5),
    normalize(float("inf")),
    normalize(float("-inf")),
    normalize(2.0, dim=(0, 2), x=normal(2, 3, 2)),
    normalize(7.5, dim=-1, x=normal(2, 3)),
    normalize(2.0, x=normal(3, 4), eps=100.0),
    normalize(1.2, dim=0, x=normal()),
    response(normal(2, 6, 3), 3),
    response(normal(2, 6, 3), 2, beta=2.0, k=0.5),
    response(normal(2, 5, 2, 2), 5, beta=0.5),
    response(normal(2, 3, 2), 9),
    response(normal(1, 1, 2), 1),
    ours("filter_response", filter_response, normal(2, 3, 5), *AFFINE),
    ours("filter_response", filter_response, normal(2, 3, 2, 2), *AFFINE, normal(1)),
    ours("filter_response", filter_response, normal(4, 3), *AFFINE, normal(1, seed=1)),
    ours("filter_response", filter_response, normal(2, 2, 3), notes="plain"),
    ours("batch_deviation", batch_deviation, normal(6, 3)),
    ours("batch_deviation", batch_deviation, normal(2, 3, 4)),
    ours("row_deviation", row_deviation(1), normal(2, 3, 2), notes="groups=1"),
    ours("row_deviation", row_deviation(2), normal(2, 4, 3), notes="groups=2"),
    ours("row_deviation", row_deviation(3), normal(2, 3, 4), notes="groups=3"),
    ours("mean_centring", centred, normal(5, 3), normal(3)),
    ours("mean_centring", centred, normal(3, 3, 2), notes="plain"),
    ours("mean_centring", masked(centred), normal(4, 3, 2), normal(3), notes="masked"),
    ours("power_normalization", power, normal(5, 3), *AFFINE),
    ours("power_normalization", power, normal(3, 3, 2), notes="plain"),
    ours("power_normalization", masked(power), normal(4, 3, 2), *AFFINE, notes="masked"),
]
