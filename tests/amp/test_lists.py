"""The lists of `autocast`: those of PyTorch, obeyed by every operation that is in one, and by no
other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.ops.test_samples import SAMPLES, run, tensors_of
from tinygrad_bn.ops import autocasting
from tinygrad_bn.ops.autocasting import DECORATED, FLOAT32, LOWER, WIDEST

pytest.importorskip("ml_dtypes")

LISTED = {*LOWER, *FLOAT32, *WIDEST}
OWN_NAMES = {
    "recurrence": "PyTorch lists its cells",
    "rdiv": "reciprocal in PyTorch",
    "rpow": "pow in PyTorch",
    "vector_norm": "linalg_vector_norm in PyTorch",
    "interpolate": "upsample_* in PyTorch",
}
COMPOSED = {
    "cross_entropy": "log_softmax and nll_loss, both in the list",
    "softmin": "softmax of the opposite",
    "gaussian_nll_loss": "a loss of logarithms, which PyTorch composes",
    "local_response_norm": "a power, which PyTorch composes",
    "normalize": "a norm, which PyTorch composes",
}
CPU_ONLY = {"avg_pool3d", "binary_cross_entropy", "trace", "cat", "stack"}
"""What PyTorch lists for the CPU alone."""
ALSO = {"concat": ("cat",), "div": ("rdiv",), "pow": ("rpow",)}
"""Samples under one name of what is listed under another."""
INSIDE = {"mean_centring", "power_normalization", "count_nonzero"}
"""Samples that add up, in float32, on the way to what they give in the dtype that came."""


def test_every_listed_operation_obeys() -> None:
    assert DECORATED == LISTED
    assert len(LISTED) == len(LOWER) + len(FLOAT32) + len(WIDEST)


@pytest.mark.torch
def test_the_lists_are_pytorchs() -> None:
    """From the macros in the header that PyTorch installs, read as text."""
    torch: Any = pytest.importorskip("torch")
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    if not header.exists():
        pytest.skip("this PyTorch came without its headers")
    text = header.read_text()
    macros = {
        "AT_FORALL_LOWER_PRECISION_FP": LOWER,
        "AT_FORALL_FP32": FLOAT32,
        "AT_FORALL_FP32_SET_OPT_DTYPE": FLOAT32,
        "AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE": FLOAT32,
        "AT_FORALL_PROMOTE": WIDEST,
    }
    theirs = {}
    for macro, names in macros.items():
        body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", text, re.DOTALL)
        assert body is not None, macro
        theirs |= dict.fromkeys(re.findall(r"(?:_|ADD_NS)\((?!ADD_NS)(\w+)", body[1]), names)
    for name, names in theirs.items():
        assert name not in LISTED or name in names, name
        public = hasattr(tg, name) or hasattr(tg.nn.functional, name)
        assert not public or name in LISTED, f"{name} is in PyTorch's lists"
    unknown = LISTED - theirs.keys() - OWN_NAMES.keys() - COMPOSED.keys() - CPU_ONLY
    assert not unknown


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The listed operations that a region met, with the list of each."""
    seen: list[tuple[str, list[str]]] = []
    within = autocasting.within

    def spy(region: Any, kind: list[str], function: Any, args: Any, kwargs: Any) -> Any:
        seen.append((function.__name__, kind))
        return within(region, kind, function, args, kwargs)

    monkeypatch.setattr(autocasting, "within", spy)
    return seen


FLOATING = [s for s in SAMPLES if any(x.dtype.kind == "f" for x in s.inputs)]


class TestEverySample:
    @pytest.mark.parametrize("given", ["float32", "bfloat16"])
    def test_has_the_dtypes_of_its_list(self, given: str, met: list[tuple[str, list[str]]]) -> None:
        for sample in FLOATING:
            outside = [y.dtype.name for y in run(sample, tensors_of(sample, "cpu", given))]
            met.clear()
            with tg.autocast("cpu"):
                inside = [y.dtype.name for y in run(sample, tensors_of(sample, "cpu", given))]
            names = {name for name, _ in met}
            if sample.name in INSIDE or not names:
                assert sample.name not in LISTED, sample
                assert inside == outside, sample
                continue
            assert names <= {sample.name, *ALSO.get(sample.name, ())}, sample
            kind = met[0][1]
            wanted = "bfloat16" if kind is LOWER else "float32" if kind is FLOAT32 else given
            assert inside == [wanted if name == given else name for name in outside], sample

    def test_leaves_float64_alone(self) -> None:
        for sample in FLOATING:
            if sample.name in LISTED:
                outside = run(sample, tensors_of(sample, "cpu"))
                with tg.autocast("cpu"):
                    inside = run(sample, tensors_of(sample, "cpu"))
                for a, b in zip(inside, outside, strict=True):
                    assert a.dtype == b.dtype, sample
                    np.testing.assert_array_equal(a.detach(), b.detach(), str(sample))
