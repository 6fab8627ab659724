"""Samples of comparison and logic."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, whole

COMPARISONS = "eq ne lt le gt ge".split()
LOGIC = "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor".split()


def call(name: str):
    return lambda t, *inputs: getattr(t, name)(*inputs)


SAMPLES = [
    *(
        Sample(name, call(name), (whole(3, 4), whole(4, seed=1)), differentiable=False)
        for name in COMPARISONS + LOGIC
    ),
    *(Sample(name, call(name), (whole(3, 4),), differentiable=False) for name in ("bitwise_not",)),
    Sample("logical_not", call("logical_not"), (normal(3, 4),), differentiable=False),
    Sample(
        "isclose",
        lambda t, a, b: t.isclose(a, a + 1e-9 * b),
        (normal(4), normal(4, seed=1)),
        differentiable=False,
    ),
    Sample(
        "isclose", call("isclose"), (whole(9), whole(9, seed=1)), differentiable=False, notes="int"
    ),
    Sample("allclose", lambda t, a: t.tensor(t.allclose(a, a)), (normal(4),), differentiable=False),
    Sample("equal", lambda t, a: t.tensor(t.equal(a, a)), (normal(4),), differentiable=False),
    Sample(
        "bitwise_and",
        lambda t, a, b: (a > 0) & ~(b > 0) | (a < b) ^ (b < 0),
        (whole(3, 4), whole(3, 4, seed=1)),
        differentiable=False,
        notes="operators",
    ),
]
