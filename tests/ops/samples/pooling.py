"""Samples of pooling; values at kinks would have no differences, and normal ones are apart."""

from __future__ import annotations

from tests.ops.samples import Sample, normal


def pool(name, x, *args, order=2, oracle=True, **options):
    """A sample of a pooling; indices come along where they are asked for."""
    return Sample(
        name,
        lambda t, x: getattr(t.nn.functional, name)(x, *args, **options),
        (x,),
        order=order,
        oracle=oracle,
        notes="-".join(map(str, (*args, *(f"{k}={v}" for k, v in options.items())))),
    )


SAMPLES = [
    pool("avg_pool1d", normal(2, 3, 7), 3, stride=2, order=3),
    pool("avg_pool1d", normal(2, 7), 3, padding=1, ceil_mode=True, count_include_pad=False),
    pool("avg_pool2d", normal(2, 3, 6, 5), 2),
    pool("avg_pool2d", normal(2, 2, 5, 4), (3, 2), stride=(2, 1), padding=1),
    pool("avg_pool2d", normal(2, 5, 4), 3, stride=2, padding=1, count_include_pad=False),
    pool("avg_pool2d", normal(1, 2, 5, 4), 2, stride=3, ceil_mode=True, divisor_override=3),
    pool("avg_pool2d", normal(2, 5, 4, 3), 2, stride=1, axis=-1, oracle=False),
    pool("avg_pool3d", normal(1, 2, 3, 4, 3), (2, 3, 2), stride=1, padding=1),
    pool("max_pool1d", normal(2, 3, 7), 3, stride=2, order=3),
    pool("max_pool1d", normal(2, 7), 2, dilation=2, padding=1, ceil_mode=True),
    pool("max_pool2d", normal(2, 3, 6, 5), 2, order=3),
    pool("max_pool2d", normal(2, 2, 5, 4), (3, 2), stride=(2, 1), padding=1, return_indices=True),
    pool("max_pool2d", normal(2, 5, 6), 2, stride=3, padding=1, dilation=2, ceil_mode=True),
    pool("max_pool2d", normal(2, 5, 4, 3), 2, stride=1, axis=-1, oracle=False),
    pool("max_pool3d", normal(1, 2, 3, 4, 3), (2, 3, 2), stride=1, padding=1),
    pool("adaptive_avg_pool1d", normal(2, 2, 7), 3),
    pool("adaptive_avg_pool2d", normal(2, 2, 4, 5), 1, order=3),
    pool("adaptive_avg_pool2d", normal(2, 4, 5), (3, None)),
    pool("adaptive_avg_pool2d", normal(2, 2, 3, 2), (5, 3)),
    pool("adaptive_avg_pool3d", normal(1, 2, 3, 4, 2), 2),
    pool("adaptive_max_pool1d", normal(2, 2, 7), 3),
    pool("adaptive_max_pool2d", normal(2, 2, 4, 5), 1, order=3),
    pool("adaptive_max_pool2d", normal(2, 4, 5), (3, None), return_indices=True),
    pool("adaptive_max_pool2d", normal(2, 2, 3, 2), (5, 3)),
    pool("adaptive_max_pool3d", normal(1, 2, 3, 4, 2), 2),
]
