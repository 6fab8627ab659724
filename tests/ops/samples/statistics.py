"""Samples of variances, norms, and sums of exponentials."""

from __future__ import annotations

from math import inf

from tests.ops.samples import Sample, normal, uniform, whole


def vector_norm(p, *args, **options):
    return lambda t, x: t.linalg.vector_norm(x, p, *args, **options)


SAMPLES = [
    *(
        Sample(name, call, (normal(*shape),), notes=notes)
        for name in ("var", "std", "var_mean", "std_mean")
        for notes, shape, call in (
            ("", (3, 4), lambda t, x, f=name: getattr(t, f)(x)),
            ("axis", (3, 4), lambda t, x, f=name: getattr(t, f)(x, 0)),
            ("biased", (5,), lambda t, x, f=name: getattr(t, f)(x, unbiased=False)),
            ("positional", (5,), lambda t, x, f=name: getattr(t, f)(x, False)),
            ("axis-biased", (3, 4), lambda t, x, f=name: getattr(t, f)(x, 1, False, True)),
            (
                "axes",
                (2, 3, 4),
                lambda t, x, f=name: getattr(t, f)(x, dim=(0, 2), correction=0, keepdim=True),
            ),
            ("correction", (2, 4), lambda t, x, f=name: getattr(t, f)(x, 1, correction=2.5)),
        )
    ),
    *(
        Sample(
            "vector_norm",
            vector_norm(p),
            (normal(3, 4),),
            order=1 if p in (0, inf, -inf) else 2,
            notes=f"ord {p}",
        )
        for p in (0, 0.5, 1, 1.5, 2, 3, -1, inf, -inf)
    ),
    Sample("vector_norm", vector_norm(2, (0, 2)), (normal(2, 3, 4),), notes="axes"),
    Sample("vector_norm", vector_norm(3, 1, keepdim=True), (normal(2, 3, 2),), notes="axis"),
    Sample("vector_norm", vector_norm(2, 0), (normal(0, 3),), notes="empty"),
    Sample("vector_norm", vector_norm(2), (normal(),), notes="scalar"),
    Sample("norm", lambda t, x: t.norm(x), (normal(3, 4),)),
    Sample("norm", lambda t, x: x.norm(1, dim=1), (normal(3, 4),), notes="one"),
    Sample("norm", lambda t, x: t.norm(x, p=3, dim=(0, 1)), (normal(3, 4),), notes="three"),
    *(
        Sample("norm", lambda t, x, p=p: t.linalg.norm(x, p), (normal(3, 4),), notes=f"matrix {p}")
        for p in (None, "fro", 1, -1, inf, -inf)
    ),
    Sample("norm", lambda t, x: t.linalg.norm(x, 3), (normal(4),), notes="vector"),
    Sample(
        "norm",
        lambda t, x: t.linalg.norm(x, 1, dim=(2, 0), keepdim=True),
        (normal(2, 3, 4),),
        notes="matrices",
    ),
    Sample("logsumexp", lambda t, x: t.logsumexp(x, 1), (normal(3, 4),)),
    Sample("logsumexp", lambda t, x: t.logsumexp(x, (0, 2), True), (normal(2, 3, 2),)),
    Sample("logsumexp", lambda t, x: t.logsumexp(x + 2000, 0), (normal(3, 2),), notes="large"),
    Sample("logsumexp", lambda t, x: t.logsumexp(x, 0), (normal(),), notes="scalar"),
    Sample("logsumexp", lambda t, x: t.logsumexp(x, 0), (normal(0, 2),), order=0, notes="empty"),
    Sample(
        "logsumexp",
        lambda t, x: t.logsumexp(x.double(), 0),
        (whole(3, 2),),
        differentiable=False,
        notes="int",
    ),
    Sample("logaddexp", lambda t, a, b: t.logaddexp(a, b), (normal(3, 1), normal(4, seed=1))),
    Sample("logaddexp", lambda t, a: t.logaddexp(a, a), (uniform(3),), notes="tie"),
]
