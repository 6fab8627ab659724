"""Every operation of the library replays as it runs, gradients included, or refuses by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.ops.samples import Sample, all_samples
from tinygrad_bn.errors import CaptureError

SAMPLES = all_samples()

SHAPE, VALUES = "needs the values|selects by a mask", "reads values"
REFUSING = {
    ("getitem", "mask"): SHAPE,
    ("getitem", "mixed"): SHAPE,
    ("masked_select", ""): SHAPE,
    ("nonzero", ""): SHAPE,
    ("where", ""): SHAPE,
    ("allclose", ""): VALUES,
    ("equal", ""): VALUES,
    ("mean_centring", "masked"): VALUES,
    ("power_normalization", "masked"): VALUES,
    ("repeat_interleave", "each"): VALUES,
    ("repeat_interleave", "none"): VALUES,
    ("tensor_split", "tensor"): VALUES,
}
"""Operations whose values decide a shape, or are Python's to see, and how they are refused."""


def refusal_of(sample: Sample) -> str | None:
    """How the sample is refused; ``where`` of a condition alone is ``nonzero``."""
    if sample.name == "where" and len(sample.inputs) > 1:
        return None
    return REFUSING.get((sample.name, sample.notes))


def arguments(sample: Sample, seed: int, device: str) -> list[tg.Tensor]:
    """The sample's inputs; another seed permutes floats, which keeps them within any domain."""
    tensors = []
    for x in sample.inputs:
        values = np.random.default_rng(seed).permutation(x, axis=-1) if seed and x.ndim else x
        tensors.append(tg.tensor(values if x.dtype.kind == "f" else x, device=device))
    return tensors


def outputs_of(result: Any) -> list[np.ndarray[Any, Any]]:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [x.detach().cpu().numpy().copy() for x in parts if isinstance(x, tg.Tensor)]


def step_of(sample: Sample) -> Any:
    """A step that calls the operation, and takes gradients where it has any."""

    def step(*inputs: tg.Tensor) -> Any:
        chosen = sample.gradient_inputs
        wanted = [
            x.detach().requires_grad_(
                sample.differentiable and x.is_floating_point() and (chosen is None or i in chosen)
            )
            for i, x in enumerate(inputs)
        ]
        result = sample.function(tg, *wanted)
        parts = list(result) if isinstance(result, (tuple, list)) else [result]
        roots = [y for y in parts if isinstance(y, tg.Tensor) and y.requires_grad]
        grads: Any = ()
        if roots:
            leaves = [x for x in wanted if x.requires_grad]
            seeds = [y.detach() * 0.5 + 1 for y in roots]
            grads = tg.autograd.grad(roots, leaves, seeds, materialize_grads=True)
        return *(y.detach() for y in parts if isinstance(y, tg.Tensor)), *grads

    return step


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_an_operation_replays_bit_for_bit(sample: Sample, device: str) -> None:
    step = step_of(sample)
    compiled = tg.compile(step)
    refused = refusal_of(sample)
    if refused is not None:
        with pytest.raises(CaptureError, match=refused) as caught:
            compiled(*arguments(sample, 0, device))
        assert "tests/ops/samples/" in str(caught.value)  # the user's line, and not the library's
        return
    for seed in (0, 1, 2):
        tg.manual_seed(seed)
        expected = outputs_of(step(*arguments(sample, seed, device)))
        tg.manual_seed(seed)
        found = outputs_of(compiled(*arguments(sample, seed, device)))
        assert len(found) == len(expected)
        for x, y in zip(found, expected, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)  # the same kernels on the same bits
    assert compiled.program is not None
    assert str(compiled.program).startswith("program of")
