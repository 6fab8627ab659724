"""Samples of sums, products, and what is counted."""

from __future__ import annotations

import numpy as np

from tests.ops.samples import Sample, normal, uniform, whole

WITH_ONE_ZERO = normal(3, 5) * (np.arange(5) != 2)
WITH_TWO_ZEROS = normal(3, 5) * (np.arange(5) % 3 != 1)

SAMPLES = [
    Sample("sum", lambda t, x: t.sum(x), (normal(3, 4),)),
    Sample("sum", lambda t, x: t.sum(x, 1), (normal(3, 4),), notes="axis"),
    Sample("sum", lambda t, x: x.sum((0, -1), keepdim=True), (normal(2, 3, 4),), notes="axes"),
    Sample("sum", lambda t, x: t.sum(x, dim=0), (normal(0, 3),), notes="empty"),
    Sample("sum", lambda t, x: t.sum(x, 0), (normal(),), notes="scalar"),
    Sample("sum", lambda t, x: t.sum(x, 0), (whole(3, 4),), differentiable=False, notes="int"),
    Sample("sum", lambda t, x: (x > 0).sum(), (whole(3, 4),), differentiable=False, notes="bool"),
    Sample("mean", lambda t, x: t.mean(x), (normal(3, 4),)),
    Sample("mean", lambda t, x: x.mean(-1, keepdim=True), (normal(3, 4),), notes="axis"),
    Sample("mean", lambda t, x: x.mean((2, 0)), (normal(2, 3, 4),), notes="axes"),
    Sample("mean", lambda t, x: t.mean(x), (normal(),), notes="scalar"),
    Sample("mean", lambda t, x: t.mean(x, 0), (normal(0, 3),), order=0, notes="empty"),
    Sample(
        "mean",
        lambda t, x: t.mean(x, dtype=t.float64),
        (whole(3, 4),),
        differentiable=False,
        notes="int",
    ),
    Sample("prod", lambda t, x: t.prod(x), (uniform(3, 2),)),
    Sample("prod", lambda t, x: t.prod(x), (normal(),), notes="scalar"),
    Sample("prod", lambda t, x: t.prod(x, 1), (normal(3, 5),), notes="axis"),
    Sample("prod", lambda t, x: t.prod(x, 0, keepdim=True), (normal(4, 2),), notes="keepdim"),
    Sample("prod", lambda t, x: t.prod(x, 1), (WITH_ONE_ZERO,), notes="zero"),
    Sample("prod", lambda t, x: t.prod(x, 1), (WITH_TWO_ZEROS,), notes="zeros"),
    Sample("prod", lambda t, x: t.prod(x, 0), (normal(0, 3),), notes="empty"),
    Sample("prod", lambda t, x: x.prod((2, 0)), (uniform(2, 3, 2),), oracle=False, notes="axes"),
    Sample("prod", lambda t, x: t.prod(x, 0), (whole(3, 4),), differentiable=False, notes="int"),
    Sample("cumsum", lambda t, x: t.cumsum(x, 1), (normal(3, 4),)),
    Sample("cumsum", lambda t, x: x.cumsum(-2), (normal(2, 3, 2),), notes="middle"),
    Sample("cumsum", lambda t, x: t.cumsum(x, 0), (normal(),), notes="scalar"),
    Sample("cumsum", lambda t, x: t.cumsum(x, 0), (whole(4),), differentiable=False, notes="int"),
    *(
        Sample(
            name,
            lambda t, x, name=name: getattr(t, name)(x, 0, dtype=t.int32),
            (whole(4),),
            differentiable=False,
            notes="int32",
        )
        for name in ("sum", "prod", "cumsum", "cumprod")
    ),
    Sample("cumprod", lambda t, x: t.cumprod(x, 1), (normal(3, 5),)),
    Sample("cumprod", lambda t, x: t.cumprod(x, 1), (WITH_ONE_ZERO,), notes="zero"),
    Sample("cumprod", lambda t, x: t.cumprod(x, 1), (WITH_TWO_ZEROS,), notes="zeros"),
    Sample("cumprod", lambda t, x: t.cumprod(x, 0), (normal(1, 3),), notes="single"),
    Sample("cumprod", lambda t, x: t.cumprod(x, 0), (normal(),), notes="scalar"),
    Sample("cumprod", lambda t, x: t.cumprod(x, 0), (whole(4),), differentiable=False, notes="int"),
    *(
        Sample(name, call, (whole(3, 4, low=0, high=2),), differentiable=False, notes=notes)
        for name in ("all", "any", "count_nonzero")
        for notes, call in (
            ("", lambda t, x, name=name: getattr(t, name)(x)),
            ("axis", lambda t, x, name=name: getattr(t, name)(x, 1)),
            ("axes", lambda t, x, name=name: getattr(t, name)(x, dim=(0, 1))),
        )
    ),
    Sample("all", lambda t, x: t.all(x, 0), (normal(0, 3),), differentiable=False, notes="empty"),
    Sample("any", lambda t, x: t.any(x, 0), (normal(0, 3),), differentiable=False, notes="empty"),
    Sample(
        "any",
        lambda t, x: t.any(x, 1, keepdim=True),
        (normal(3, 2),),
        differentiable=False,
        notes="float",
    ),
]
