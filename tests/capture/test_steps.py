"""Steps of many kinds, compiled and eager: the same results and the same state, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.errors import CaptureError
from tinygrad_bn.nn.functional import huber_loss, mse_loss

Made = tuple[Callable[[tg.Tensor, tg.Tensor], tg.Tensor], nn.Module]


def network(*hidden: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), *hidden, nn.Linear(8, 1))


def plain(model: nn.Module, *optimizers: Any) -> Made:
    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = mse_loss(model(x), t)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss

    return step, model


def gradient_penalty() -> Made:
    model = network(nn.BatchNorm1d(8), nn.Tanh())
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        x = x.detach().requires_grad_()
        y = model(x)
        (dx,) = tg.autograd.grad(y.sum(), x, create_graph=True)
        loss = mse_loss(y, t) + dx.square().sum()
        loss.backward()
        optimizer.step()
        return loss

    return step, model


def groups_cleared_at_the_end() -> Made:
    model: Any = network(nn.ReLU())
    first, last = model[0].parameters(), model[2].parameters()
    optimizer = optim.AdamW([{"params": first, "lr": 0.01}, {"params": last}], lr=1e-3)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        loss = mse_loss(model(x), t)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step, model


def gradients_set_to_zero() -> Made:
    model = network(nn.GroupNorm(2, 8), nn.ReLU())
    optimizer = optim.RMSprop(model.parameters(), lr=0.01)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = huber_loss(model(x), t)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        return loss

    return step, model


def hooks() -> Made:
    model: Any = network(nn.ReLU())
    model[0].weight.register_hook(lambda grad: grad * 0.5)
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    return plain(model, optim.SGD(model.parameters(), lr=0.01))


def tied_weights_with_a_penalty() -> Made:
    model: Any = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1))
    model[1].weight = model[0].weight
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = mse_loss(model(x), t)
        for p in model.parameters():
            loss = loss + 1e-3 * p.square().sum()
        loss.backward()
        optimizer.step()
        return loss

    return step, model


def reparametrized() -> Made:
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(6, 8)),
        nn.utils.spectral_norm(nn.Linear(8, 8)),
        nn.Linear(8, 1),
    )
    return plain(model, optim.SGD(model.parameters(), lr=0.01))


def other_norms() -> Made:
    model = network(
        nn.RMSNorm(8),
        nn.Unflatten(1, (4, 2)),
        nn.InstanceNorm1d(4, affine=True),
        nn.Flatten(),
        nn.BatchNorm1d(8, momentum=None),
    )
    return plain(model, optim.Adam(model.parameters(), lr=0.01))


def accumulated_statistics() -> Made:
    model = network(nn.BatchNorm1d(8), nn.ReLU())
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        with nn.utils.accumulate_statistics(model):
            for part in (slice(4), slice(4, 8)):
                loss = mse_loss(model(x[part]), t[part])
                loss.backward()
        optimizer.step()
        return loss

    return step, model


def two_optimizers() -> Made:
    model: Any = network(nn.ReLU())
    rest = [model[0].bias, *model[2].parameters()]
    return plain(model, optim.Muon([model[0].weight]), optim.SGD(rest, lr=0.1, momentum=0.9))


def in_float16() -> Made:
    model = network(nn.BatchNorm1d(8), nn.ReLU()).half()
    step, _ = plain(model, optim.Adam(model.parameters(), lr=0.01))
    return lambda x, t: step(x.half(), t.half()), model


def in_float64() -> Made:
    model = network(nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU()).double()
    step, _ = plain(model, optim.SGD(model.parameters(), lr=0.01))
    return lambda x, t: step(x.double(), t.double()), model


STEPS = [
    gradient_penalty,
    groups_cleared_at_the_end,
    gradients_set_to_zero,
    hooks,
    tied_weights_with_a_penalty,
    reparametrized,
    other_norms,
    accumulated_statistics,
    two_optimizers,
    in_float16,
    in_float64,
]


def data(count: int) -> list[tuple[tg.Tensor, tg.Tensor]]:
    rng = np.random.default_rng(0)
    shapes = (8, 6), (8, 1)
    return [
        tuple(tg.tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes)
        for _ in range(count)
    ]  # type: ignore[misc]


@pytest.mark.parametrize("reference", [False, True], ids=["kernels", "bodies"])
@pytest.mark.parametrize("make", STEPS, ids=lambda make: make.__name__)
def test_a_step_replays_bit_for_bit(make: Callable[[], Made], reference: bool, device: str) -> None:
    found: list[Any] = []
    for compiled in (False, True):
        tg.manual_seed(0)
        step, model = make()
        run = tg.compile(step) if compiled else step
        if reference:
            with tg.reference_kernels():
                losses = [run(x, t).item() for x, t in data(6)]
        else:
            losses = [run(x, t).item() for x, t in data(6)]
        found.append((losses, [x.cpu().numpy().copy() for x in model.state_dict().values()]))
    np.testing.assert_equal(found[0], found[1])


def test_a_line_search_is_refused(device: str) -> None:
    model = nn.Linear(6, 1)
    optimizer = optim.LBFGS(model.parameters())

    def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        def loss() -> tg.Tensor:
            optimizer.zero_grad()
            value = mse_loss(model(x), t)
            value.backward()
            return value

        return optimizer.step(loss)  # type: ignore[no-any-return]

    with pytest.raises(CaptureError, match="reads values"):
        tg.compile(step)(*data(1)[0])
