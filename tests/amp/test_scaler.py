"""`GradScaler`: steps left out leave nothing behind, and nobody waits to learn that they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic
from tests.two_backends import only_stand_in
from tinygrad_bn import nn, optim
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError
from tinygrad_bn.nn.utils import clip_grad_norm_

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "maximize": lambda p: optim.Adam(p, lr=1e-3, maximize=True),
    "Adam": lambda p: optim.Adam(p, lr=1e-2, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=1e-2),
    "Adadelta": lambda p: optim.Adadelta(p),
    "Adagrad": lambda p: optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.5),
    "Adamax": lambda p: optim.Adamax(p),
    "LAMB": lambda p: optim.LAMB(p),
    "LARS": lambda p: optim.LARS(p, momentum=0.9),
    "Lion": lambda p: optim.Lion(p),
    "NAdam": lambda p: optim.NAdam(p),
    "RAdam": lambda p: optim.RAdam(p),
    "RMSprop": lambda p: optim.RMSprop(p, centered=True, momentum=0.5),
    "SGDScheduleFree": lambda p: optim.SGDScheduleFree(p, lr=0.1, warmup_steps=3),
    "AdamWScheduleFree": lambda p: optim.AdamWScheduleFree(p, lr=1e-2, warmup_steps=3),
}


class Training:
    """A weight and a bias that learn to give zeros, scaled."""

    def __init__(
        self, device: str, make: Callable[[Any], Any] = OPTIMIZERS["Adam"], **options: Any
    ) -> None:
        rng = np.random.default_rng(0)
        self.w = tg.tensor(rng.standard_normal((4, 3)), dtype="float32", device=device)
        self.b = tg.tensor(rng.standard_normal(3), dtype="float32", device=device)
        self.params = [self.w.requires_grad_(), self.b.requires_grad_()]
        self.optimizer = make(self.params)
        self.scaler = tg.amp.GradScaler(device, **{"init_scale": 64.0, **options})
        self.step: Callable[[tg.Tensor], Any] = self.eager

    def backward(self, x: tg.Tensor) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale((x @ self.w + self.b).square().mean()).backward()

    def eager(self, x: tg.Tensor) -> None:
        self.backward(x)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def values(self) -> list[Any]:
        """Parameters, and what the optimizer keeps, other than options."""
        state = self.optimizer.state_dict()["state"]
        kept = [state[i][name] for i in sorted(state) for name in sorted(state[i])]
        return [x.tolist() if isinstance(x, tg.Tensor) else x for x in [*self.params, *kept]]


def batch(device: str, seed: int, bad: float | None = None) -> tg.Tensor:
    x = np.random.default_rng(seed).standard_normal((5, 4)).astype("float32")
    if bad is not None:
        x[1, 2] = bad
    return tg.tensor(x, device=device)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("how", ["cpu", "cuda:1", "cpu compiled"])
def test_a_step_left_out_leaves_nothing_behind(name: str, how: str) -> None:
    """Beside a twin that never saw the infinite batches: the same bits, from the first step on."""
    device, _, compiled = how.partition(" ")
    one, other = (Training(device, OPTIMIZERS[name]) for _ in range(2))
    if compiled:
        one.step = tg.compile(one.step)
    for seed, bad in enumerate([np.inf, None, None, np.nan, -np.inf, None, None]):
        one.step(batch(device, seed, bad))
        if bad is None:
            other.eager(batch(device, seed))
        if seed:
            assert one.values() == other.values()
    assert one.scaler.get_scale() == 64.0 / 8
    assert other.scaler.get_scale() == 64.0


class TestScales:
    def test_it_grows_and_falls(self, device: str) -> None:
        training = Training(device, growth_interval=2, growth_factor=4.0, backoff_factor=0.25)
        seen = []
        for seed, bad in enumerate([None, None, np.inf, None, np.nan, None, None]):
            training.step(batch(device, seed, bad))
            seen.append((training.scaler.get_scale(), tracker(training.scaler)))
        assert seen == [(64, 1), (256, 0), (64, 0), (64, 1), (16, 0), (16, 1), (64, 0)]

    def test_it_does_not_grow_to_infinity(self, device: str) -> None:
        training = Training(device, init_scale=2.0**127, growth_interval=1)
        training.w.grad, training.b.grad = tg.zeros_like(training.w), tg.zeros_like(training.b)
        training.scaler.step(training.optimizer)
        training.scaler.update()
        assert training.scaler.get_scale() == 2.0**127

    def test_it_is_set(self, device: str) -> None:
        scaler = tg.amp.GradScaler(device)
        for value in (8.0, tg.tensor(16.0, device=device), tg.tensor(4.0, dtype="float64")):
            scaler.update(value)
            assert scaler.get_scale() == float(value)

    def test_gradients_come_out_as_without(self, device: str) -> None:
        """Powers of two come and go without a trace."""
        training = Training(device, init_scale=2.0**20)
        training.backward(batch(device, 0))
        assert training.w.grad is not None
        training.scaler.unscale_(training.optimizer)
        with_scale = training.w.grad.tolist()
        training.optimizer.zero_grad()
        (batch(device, 0) @ training.w + training.b).square().mean().backward()
        assert with_scale == training.w.grad.tolist()

    def test_several_losses(self, device: str) -> None:
        scaler = tg.amp.GradScaler(device, init_scale=4.0)
        one = tg.ones((), device=device)
        a, (b, c) = scaler.scale((one, [one * 2, one.half()]))
        assert (a.item(), b.item(), c.item()) == (4, 8, 4)

    def test_small_gradients_live(self) -> None:
        """1e-6 times 1e-3 is nothing in float16."""
        pytest.importorskip("ml_dtypes")
        for enabled, expected in ((False, 0.0), (True, 1e-9)):
            w = tg.tensor([[1e-3]], requires_grad=True)
            scaler = tg.amp.GradScaler("cpu", enabled=enabled)
            optimizer = optim.SGD([w], lr=1.0)
            with tg.autocast("cpu", dtype=tg.float16):
                loss = (tg.tensor([[1e-3]]) @ w).sum() * 1e-6
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            assert w.grad is not None
            # 2⁻¹⁰ a rounding to eleven bits, of which there are three
            assert w.grad.item() == pytest.approx(expected, rel=3 * 2.0**-10, abs=1e-20)


def tracker(scaler: tg.amp.GradScaler) -> int:
    return int(scaler.state_dict()["_growth_tracker"])


@only_stand_in
class TestWaiting:
    @pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
    @pytest.mark.parametrize("clip", [False, True])
    def test_nobody_waits_for_the_device(self, device: str, clip: bool) -> None:
        training = Training(device)
        good, bad = batch(device, 0), batch(device, 1, np.inf)
        for x in (good, bad):  # the first step brings options there
            training.step(x)
        with count_traffic() as seen:
            for x in (good, bad, good):
                training.backward(x)
                if clip:
                    training.scaler.unscale_(training.optimizer)
                    clip_grad_norm_(training.params, 1.0)
                training.scaler.step(training.optimizer)
                training.scaler.update()
        assert (seen.d2h, seen.synchronizations) == (0, 0)
        assert training.scaler.get_scale() == 16.0

    def test_an_optimizer_of_ones_own_is_waited_for(self) -> None:
        training = Training("cuda", Plain)
        before = training.w.tolist()
        training.step(batch("cuda", 0, np.inf))
        assert training.w.tolist() == before
        training.step(batch("cuda", 0))
        assert training.w.tolist() != before


class Plain(optim.Optimizer):
    """Gradient descent as a user would write it."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with tg.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad
        return "stepped"


