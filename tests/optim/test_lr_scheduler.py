"""Learning-rate schedules: over 100 epochs as PyTorch's, and what they do besides."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import optim
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError
from tinygrad_bn.optim import lr_scheduler

Make = Callable[[Any, Any], Any]
"""A schedule from a library's module of schedules and an optimizer."""

METRICS = np.abs(np.random.default_rng(0).standard_normal(100)).tolist()

SCHEDULES: dict[str, Make] = {
    "lambda": lambda s, o: s.LambdaLR(o, [lambda e: 0.95**e, lambda e: 1 / (1 + e)]),
    "one lambda": lambda s, o: s.LambdaLR(o, lambda e: 0.9**e),
    "step": lambda s, o: s.StepLR(o, 7, 0.5),
    "milestones": lambda s, o: s.MultiStepLR(o, [10, 3, 10, 40], 0.5),
    "constant": lambda s, o: s.ConstantLR(o, 0.5, 10),
    "linear": lambda s, o: s.LinearLR(o, 0.1, 0.9, 20),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "polynomial": lambda s, o: s.PolynomialLR(o, 30, 2.0),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 13, 0.001),
    "cosine to zero": lambda s, o: s.CosineAnnealingLR(o, 25),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5),
    "longer restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, 0.001),
    "one cycle": lambda s, o: s.OneCycleLR(o, [1.0, 0.5], 101),
    "three phases": lambda s, o: s.OneCycleLR(
        o, 1.0, 101, three_phase=True, anneal_strategy="linear", base_momentum=[0.8, 0.7]
    ),
    "one cycle of epochs": lambda s, o: s.OneCycleLR(
        o, 1.0, epochs=10, steps_per_epoch=11, pct_start=0.1, cycle_momentum=False
    ),
    "warm-up and cosine": lambda s, o: s.SequentialLR(
        o,
        [s.LinearLR(o, 0.1, 1.0, 10), s.CosineAnnealingLR(o, 50), s.ExponentialLR(o, 0.9)],
        [10, 60],
    ),
    "constant and restarts": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1, 5), s.CosineAnnealingWarmRestarts(o, 7, 2)], [6]
    ),
    "warm-up and lambda": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 4), s.LambdaLR(o, lambda e: 0.97**e)], [5]
    ),
    "chained": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, 5), s.ExponentialLR(o, 0.97), s.CosineAnnealingLR(o, 30)], o
    ),
    "plateau": lambda s, o: s.ReduceLROnPlateau(o, patience=2, factor=0.7, cooldown=1, min_lr=1e-3),
    "plateau of a score": lambda s, o: s.ReduceLROnPlateau(
        o, "max", patience=2, factor=0.7, threshold=0.1, threshold_mode="abs", min_lr=[1e-3, 2e-3]
    ),
}  # fmt: skip


def optimizer_of(library: Any = optim, parameter: Any = None, name: str = "SGD") -> Any:
    """An optimizer of two groups with learning rates 0.1 and 0.02."""
    new = parameter or (lambda: tg.Parameter(np.ones(2)))
    options = {"momentum": 0.9} if name == "SGD" else {}
    groups = [{"params": [new()], "lr": 0.1}, {"params": [new()], "lr": 0.02}]
    return getattr(library, name)(groups, lr=1.0, **options)


def advance(schedule: Any, epoch: int) -> None:
    if type(schedule).__name__ == "ReduceLROnPlateau":
        schedule.step(METRICS[epoch])
    else:
        schedule.step()


def course(schedule: Any, optimizer: Any, epochs: int = 100) -> Any:
    """What the groups' learning rates and momenta are, epoch by epoch."""
    rows = []
    for epoch in range(epochs):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert list(schedule.get_last_lr()) == rates
        momenta = [g["betas"][0] if "betas" in g else g["momentum"] for g in optimizer.param_groups]
        rows.append([*rates, *momenta])
        advance(schedule, epoch)
    return np.array(rows)


each = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


