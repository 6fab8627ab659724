"""A layer beside PyTorch's of the same name: fifty steps of training, and what is left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn

TOLERANCE = 1e-10
"""float64's rounding, 1e-16, of numbers up to 100, which fifty steps add up and statistics of a few
values amplify.
"""


def assert_trains_like_pytorch(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """Forty steps in training and ten in evaluation agree in outputs, gradients and state, from
    PyTorch's own state dict on.
    """
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(*arguments, **options).double()
    ours = getattr(nn, name)(*arguments, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    rng = np.random.default_rng([1, *shape])
    for step in range(50):
        for layer in (ours, theirs):
            layer.train(step < 40)
        x, dy = rng.normal(2, 3, shape), rng.normal(size=shape)
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        y.backward(tg.tensor(dy))
        z.backward(torch.tensor(dy))
        assert_close(y.detach(), z.detach())
        assert_close(a.grad, b.grad)
        with tg.no_grad(), torch.no_grad():
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert_close(p.grad, q.grad)
                p.sub_(p.grad * 0.01)
                q.sub_(q.grad * 0.01)
                p.grad = q.grad = None
        for key, value in theirs.state_dict().items():
            assert_close(ours.state_dict()[key], value)


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=TOLERANCE, atol=TOLERANCE)
