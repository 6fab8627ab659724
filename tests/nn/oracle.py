"""Losses held against PyTorch's: inputs, values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.nn import functional as F

REDUCTIONS = ("none", "mean", "sum")


def drawn(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_as_pytorch(
    name: str, *inputs: np.ndarray[Any, Any], rtol: float = 1e-10, **options: Any
) -> None:
    """The value and the gradient of the first input agree; arrays among the options are tensors."""
    torch = pytest.importorskip("torch")
    results = []
    for library, function in ((tg, F), (torch, torch.nn.functional)):
        x, *rest = (library.tensor(a) for a in inputs)
        x.requires_grad_()
        given = {
            k: library.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()
        }
        y = getattr(function, name)(x, *rest, **given)
        weights = drawn(*y.shape, seed=3)
        y.backward(library.tensor(weights))
        results.append((y.detach().numpy(), x.grad.numpy()))
    for ours, theirs in zip(*results, strict=True):
        # float64; sums of a few numbers in another order
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-13)