@each
@pytest.mark.torch
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_as_pytorchs(make: Make, name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = optimizer_of(torch.optim, lambda: torch.nn.Parameter(torch.ones(2)), name)
    mine = optimizer_of(name=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that optimizer.step() is not called
        expected = course(make(torch.optim.lr_scheduler, theirs), theirs)
    # Products of up to 100 factors, in another order.
    np.testing.assert_allclose(
        course(make(lr_scheduler, mine), mine), expected, rtol=1e-12, atol=1e-15
    )


@each
def test_goes_on_from_its_state(make: Make) -> None:
    unbroken = optimizer_of()
    expected = course(make(lr_scheduler, unbroken), unbroken, 60)
    first = optimizer_of()
    schedule = make(lr_scheduler, first)
    for epoch in range(30):
        advance(schedule, epoch)
    second = optimizer_of()
    restored = make(lr_scheduler, second)
    restored.load_state_dict(schedule.state_dict())
    second.load_state_dict(first.state_dict())
    rows = []
    for epoch in range(30, 60):
        rows.append([group["lr"] for group in second.param_groups])
        advance(restored, epoch)
    np.testing.assert_array_equal(rows, expected[30:, :2])


def test_resumed_at_an_epoch_it_keeps_the_optimizers_rate() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        schedule.step()
    resumed = lr_scheduler.ExponentialLR(optimizer, 0.5, last_epoch=2)
    assert resumed.last_epoch == 3
    resumed.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 16)


def test_fractions_of_an_epoch_between_restarts() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4, 2)
    for epoch, expected in ((2, 0.05), (4, 0.1), (8.0, 0.05), (3.999999, 0.0), (12, 0.1)):
        schedule.step(epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-12)


def test_plateau_treats_nan_as_no_improvement() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    schedule.step(1.0)
    schedule.step(float("nan"))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert schedule.best == 1.0


def test_plateau_takes_a_tensor() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer_of())
    schedule.step(tg.Tensor(0.5))
    assert schedule.best == 0.5


def test_nested_sequences_begin_at_their_beginning() -> None:
    optimizer = optimizer_of()
    inner = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.5, 99), lr_scheduler.ConstantLR(optimizer, 0.25, 99)],
        [2],
    )
    outer = lr_scheduler.SequentialLR(
        optimizer, [inner, lr_scheduler.ConstantLR(optimizer, 1.0, 99)], [4]
    )
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        outer.step()
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.025, 0.025, 0.1, 0.1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, o: s.StepLR(o, 0), "step_size"),
        (lambda s, o: s.ConstantLR(o, 1.5), "factor"),
        (lambda s, o: s.LinearLR(o, 0.0), "start_factor"),
        (lambda s, o: s.LinearLR(o, 0.5, 1.5), "end_factor"),
        (lambda s, o: s.CosineAnnealingLR(o, 0), "T_max"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 0), "T_mult"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 5).step(-1), "≥ 0"),
        (lambda s, o: s.LambdaLR(o, [lambda e: 1.0]), "lr_lambda"),
        (lambda s, o: s.OneCycleLR(o, 1.0), "total_steps"),
        (lambda s, o: s.OneCycleLR(o, 1.0, 10, pct_start=2.0), "pct_start"),
        (lambda s, o: s.OneCycleLR(o, 1.0, 10, anneal_strategy="no"), "linear"),
        (lambda s, o: s.OneCycleLR(o, [1.0], 10), "max_lr"),
        (lambda s, o: s.ReduceLROnPlateau(o, factor=1.0), "factor"),
        (lambda s, o: s.ReduceLROnPlateau(o, mode="least"), "mode"),
        (lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="no"), "threshold_mode"),
        (lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1]), "min_lr"),
        (lambda s, o: s.SequentialLR(o, [], []), "at least one"),
        (lambda s, o: s.SequentialLR(o, [s.ExponentialLR(o, 0.9)], [3]), "milestones"),
        (lambda s, o: s.ChainedScheduler([]), "at least one"),
        (lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]), "metric"),
        (lambda s, o: s.ChainedScheduler([s.StepLR(o, 1), s.StepLR(optimizer_of(), 1)]), "another"),
        (lambda s, o: s.StepLR(o, 1, last_epoch=3), "initial_lr"),
    ],
)
def test_refusals(make: Make, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(lr_scheduler, optimizer_of())


def test_a_cycle_of_momentum_needs_one() -> None:
    optimizer = optim.Adagrad([tg.Parameter(np.ones(1))])
    with pytest.raises(ArgumentError, match="momentum"):
        lr_scheduler.OneCycleLR(optimizer, 1.0, 10)
    lr_scheduler.OneCycleLR(optimizer, 1.0, 10, cycle_momentum=False)


def test_a_cycle_that_is_over() -> None:
    schedule = lr_scheduler.OneCycleLR(optimizer_of(), 1.0, 3)
    for _ in range(3):
        schedule.step()
    with pytest.raises(ArgumentError, match="3 steps"):
        schedule.step()


def test_what_is_no_optimizer_or_no_state() -> None:
    with pytest.raises(DtypeError, match="optimizer"):
        lr_scheduler.StepLR([1], 3)
    schedule = lr_scheduler.StepLR(optimizer_of(), 3)
    with pytest.raises(StateError, match="gamma"):
        schedule.load_state_dict({"last_epoch": 3})
    assert schedule.last_epoch == 0
