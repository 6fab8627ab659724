"""Samples of the functions of one variable."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, uniform

ANYWHERE = (
    "abs exp expm1 sin cos tanh sinh cosh sigmoid erf atan square neg sign floor ceil trunc "
    "round tan"
).split()
POSITIVE = "log log2 log10 log1p sqrt rsqrt reciprocal".split()
WITHIN_ONE = "asin acos erfinv".split()
CLASSES = "isnan isinf isfinite".split()


def call(name: str):
    return lambda t, x: getattr(t, name)(x)


SAMPLES = [
    *(Sample(name, call(name), (normal(3, 4),)) for name in ANYWHERE),
    *(Sample(name, call(name), (uniform(3, 4),)) for name in POSITIVE),
    *(Sample(name, call(name), (uniform(3, 4, low=-0.9, high=0.9),)) for name in WITHIN_ONE),
    *(Sample(name, call(name), (normal(3, 4),), differentiable=False) for name in CLASSES),
    Sample("round", lambda t, x: t.round(x, decimals=1), (normal(3, 4),), notes="decimals"),
    Sample("round", lambda t, x: t.round(9 * x, decimals=-1), (normal(3, 4),), notes="tens"),
    Sample("sign", lambda t, x: (x > 0).sign(), (normal(3),), differentiable=False, notes="bool"),
    Sample("exp", call("exp"), (normal(),), notes="scalar"),
    Sample("tanh", call("tanh"), (normal(2, 0),), notes="empty"),
]
