"""Steps that make the calls of the last one again: what they must notice, and what they leave."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.problem import Trained
from tinygrad_bn import optim
from tinygrad_bn.optim.flat import Bucket, Run

pytest.importorskip("numba")

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"weight_decay": 0.1},
    "AdamW": {"amsgrad": True},
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {"initial_accumulator_value": 0.5},
    "Adamax": {},
    "Adadelta": {},
    "Lion": {},
    "RAdam": {"lr": 0.01},
}


def leave_out(trained: Trained) -> None:
    """A step in which one parameter has no gradient: from then on it counts for itself."""
    trained.loss()
    trained.params[1].grad = None
    trained.optimizer.step()


def option(name: str, value: Any) -> Callable[[Trained], None]:
    def change(trained: Trained) -> None:
        trained.optimizer.param_groups[0][name] = value

    return change


def load(trained: Trained) -> None:
    trained.optimizer.load_state_dict(copy.deepcopy(trained.optimizer.state_dict()))


def rebind(trained: Trained) -> None:
    trained.params[0].data = trained.params[0].detach() * 2


def in_bodies(trained: Trained) -> None:
    with tg.reference_kernels():
        trained.steps(1)


def scaled(trained: Trained) -> None:
    """A step that finds an infinity, and is taken back."""
    trained.loss()
    assert trained.params[0].grad is not None
    trained.params[0].grad[0, 0] = np.inf
    scaler = tg.amp.GradScaler(init_scale=1.0)
    scaler.scale(tg.ones(()))
    scaler.step(trained.optimizer)


CHANGES: dict[str, Callable[[Trained], None]] = {
    "nothing": lambda trained: None,
    "a learning rate": option("lr", 0.003),
    "weight decay": option("weight_decay", 0.25),
    "no weight decay": option("weight_decay", 0),
    "climbing": option("maximize", True),
    "a missing gradient": leave_out,
    "a state that is loaded": load,
    "a parameter elsewhere": rebind,
    "bodies instead of kernels": in_bodies,
    "a step taken back": scaled,
}


def trained_through(name: str, change: str, changes: int = 2) -> Trained:
    trained = Trained(name, **OPTIONS[name])
    for _ in range(changes):
        trained.steps(4)
        CHANGES[change](trained)
    trained.steps(4)
    return trained


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", OPTIONS)
def test_the_bits_are_those_of_steps_that_look_again(
    name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = trained_through(name, change)
    monkeypatch.setattr(Bucket, "repeat", lambda bucket: False)
    want = trained_through(name, change)
    for x, y in zip(got.values(), want.values(), strict=True):
        np.testing.assert_array_equal(x, y)
    states = (t.optimizer.state_dict()["state"] for t in (got, want))
    for one, other in zip(*(state.values() for state in states), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key].numpy(), other[key].numpy())


@pytest.mark.parametrize("name", OPTIONS)
def test_a_third_step_asks_no_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(name, **OPTIONS[name])
    trained.steps(2)
    monkeypatch.setattr(Run, "update", lambda *args, **flags: pytest.fail("asked again"))
    trained.steps(2)


def test_a_subclass_with_an_update_of_its_own_is_asked() -> None:
    class Counting(optim.Adam):
        asked = 0

        def update(self, run: Run) -> None:
            self.asked += 1
            super().update(run)

    p = tg.Parameter(tg.ones(3))
    optimizer = Counting([p])
    for _ in range(4):
        p.grad = tg.ones(3)
        optimizer.step()
    assert optimizer.asked == 4


def test_an_option_that_may_change_by_itself_is_read_at_every_step() -> None:
    p, rate = tg.Parameter(np.zeros(2)), tg.tensor(1.0)
    optimizer = optim.SGD([p], lr=rate)
    for step in range(5):
        rate.fill_(2.0**step)
        p.grad = tg.full_like(p, -1.0)
        optimizer.step()
    np.testing.assert_array_equal(p.tolist(), [31.0, 31.0])


def test_graphs_notice_repeated_steps() -> None:
    """A node that kept a parameter refuses when a repeated step has overwritten it."""
    p = tg.Parameter(tg.ones(3))
    optimizer = optim.Adam([p])
    for _ in range(4):
        loss = (p * p).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        with pytest.raises(tg.errors.GradientError):
            loss.backward()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_eager_and_compiled_steps_take_turns(name: str) -> None:
    """A program and a repeated step are the same calls on the same memory."""
    results = []
    for turns in ("eeee", "cccc", "ecec"):
        trained = Trained(name, **OPTIONS[name])

        def step(trained: Trained = trained) -> None:
            trained.loss()
            trained.optimizer.step()

        compiled = tg.compile(step)
        for turn in turns:
            for _ in range(4):
                (step if turn == "e" else compiled)()
        results.append(trained.values())
    for values in zip(*results, strict=True):
        for other in values[1:]:
            np.testing.assert_array_equal(values[0], other)