class TestSeveral:
    def test_optimizers_are_left_out_each_for_itself(self, device: str) -> None:
        a, b = (tg.ones(3, device=device, requires_grad=True) for _ in range(2))
        scaler = tg.amp.GradScaler(device, init_scale=4.0)
        optimizers = [optim.SGD([p], lr=0.5) for p in (a, b)]
        for p, value in ((a, np.inf), (b, 4.0)):
            p.grad = tg.full((3,), float(value), device=device)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        assert (a.tolist(), b.tolist()) == ([1.0] * 3, [0.5] * 3)
        assert scaler.get_scale() == 2.0

    @pytest.mark.parametrize("bad", [0, 1, 2])
    def test_one_infinite_gradient_among_several_groups(self, bad: int, device: str) -> None:
        params = [tg.ones(2, device=device, requires_grad=True) for _ in range(3)]
        optimizer = optim.SGD([{"params": [p]} for p in params], lr=0.5)
        for number, p in enumerate(params):
            p.grad = tg.full((2,), np.inf if number == bad else 1.0, device=device)
        tg.amp.GradScaler(device).step(optimizer)
        assert all(p.tolist() == [1.0, 1.0] for p in params)

    @only_stand_in
    def test_parameters_on_several_devices(self) -> None:
        """One infinite gradient keeps all parameters of the optimizer where they are."""
        places = ["cpu", "cuda:0", "cuda:1"]
        for bad in (*places, None):
            params = [tg.ones(2, device=place, requires_grad=True) for place in places]
            scaler = tg.amp.GradScaler("cuda:1", init_scale=2.0)
            optimizer = optim.Adam(params, lr=0.5)
            for p in params:
                p.grad = tg.full((2,), np.inf if p.device == bad else 1.0, device=p.device)
            scaler.step(optimizer)
            scaler.update()
            assert all((p.tolist() == [1.0, 1.0]) is (bad is not None) for p in params)
            assert scaler.get_scale() == (2.0 if bad is None else 1.0)

    def test_parameters_without_a_gradient(self, device: str) -> None:
        training = Training(device)
        training.w.grad = tg.full((4, 3), 64.0, device=device)
        before = training.b.tolist()
        training.scaler.step(training.optimizer)
        assert training.b.tolist() == before
        assert training.w.grad.tolist()[0][0] == 1.0

    def test_gradients_that_are_not_where_the_optimizer_keeps_them(self, device: str) -> None:
        one, other = (Training(device, OPTIMIZERS["SGD"]) for _ in range(2))
        one.backward(batch(device, 0))
        assert one.w.grad is not None
        one.w.grad = one.w.grad.clone()
        one.scaler.step(one.optimizer)
        other.eager(batch(device, 0))
        assert one.w.tolist() == other.w.tolist()


