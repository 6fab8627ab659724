"""Samples of copies."""

from __future__ import annotations

from tests.ops.samples import Sample, normal

SAMPLES = [
    Sample("clone", lambda t, x: t.clone(x), (normal(3, 4),)),
    Sample("contiguous", lambda t, x: x.transpose(0, 1).contiguous(), (normal(3, 4),)),
    Sample("contiguous", lambda t, x: (x * 1).contiguous(), (normal(),), notes="scalar"),
]
