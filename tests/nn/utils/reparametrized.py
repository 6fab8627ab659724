"""Layers whose weight is reparametrized: what they take, and their training beside PyTorch's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.utils.checkpoint import checkpoint

LAYERS = {
    "Linear": ((5, 4), lambda rng: (rng.normal(size=(6, 5)),)),
    "Bilinear": ((3, 2, 4), lambda rng: (rng.normal(size=(6, 3)), rng.normal(size=(6, 2)))),
    "Embedding": ((7, 4), lambda rng: (rng.integers(0, 7, (3, 5)),)),
}
"""What each layer is made with, and arrays to call it with."""

TOLERANCE = 1e-10
"""float64's rounding, 1e-16, which fifty steps with momentum amplify; vectors of power iteration
converge and forget it.
"""


def layer_of(library: Any, name: str) -> Any:
    """A layer in float64, of our library (``nn``) or of PyTorch's (``torch.nn``)."""
    return getattr(library, name)(*LAYERS[name][0]).double()


def assert_close(found: Any, expected: Any, message: str = "") -> None:
    found, expected = (np.asarray(x.detach().cpu().numpy()) for x in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=message)


def assert_trains_like_pytorch(name: str, ours: Any, theirs: Any, keys: dict[str, str]) -> None:
    """Forty steps of SGD with momentum and ten evaluations agree in outputs, gradients of inputs
    and parameters, and state, from PyTorch's own state dict on; ``keys`` holds ours by theirs.
    """
    import torch

    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    options = {"lr": 0.05, "momentum": 0.9}
    optimizers = (
        tg.optim.SGD(ours.parameters(), **options),
        torch.optim.SGD(theirs.parameters(), **options),
    )
    rng = np.random.default_rng(3)
    for step in range(50):
        for module in (ours, theirs):
            module.train(step < 40)
        arrays = LAYERS[name][1](rng)
        floats = arrays[0].dtype.kind == "f"
        mine, other = (
            [library.tensor(x, requires_grad=floats) for x in arrays] for library in (tg, torch)
        )
        y, z = ours(*mine), theirs(*other)
        assert_close(y, z)
        dy = rng.normal(size=tuple(y.shape))
        y.backward(tg.tensor(dy))
        z.backward(torch.tensor(dy))
        if floats:
            for a, b in zip(mine, other, strict=True):
                assert_close(a.grad, b.grad)
        parameters = dict(theirs.named_parameters())
        for key, own in keys.items():
            if key in parameters:
                assert_close(ours.get_parameter(own).grad, parameters[key].grad, own)
        for optimizer in optimizers:
            if step < 40:
                optimizer.step()
            optimizer.zero_grad()
        state = theirs.state_dict()
        assert sorted(keys[key] for key in state) == sorted(ours.state_dict())
        for key, value in state.items():
            assert_close(ours.state_dict()[keys[key]], value, key)


def copies_of(module: nn.Module) -> list[nn.Module]:
    """A deep copy and one that was pickled."""
    return [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]


def assert_survives(module: nn.Module, x: tg.Tensor) -> None:
    """Copies, pickles, state dicts and casts compute what the module does in evaluation, and have
    memory of their own; nothing depends on what was computed before.
    """
    expected = module.eval()(x).tolist()
    tensors = [*module.parameters(), *module.buffers()]
    for twin in copies_of(module):
        assert twin(x).tolist() == expected
        assert list(twin.state_dict()) == list(module.state_dict())
        for p in (*twin.parameters(), *twin.buffers()):
            assert not any(p.backend.overlap(p.array, q.array) for q in tensors)
        with tg.no_grad():
            for p in twin.parameters():
                p.overwrite(2 * p.array + 1)
        assert twin(x).tolist() != expected  # computed from the new values at once
        assert module(x).tolist() == expected
        twin.load_state_dict(module.state_dict())
        assert twin(x).tolist() == expected
        assert twin.half().weight.dtype == tg.float16
        assert all(p.dtype == tg.float16 for p in twin.parameters())
        assert twin.double().weight.dtype == tg.float64


def assert_checkpoints(wrap: Any) -> None:
    """The gradients of a layer are the same bits when its forward runs again for them."""
    x = tg.tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True)
    grads = []
    for run in (lambda m, x: m(x), checkpoint):
        tg.manual_seed(0)
        module = wrap(nn.Linear(3, 2).double())
        run(module, x).square().sum().backward()
        grads.append([p.grad.tolist() for p in module.parameters()])
    assert grads[0] == grads[1]
