"""Compiled training is eager training, bit for bit, whatever changes on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.optim import lr_scheduler

Batch = tuple[tg.Tensor, tg.Tensor]


def batches(count: int, n: int = 32, seed: int = 0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [
        (
            tg.tensor(rng.standard_normal((n, 16)).astype("f4")),
            tg.tensor(rng.integers(0, 4, n)),
        )
        for _ in range(count)
    ]


def here() -> str:
    return tg.config.get_default_device()


def network(dropout: float = 0.1) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(32, 24),
        nn.LayerNorm(24),
        nn.GELU(),
        nn.Linear(24, 4),
    )


class Training:
    """One model in training, eager or compiled, from the same start."""

    def __init__(
        self, compiled: bool, make: Callable[[Any], Any] | None = None, clip: bool = True
    ) -> None:
        tg.manual_seed(5)
        self.model = network()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.generator = tg.Generator(here()).manual_seed(1)
        params = self.model.parameters()
        self.optimizer = optim.Adam(params, lr=1e-2) if make is None else make(params)
        cycles = {"betas", "momentum"} & self.optimizer.defaults.keys()
        self.scheduler = (
            lr_scheduler.OneCycleLR(self.optimizer, max_lr=1e-2, total_steps=20_000)
            if cycles and make is None
            else lr_scheduler.CosineAnnealingLR(self.optimizer, 2000)
        )
        self.clip = clip
        self.run = tg.compile(self.step) if compiled else self.step

    def step(self, x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), t)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        self.scheduler.step()
        return loss

    def state(self) -> list[np.ndarray[Any, Any]]:
        found = [x.cpu().numpy().copy() for x in self.model.state_dict().values()]
        for entry in self.optimizer.state_dict()["state"].values():
            found += [x.cpu().numpy().copy() for x in entry.values() if isinstance(x, tg.Tensor)]
        return found


def both(**options: Any) -> tuple[Training, Training]:
    return Training(False, **options), Training(True, **options)


def same(a: Training, b: Training) -> None:
    for x, y in zip(a.state(), b.state(), strict=True):
        np.testing.assert_array_equal(x, y)  # the same kernels in the same order
    assert a.scheduler.get_last_lr() == b.scheduler.get_last_lr()


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda p: optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=1e-2),
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=1e-2),
    "adadelta": lambda p: optim.Adadelta(p),
    "adamax": lambda p: optim.Adamax(p),
    "nadam": lambda p: optim.NAdam(p),
    "radam": lambda p: optim.RAdam(p),
    "lion": lambda p: optim.Lion(p),
    "lamb": lambda p: optim.LAMB(p),
    "lars": lambda p: optim.LARS(p),
    "maximize": lambda p: optim.SGD(p, lr=1e-4, maximize=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_eager_ones_bit_for_bit(name: str, device: str) -> None:
    eager, compiled = both(make=OPTIMIZERS[name])
    for x, t in batches(50 if device == "cpu" else 6):  # the emulator of a GPU is slow
        assert eager.run(x, t).item() == compiled.run(x, t).item()
    same(eager, compiled)


def test_a_last_smaller_batch_and_other_dtypes_are_traced_by_themselves(device: str) -> None:
    eager, compiled = both()
    data = [*batches(3), *batches(1, 7), *batches(3, seed=1), *batches(1, 7, seed=2)]
    for x, t in [*data, *((x, t.to(tg.int32)) for x, t in data)]:
        assert eager.run(x, t).item() == compiled.run(x, t).item()
    same(eager, compiled)


def test_learning_rates_and_options_are_seen(device: str) -> None:
    eager, compiled = both()
    for i, (x, t) in enumerate(batches(30)):
        for training in (eager, compiled):
            group = training.optimizer.param_groups[0]
            if i == 5:
                group["lr"] = 0.5
            if i == 10:
                group["betas"] = (0.5, 0.9)
            if i == 15:
                group["weight_decay"] = 0.1
            if i == 20:
                group["maximize"] = True
            training.run(x, t)
    same(eager, compiled)


def test_modes_momenta_and_freezing_are_seen(device: str) -> None:
    eager, compiled = both()
    for i, (x, t) in enumerate(batches(36)):
        for training in (eager, compiled):
            model: Any = training.model
            if i % 4 == 2:
                model.train(i % 8 == 2)
            if i == 9:
                model[1].momentum = 0.5
            if i == 13:
                model[3].p = 0.5
            if i == 17:
                model[0].requires_grad_(False)
            if i == 21:
                model[1].freeze()
            if i == 25:
                model[0].requires_grad_(True)
                model[1].unfreeze()
            if i == 29:
                model[5].weight.data = model[5].weight.data * 0.5
            if i == 33:
                training.optimizer.zero_grad()
            training.run(x, t)
    same(eager, compiled)


def test_state_that_is_loaded_is_trained_on(device: str) -> None:
    eager, compiled = both()
    kept: list[Any] = []
    for i, (x, t) in enumerate(batches(12)):
        for training in (eager, compiled):
            if i == 4:
                model = {k: v.clone() for k, v in training.model.state_dict().items()}
                state = training.optimizer.state_dict()
                copies = {
                    p: {k: v.clone() for k, v in entry.items()}
                    for p, entry in state["state"].items()
                }
                groups = [dict(group) for group in state["param_groups"]]
                kept.append((training, model, {"state": copies, "param_groups": groups}))
            if i == 8:
                _, model, state = next(k for k in kept if k[0] is training)
                training.model.load_state_dict(model)
                training.optimizer.load_state_dict(state)
            training.run(x, t)
    same(eager, compiled)


@pytest.mark.parametrize("inside", [True, False], ids=["in the step", "outside"])
@pytest.mark.parametrize("every", [1, 3], ids=["each step", "every third"])
def test_gradients_accumulate_as_ever(inside: bool, every: int, device: str) -> None:
    """With an optimizer, and for leaves that have none."""
    found = []
    for compiled in (False, True):
        tg.manual_seed(3)
        model = nn.Linear(16, 4)
        model.bias.requires_grad_(True)
        optimizer = optim.SGD([model.weight], lr=0.1)

        def step(
            x: tg.Tensor, t: tg.Tensor, clear: bool, model: Any = model, optimizer: Any = optimizer
        ) -> Any:
            if clear:
                model.zero_grad()
            loss = nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        seen = []
        for i, (x, t) in enumerate(batches(9)):
            clear = i % every == 0
            if clear and not inside:
                model.zero_grad()
            run(x, t, clear and inside)
            seen.append(
                [model.weight.grad.cpu().numpy().copy(), model.bias.grad.cpu().numpy().copy()]
            )
        found.append((seen, model.weight.detach().cpu().numpy().copy()))
    np.testing.assert_equal(found[0], found[1])


def test_a_gradient_that_is_kept_stays_as_it_was(device: str) -> None:
    _, compiled = both()
    data = batches(5)
    for x, t in data[:3]:
        compiled.run(x, t)
    kept = compiled.model[0].weight.grad
    before = kept.cpu().numpy().copy()
    compiled.run(*data[3])
    np.testing.assert_array_equal(kept.cpu().numpy(), before)
    assert (compiled.model[0].weight.grad.cpu().numpy() != before).any()


def test_averages_checkpoints_and_plateaus_are_part_of_a_step(device: str) -> None:
    found = []
    for compiled in (False, True):
        tg.manual_seed(2)
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
        average = optim.averaging.EMA(model, 0.9)

        def step(
            x: tg.Tensor,
            t: tg.Tensor,
            model: Any = model,
            optimizer: Any = optimizer,
            plateau: Any = plateau,
            average: Any = average,
        ) -> Any:
            optimizer.zero_grad()
            hidden = tg.utils.checkpoint.checkpoint(model[:4], x)
            loss = nn.functional.cross_entropy(model[4:](hidden), t)
            loss.backward()
            optimizer.step()
            plateau.step(loss.detach())
            average.update_parameters(model)
            return loss.detach()

        run = tg.compile(step) if compiled else step
        losses = [run(x, t).item() for x, t in batches(20)]
        states = [x.cpu().numpy().copy() for m in (model, average) for x in m.state_dict().values()]
        found.append((losses, states, optimizer.param_groups[0]["lr"]))
    np.testing.assert_equal(found[0], found[1])


def test_loops_in_threads_do_not_meet(device: str) -> None:
    alone = [Training(False) for _ in range(3)]
    beside = [Training(True) for _ in range(3)]
    data = batches(30 if device == "cpu" else 5)
    for training in alone:
        for x, t in data:
            training.run(x, t)
    errors: list[BaseException] = []

    def train(training: Training) -> None:
        try:
            for x, t in data:
                training.run(x, t)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(training,)) for training in beside]
    threads.append(threading.Thread(target=train, args=(extra := Training(False),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for a, b in zip([*alone, alone[0]], [*beside, extra], strict=True):
        same(a, b)


def test_a_model_and_a_function_may_be_compiled(device: str) -> None:
    model = network().eval()
    compiled = tg.compile(model)
    assert next(iter(compiled.parameters())) is model[0].weight
    with tg.no_grad():
        for n in (1, 8, 8, 1):
            ((x, _),) = batches(1, n, seed=n)
            np.testing.assert_array_equal(compiled(x).cpu().numpy(), model(x).cpu().numpy())

    @tg.compile
    def outputs(x: tg.Tensor, *, scale: float) -> dict[str, Any]:
        return {"same": x, "pair": (x * scale, 3), "none": None}

    for scale in (2.0, 2.0, 3.0):
        found = outputs(x, scale=scale)
        assert found["same"] is x
        assert found["pair"][1] == 3
        assert found["none"] is None
        np.testing.assert_array_equal(
            found["pair"][0].cpu().numpy(), x.cpu().numpy() * np.float32(scale)
        )


def test_results_are_the_callers_to_keep(device: str) -> None:
    double = tg.compile(lambda x: x * 2)
    first = double(tg.tensor([1.0, 2.0]))
    second = double(tg.tensor([3.0, 4.0]))
    third = double(tg.tensor([5.0, 6.0]))
    assert [x.tolist() for x in (first, second, third)] == [[2, 4], [6, 8], [10, 12]]


@pytest.mark.slow
def test_five_hundred_steps_on_digits_give_eagers_curve_of_losses() -> None:
    x, t = tg.data.datasets.digits().train.tensors
    curves = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(x.shape[1], 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
        )
        optimizer = optim.Adam(model.parameters(), lr=1e-3)

        def step(x: tg.Tensor, t: tg.Tensor, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        order = np.random.default_rng(0)
        curve = []
        for _ in range(500):
            chosen = tg.tensor(order.integers(0, len(x), 64))
            curve.append(run(x[chosen], t[chosen]).item())
        curves.append(curve)
    assert curves[0] == curves[1]
    assert curves[1][-1] < 0.1 * curves[1][0]
