"""Samples of the activations, and of softmax and its kin."""

from __future__ import annotations

from tests.ops.samples import Sample, normal, uniform

SMOOTH = "gelu silu mish softplus logsigmoid softsign celu elu selu tanhshrink".split()
PIECEWISE = "relu relu6 leaky_relu hardsigmoid hardswish hardtanh hardshrink softshrink".split()

EITHER_SIDE = normal(3, 4) * 4  # reaches beyond ±3 and 6, where some have their kinks


def call(name: str, *args: object, **options: object):
    return lambda t, x: getattr(t.nn.functional, name)(x, *args, **options)


def along(name: str, dim: int):
    return lambda t, x: getattr(t, name)(x, dim)


SAMPLES = [
    *(Sample(name, call(name), (normal(3, 4),)) for name in SMOOTH),
    *(Sample(name, call(name), (EITHER_SIDE,)) for name in PIECEWISE),
    Sample("relu", lambda t, x: t.relu(x), (normal(),), notes="scalar"),
    Sample("relu", lambda t, x: x.relu(), (normal(2, 0),), notes="empty"),
    Sample("leaky_relu", call("leaky_relu", 0.3), (normal(3, 4),), notes="slope"),
    Sample("elu", call("elu", 0.5), (normal(3, 4),), notes="alpha"),
    Sample("celu", call("celu", 0.5), (normal(3, 4),), notes="alpha"),
    Sample("gelu", call("gelu", approximate="tanh"), (normal(3, 4),), notes="tanh"),
    Sample("mish", call("mish"), (normal(3, 4) * 10,), notes="far"),
    Sample("softplus", call("softplus", 3.0, 2.0), (normal(3, 4),), notes="threshold"),
    Sample("hardtanh", call("hardtanh", -0.3, 1.2), (normal(3, 4),), notes="bounds"),
    Sample("threshold", call("threshold", 0.3, 7.0), (normal(3, 4),)),
    Sample("glu", call("glu"), (normal(3, 4),)),
    Sample("glu", call("glu", 0), (normal(4, 3, 2),), notes="axis"),
    Sample(
        "prelu",
        lambda t, x, w: t.nn.functional.prelu(x, w),
        (normal(2, 3, 4), uniform(3)),
        notes="channels",
    ),
    Sample("prelu", lambda t, x, w: t.nn.functional.prelu(x, w), (normal(5), uniform(1))),
    *(
        Sample(name, along(name, dim), (normal(3, 4, 2),), notes=f"axis {dim}")
        for name in ("softmax", "log_softmax")
        for dim in (0, 1, -1)
    ),
    Sample("softmax", along("softmax", 0), (normal(),), notes="scalar"),
    Sample("log_softmax", along("log_softmax", 1), (normal(0, 4),), notes="empty"),
    Sample("softmin", call("softmin", 1), (normal(3, 4),)),
]
