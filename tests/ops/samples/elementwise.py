"""Samples of the element-by-element operations."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, uniform, whole

SAMPLES = [
    Sample("add", lambda t, a, b: t.add(a, b), (normal(3, 4), normal(3, 4, seed=1))),
    Sample("add", lambda t, a, b: a + b, (normal(3, 1, 4), normal(2, 1)), notes="broadcast"),
    Sample(
        "add", lambda t, a, b: t.add(a, b, alpha=3), (normal(4), normal(4, seed=1)), notes="alpha"
    ),
    Sample("add", lambda t, a: 2 + a, (normal(2, 3),), notes="number"),
    Sample("sub", lambda t, a, b: a - b, (normal(3, 4), normal(4))),
    Sample("sub", lambda t, a: 2 - a, (normal(2, 3),), notes="number"),
    Sample("mul", lambda t, a, b: a * b, (normal(3, 4), normal(3, 1, seed=1))),
    Sample("mul", lambda t, a, b: a * b, (normal(0, 4), normal(4)), notes="empty"),
    Sample("div", lambda t, a, b: a / b, (normal(3, 4), uniform(4))),
    Sample("div", lambda t, a: 2 / a, (uniform(3),), notes="number"),
    Sample("pow", lambda t, a: a**3, (normal(3, 4),), notes="number"),
    Sample("pow", lambda t, a: a**2, (normal(3, 4),), notes="square"),
    Sample("pow", lambda t, a: a**0.5, (uniform(3, 4),), notes="root"),
    Sample("pow", lambda t, a: 2.0**a, (normal(3, 4),), notes="exponential"),
    Sample("pow", lambda t, a, b: a**b, (uniform(3, 4), normal(4))),
    Sample("remainder", lambda t, a, b: t.remainder(a, b), (normal(3, 4), uniform(3, 4))),
    Sample("fmod", lambda t, a, b: t.fmod(a, b), (normal(3, 4), uniform(3, 4))),
    Sample("maximum", lambda t, a, b: t.maximum(a, b), (normal(3, 4), normal(4, seed=1))),
    Sample("maximum", lambda t, a: t.maximum(a, a), (normal(3),), order=1, notes="tie"),
    Sample("minimum", lambda t, a, b: t.minimum(a, b), (normal(3, 4), normal(4, seed=1))),
    Sample("clamp", lambda t, a: t.clamp(a, -0.5, 0.5), (normal(3, 4),)),
    Sample("clamp", lambda t, a: t.clamp(a, min=0.1), (normal(3, 4),), notes="below"),
    Sample(
        "clamp",
        lambda t, a, b: t.clamp(a, max=b),
        (normal(3, 4), normal(4, seed=5)),
        notes="tensor",
    ),
    Sample(
        "where", lambda t, c, a, b: t.where(c > 0, a, b), (whole(3, 4), normal(3, 4), normal(4))
    ),
    Sample("lerp", lambda t, a, b: t.lerp(a, b, 0.3), (normal(3), normal(3, seed=1))),
    Sample("atan2", lambda t, a, b: t.atan2(a, b), (normal(3, 4), normal(3, 4, seed=1))),
    *(
        Sample(
            "div",
            lambda t, a, b, mode=mode: t.div(a, b, rounding_mode=mode),
            (normal(3, 4), uniform(4)),
            notes=mode,
        )
        for mode in ("floor", "trunc")
    ),
    Sample("div", lambda t, a: 2 // a, (uniform(3),), differentiable=False, notes="rounded number"),
    Sample("clamp_min", lambda t, a: t.clamp_min(a, 0.1), (normal(3, 4),)),
    Sample("clamp_max", lambda t, a: t.clamp_max(a, 0.1), (normal(3, 4),)),
    Sample("square", lambda t, c: t.square(c > 0), (whole(3),), differentiable=False, notes="bool"),
    Sample(
        "floor_divide",
        lambda t, a, b: a // b,
        (whole(3, 4), whole(3, 4, low=1)),
        differentiable=False,
    ),
]
