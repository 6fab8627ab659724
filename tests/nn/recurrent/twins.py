"""A recurrent module of PyTorch's and ours with its weights, and what both make of an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
"""float64 through some steps; sums in another order."""


def drawn(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def twins(name: str, *args: Any, device: str = "cpu", **options: Any) -> tuple[Any, Any]:
    """PyTorch's module in float64, and ours with its state dict."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, dtype=torch.float64, **options)
    ours = getattr(nn, name)(*args, dtype=tg.float64, device=device, **options)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def flat(result: Any) -> list[Any]:
    """The tensors in nested tuples; of a packed sequence its data."""
    if hasattr(result, "batch_sizes"):
        return [result.data]
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in flat(part)]
    return [result]


def numpy(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(x.detach().cpu().numpy())


def with_gradients(library: Any, outputs: list[Any], leaves: list[Any], **place: Any) -> list[Any]:
    """Values, first and second gradients, each along one direction that is the same for both."""

    def direction(x: Any, seed: int) -> Any:
        return library.tensor(drawn(*x.shape, seed=seed), **place)

    grad = library.autograd.grad
    first = grad(outputs, leaves, [direction(y, 1) for y in outputs], create_graph=True)
    curved = [g for g in first if g.requires_grad]  # a gradient of relu's may be a constant
    second = grad(
        curved, leaves, [direction(g, 2) for g in curved], allow_unused=True, materialize_grads=True
    )
    return [numpy(x) for x in (*outputs, *first, *second)]


def assert_alike(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **TOLERANCE)
