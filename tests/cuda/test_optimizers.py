"""Optimizers in one launch: to the bit what their bodies give, over several steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels.optimizers import BLOCKS_EACH, RULES, THREADS

from tests.cupy_standin import count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named
from tinygrad_bn import optim
from tinygrad_bn.backend import KERNEL_POINTS

assert optim  # it declares the kernel points

STORED = ("float32", "float16", "bfloat16")
PACK = {"float32": 4, "float16": 8, "bfloat16": 8}
SIZES = (1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1009, 4 * THREADS - 1, 4 * THREADS, 8 * THREADS + 1)
LR, DECAY, EPS = 0.05, 0.02, 1e-6
BETAS = 0.9, 0.995

PRESENT: dict[str, list[tuple[bool, ...]]] = {
    "adam_update": [(True, True, False), (True, True, True)],
    "rmsprop_update": [*itertools.product([True], [False, True], [False, True])],
}
"""Which kinds of state there may be; all of them where nothing is said."""

FLAGS = {
    "momentum_update": "nesterov",
    "adam_update": "decoupled",
    "nadam_update": "decoupled",
    "radam_update": "decoupled",
}
VARIANTS = [
    (name, present, flag, decay)
    for name, (_, slots) in RULES.items()
    for present in PRESENT.get(name, [(True,) * slots])
    for flag in ((False, True) if name in FLAGS else (False,))
    for decay in (False, True)
]
named = pytest.mark.parametrize("name", RULES)


def numbers(name: str, step: int, decay: bool) -> tuple[Any, ...]:
    """Options and counters at a step, in the order of the kernel point."""
    t, last = float(step), DECAY if decay else None
    every: dict[str, tuple[Any, ...]] = {
        "sgd_update": (LR,),
        "momentum_update": (t, LR, 0.9, 0.1),
        "lion_update": (LR, 0.9, 0.99),
        "schedule_free_sgd_update": (LR, 1 / t, 0.9),
        "schedule_free_adamw_update": (LR, 1 / t, *BETAS, EPS),
        "adam_update": (t, LR, *BETAS, EPS),
        "adamax_update": (t, LR, *BETAS, EPS),
        "nadam_update": (t, 0.45, 0.46, 0.45**t, LR, *BETAS, EPS),
        "radam_update": (t, LR, *BETAS, EPS),
        "adagrad_update": (t, LR, 0.1, EPS),
        "adadelta_update": (LR, 0.9, EPS),
        "rmsprop_update": (LR, 0.9, EPS, 0.8),
    }
    return tuple(None if x is None else np.array(x) for x in (*every[name], last))


class Model:
    """Parameters with their state, on the host and on the device; both are stepped."""

    def __init__(
        self, name: str, n: int, dtype: str, present: tuple[bool, ...] = (), offset: int = 0
    ) -> None:
        present = present or PRESENT.get(name, [(True,) * RULES[name][1]])[-1]
        self.name, self.kind, self.rng = name, dtype_named(dtype), np.random.default_rng(n)
        self.param = self.rng.standard_normal(n).astype(self.kind)
        self.state = [np.zeros(n, np.float32) if there else None for there in present]
        if name.startswith("schedule_free"):
            self.state[0] = self.param.astype(np.float32)
        self.there = [self.sent(x, offset) for x in (self.param, *self.state)]

    @staticmethod
    def sent(x: Any, offset: int) -> Any:
        """On the device, at a place that is a multiple of 16 bytes or not."""
        if x is None:
            return None
        return GPU.asarray(np.concatenate([np.zeros(offset, x.dtype), x]))[offset:]

    def step(self, step: int, decay: bool, grad: Any = None, **flags: bool) -> None:
        if grad is None:
            grad = self.rng.standard_normal(self.param.size)
        grad = grad.astype(self.kind)
        given = numbers(self.name, step, decay)
        with np.errstate(all="ignore"):
            point = KERNEL_POINTS[self.name]
            param, *state = point.reference(CPU, self.param, grad, *self.state, *given, **flags)
            self.param, self.state = param.astype(self.kind), state
        sent = [None if x is None else GPU.asarray(x) for x in (grad, *given)]
        found = GPU.kernels.get(self.name)
        args = self.there[0], sent[0], *self.there[1:], *sent[1:]
        with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
            assert found is not None
            assert found.accepts(*args, **flags)
            results = found.run(*args, **flags)
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
        assert all(a is b for a, b in zip(results, self.there, strict=True))
        assert found.writes == (0, *range(2, len(self.there) + 1))

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        for got, want in zip(self.there, (self.param, *self.state), strict=True):
            if want is not None:
                yield GPU.to_numpy(got), want

    def check(self) -> None:
        """Equal to the bit, but for the sign and the payload of NaN.

        On a GPU, where pow is another, a bias correction may round to its neighbour in float32.
        """
        for got, want in self.pairs():
            assert got.dtype == want.dtype
            got, want = got.astype(np.float64), want.astype(np.float64)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize(
    ("name", "present", "flag", "decay"), VARIANTS, ids=lambda value: str(value)
)
def test_every_rule(
    name: str, present: tuple[bool, ...], flag: bool, decay: bool, dtype: str
) -> None:
    """Eight steps: RAdam rectifies from the sixth on, momentum's first share is another."""
    model = Model(name, 37, dtype, present)
    flags = {FLAGS[name]: flag} if name in FLAGS else {}
    for step in range(1, 9):
        with thread_order(step % 4):
            model.step(step, decay, **flags)
        model.check()


