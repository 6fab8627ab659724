"""Samples of the greatest and the smallest, and of sorting."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, whole

SAMPLES = []
for name in ("max", "min"):
    SAMPLES += [
        Sample(f"a{name}", lambda t, x, f=f"a{name}": getattr(t, f)(x), (normal(3, 4),)),
        Sample(
            f"a{name}", lambda t, x, f=f"a{name}": getattr(t, f)(x), (normal(),), notes="scalar"
        ),
        Sample(
            f"a{name}",
            lambda t, x, f=f"a{name}": getattr(t, f)(x, (0, -1), keepdim=True),
            (normal(2, 3, 4),),
            notes="axes",
        ),
        Sample(
            f"a{name}",
            lambda t, x, f=f"a{name}": getattr(t, f)(x, 1),
            (normal(0, 4),),
            notes="empty",
        ),
        Sample(name, lambda t, x, f=name: getattr(t, f)(x), (normal(3, 4),)),
        Sample(name, lambda t, x, f=name: getattr(t, f)(x, 1), (normal(3, 4),), notes="axis"),
        Sample(name, lambda t, x, f=name: getattr(t, f)(x, 0), (normal(),), notes="scalar"),
        Sample(
            name,
            lambda t, x, f=name: getattr(x, f)(dim=-2, keepdim=True),
            (normal(2, 3, 2),),
            notes="keepdim",
        ),
        Sample(
            name,
            lambda t, a, b, f=name: getattr(t, f)(a, b),
            (normal(3, 4), normal(4, seed=1)),
            notes="two",
        ),
        Sample(
            name,
            lambda t, x, f=name: getattr(t, f)(x, 1),
            (whole(2, 5),),
            differentiable=False,
            notes="int",
        ),
        *(
            Sample(f"arg{name}", call, (x,), differentiable=False, notes=notes)
            for notes, x, call in (
                ("", normal(3, 4), lambda t, x, f=f"arg{name}": getattr(t, f)(x)),
                ("axis", normal(3, 4), lambda t, x, f=f"arg{name}": getattr(t, f)(x, 1)),
                ("scalar", normal(), lambda t, x, f=f"arg{name}": getattr(t, f)(x, 0)),
                (
                    "keepdim",
                    whole(3, 4),
                    lambda t, x, f=f"arg{name}": getattr(t, f)(x, 0, keepdim=True),
                ),
            )
        ),
    ]

SAMPLES += [
    Sample("sort", lambda t, x: t.sort(x), (normal(3, 4),)),
    Sample("sort", lambda t, x: t.sort(x, 0, True), (normal(3, 4),), notes="descending"),
    Sample("sort", lambda t, x: x.sort(dim=1), (normal(2, 3, 2),), notes="middle"),
    Sample("sort", lambda t, x: t.sort(x), (normal(),), notes="scalar"),
    Sample("sort", lambda t, x: t.sort(x, dim=0), (normal(0, 2),), notes="empty"),
    Sample(
        "sort",
        lambda t, x: t.sort(x, dim=-1, stable=True, descending=True),
        (whole(2, 8),),
        differentiable=False,
        notes="int",
    ),
    *(
        Sample("argsort", call, (x,), differentiable=False, notes=notes)
        for notes, x, call in (
            ("", normal(3, 4), lambda t, x: t.argsort(x)),
            ("scalar", normal(), lambda t, x: t.argsort(x)),
            ("ties", whole(2, 9), lambda t, x: t.argsort(x, dim=1, stable=True)),
            (
                "descending",
                whole(9, 2),
                lambda t, x: t.argsort(x, dim=0, descending=True, stable=True),
            ),
        )
    ),
    Sample("topk", lambda t, x: t.topk(x, 2), (normal(3, 4),)),
    Sample("topk", lambda t, x: t.topk(x, 3, 0, largest=False), (normal(4, 2),), notes="smallest"),
    Sample("topk", lambda t, x: x.topk(0), (normal(2, 3),), notes="none"),
    Sample("topk", lambda t, x: t.topk(x, 1), (normal(),), notes="scalar"),
    Sample("topk", lambda t, x: t.topk(x, 2), (whole(2, 3, low=0, high=99),), differentiable=False),
]