class TestRefusals:
    def test_calls_out_of_order(self, device: str) -> None:
        training = Training(device)
        scaler, optimizer = training.scaler, training.optimizer
        with pytest.raises(StateError, match="before update"):
            scaler.update()
        with pytest.raises(ArgumentError, match="have gradients, got none"):
            scaler.step(optimizer)
        training.backward(batch(device, 0))
        scaler.unscale_(optimizer)
        with pytest.raises(StateError, match="once between updates, got it again"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        with pytest.raises(StateError, match="once between updates"):
            scaler.step(optimizer)
        with pytest.raises(StateError, match=r"before step\(\), got it after"):
            scaler.unscale_(optimizer)
        scaler.update()
        training.step(batch(device, 0))

    def test_gradients_of_float16(self, device: str) -> None:
        p = tg.ones(2, dtype=tg.float16, device=device, requires_grad=True)
        p.grad = tg.ones(2, dtype=tg.float16, device=device)
        with pytest.raises(DtypeError, match="wider than float16"):
            tg.amp.GradScaler(device).unscale_(optim.SGD([p], lr=0.1))
        assert p.grad.tolist() == [1.0, 1.0]

    def test_closures(self) -> None:
        training = Training("cpu")
        training.backward(batch("cpu", 0))
        for options in ({"closure": lambda: 0}, {"closure": None}):
            with pytest.raises(ArgumentError, match="without a closure"):
                training.scaler.step(training.optimizer, **options)

    @pytest.mark.parametrize(
        "options",
        [
            {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"backoff_factor": 0.0},
            {"growth_interval": 0}, {"growth_interval": 2.5},
        ],
    )  # fmt: skip
    def test_schedules_that_go_nowhere(self, options: dict[str, Any]) -> None:
        ((name, value),) = options.items()
        with pytest.raises(ArgumentError, match=f"expected {name}"):
            tg.amp.GradScaler("cpu", **options)
        scaler = tg.amp.GradScaler("cpu")
        with pytest.raises(ArgumentError, match=f"expected {name}"):
            getattr(scaler, f"set_{name}")(value)

    def test_what_is_not_scaled(self) -> None:
        with pytest.raises(DtypeError, match="tensors to scale, got float"):
            tg.amp.GradScaler("cpu").scale(1.0)


class TestState:
    def test_it_is_saved_and_goes_on(self, device: str) -> None:
        training = Training(device, growth_interval=3)
        training.step(batch(device, 0))
        saved = training.scaler.state_dict()
        assert saved == {
            "scale": 64.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3,
            "_growth_tracker": 1,
        }  # fmt: skip
        again = Training(device)
        again.scaler.load_state_dict(saved)
        for seed in (1, 2):
            again.step(batch(device, seed))
        assert again.scaler.get_scale() == 128.0

    def test_a_foreign_one_changes_nothing(self) -> None:
        scaler = tg.amp.GradScaler("cpu", init_scale=8.0)
        for wrong in ({}, {"scale": 2.0}):
            with pytest.raises(StateError, match="expected the keys"):
                scaler.load_state_dict(wrong)
        with pytest.raises(ArgumentError):
            scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0, "growth_factor": 0.5})
        assert scaler.get_scale() == 8.0

    def test_copies(self, device: str) -> None:
        scaler = tg.amp.GradScaler(device, init_scale=8.0, growth_interval=7)
        for again in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
            assert again.state_dict() == scaler.state_dict()
            again.update(2.0)
        assert scaler.get_scale() == 8.0

    def test_not_enabled(self, device: str) -> None:
        training = Training(device, enabled=False)
        scaler = training.scaler
        loss = tg.ones((), device=device)
        assert scaler.scale(loss) is loss
        assert (scaler.get_scale(), scaler.is_enabled(), scaler.state_dict()) == (1.0, False, {})
        scaler.load_state_dict({})
        before = training.w.tolist()
        training.step(batch(device, 0))
        assert training.w.tolist() != before

    def test_its_schedule_may_change(self) -> None:
        scaler = tg.amp.GradScaler("cpu")
        scaler.set_growth_factor(3.0)
        scaler.set_backoff_factor(0.25)
        scaler.set_growth_interval(5)
        found = (
            scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()
        )  # fmt: skip
        assert found == (3.0, 0.25, 5)


def test_a_model_under_autocast_learns_with_float16(device: str) -> None:
    """All of it together, on either device: the loss falls as in float32."""
    ends = []
    for enabled in (False, True):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, 16, device=device), nn.BatchNorm1d(16, device=device), nn.ReLU(),
            nn.Linear(16, 1, device=device),
        )  # fmt: skip
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        scaler = tg.amp.GradScaler(device, enabled=enabled)
        x = tg.randn(64, 8, device=device)
        y = (x[:, :1] * x[:, 1:2]).sign()
        for _ in range(60):
            with tg.autocast(x.device.type, dtype=tg.float16, enabled=enabled):
                loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(loss.item())
    assert ends[1] == pytest.approx(ends[0], rel=0.05)  # roundings of 2⁻¹¹ over 60 steps
    assert ends[0] < 0.5