@named
def test_every_step_of_a_long_run(name: str) -> None:
    """Powers of betas from 0.9 to nothing."""
    for step in (1, 2, 10, 100, 1000, 30_000, 10**7):
        model = Model(name, 5, "float32")
        flags = {FLAGS[name]: True} if name in FLAGS else {}
        model.step(step, True, **flags)
        model.check()


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("name", ["sgd_update", "adam_update"])
def test_every_size(name: str, offset: int, dtype: str) -> None:
    """Around packs and blocks; and where packs may not be moved at once."""
    flags = {FLAGS[name]: True} if name in FLAGS else {}
    for n in SIZES:
        model = Model(name, n, dtype, offset=offset)
        with thread_order(n % 4):
            model.step(1, True, **flags)
            model.step(2, True, **flags)
        model.check()


def test_a_block_does_more_than_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more packs than threads of all blocks."""
    from tinygrad_bn.backends.cuda_kernels import optimizers

    monkeypatch.setattr(optimizers, "multiprocessors", lambda device: 1)
    n = BLOCKS_EACH * THREADS * PACK["float32"]
    for size in (n, n + 1, 2 * n + 1029):
        model = Model("momentum_update", size, "float32")
        model.step(1, True, nesterov=True)
        model.check()


@named
@pytest.mark.parametrize("dtype", STORED)
def test_what_is_not_finite(name: str, dtype: str) -> None:
    """In gradients and parameters; it stays in its element, and zeros are no exception."""
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 1e30, 1.0])
    model = Model(name, values.size, dtype)
    flags = {FLAGS[name]: False} if name in FLAGS else {}
    for step in (1, 2):
        with np.errstate(over="ignore"):
            model.step(step, False, values, **flags)
        model.check()
    assert np.isfinite(model.param[-1])


def test_what_is_left_to_the_body() -> None:
    """Float64, buffers with gaps, options of the host."""
    found = GPU.kernels.get("sgd_update")
    assert found is not None
    x, lr = GPU.asarray(np.ones(8, np.float32)), GPU.asarray(np.array(0.1))
    assert found.accepts(x, x, lr, None)
    wide = GPU.asarray(np.ones(8))
    for args in (
        (wide, wide, lr, None),
        (x[::2], x[::2], lr, None),
        (x, x[:4], lr, None),
        (x[:0], x[:0], lr, None),
        (x, x, 0.1, None),
        (x, x, np.float64(0.1), None),
        (x, x, GPU.asarray(np.array(0.1, np.float32)), None),
    ):
        assert not found.accepts(*args)
