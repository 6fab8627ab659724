"""LARS and LAMB in two launches for all parameters: what their bodies give to each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels import layerwise
from tinygrad_bn.backends.cuda_kernels.layerwise import RULES, chunks_of

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic, thread_order
from tests.cupy_standin.streams import capturing
from tests.two_backends import CPU, GPU, dtype_named, only_stand_in
from tinygrad_bn import optim
from tinygrad_bn.backend import KERNEL_POINTS
from tinygrad_bn.errors import BackendError

STORED = ("float32", "float16", "bfloat16")
SIZES = [
    (1,), (2, 5, 1), (31, 32, 33), (1009, 64), (4095, 4096, 4097), (3, 20_000, 700),
]  # fmt: skip
named = pytest.mark.parametrize("name", RULES)
every_dtype = pytest.mark.parametrize("dtype", STORED)


def numbers(name: str, step: int, decay: float | None) -> tuple[Any, ...]:
    """Options and counters at a step, in the order of the kernel point."""
    every = (0.3, 0.9, decay, 0.01) if name.startswith("lars") else None
    every = every or (float(step), 0.05, 0.9, 0.995, 1e-6, decay)
    return tuple(None if x is None else np.array(x) for x in every)


class Model:
    """Parameters side by side with their state, on the host and on the device; both are stepped."""

    def __init__(self, name: str, sizes: tuple[int, ...], dtype: str, offset: int = 0) -> None:
        self.name, self.kind, self.rng = name, dtype_named(dtype), np.random.default_rng(sum(sizes))
        bounds, end = [], 0
        for size in sizes:
            start = -(-end // 32) * 32  # as in a bucket, on a cache line
            bounds.append((start, end := start + size))
        self.bounds, self.size = tuple(bounds), end
        self.param = self.between(self.drawn() * np.linspace(0.1, 3, end))
        self.state = [np.zeros(end, np.float32) for _ in range(RULES[name][1])]
        self.there = [self.sent(x, offset) for x in (self.param, *self.state)]
        self.offset = offset

    def drawn(self) -> Any:
        return self.rng.standard_normal(self.size).astype(self.kind)

    def between(self, x: Any) -> Any:
        """What lies between parameters is no number."""
        y = np.full(self.size, 777, self.kind)
        for start, end in self.bounds:
            y[start:end] = x[start:end]
        return y

    @staticmethod
    def sent(x: Any, offset: int) -> Any:
        return GPU.asarray(np.concatenate([np.zeros(offset, x.dtype), x]))[offset:]

    def step(self, step: int, decay: float | None = None, grad: Any = None) -> None:
        grad = self.between(self.drawn() if grad is None else grad.astype(self.kind))
        given = numbers(self.name, step, decay)
        with np.errstate(all="ignore"):
            point = KERNEL_POINTS[self.name]
            args = self.param, grad, *self.state, *given
            self.param, *self.state = point.reference(CPU, *args, bounds=self.bounds)
        found = GPU.kernels.get(self.name)
        assert found is not None
        sent = [None if x is None else GPU.asarray(x) for x in given]
        args = self.there[0], self.sent(grad, self.offset), *self.there[1:], *sent
        assert found.accepts(*args, bounds=self.bounds)
        with GPU.guard:  # type: ignore[union-attr]
            layerwise.table(self.bounds, 0)  # which is sent once
            with count_traffic() as seen:
                results = found.run(*args, bounds=self.bounds)
        assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
        assert all(a is b for a, b in zip(results, self.there, strict=True))
        assert found.writes == (0, *range(2, len(self.there) + 1))

    def check(self) -> None:
        """Norms are summed in another order: a rate may round to its neighbour in float32, by which
        a step of a 16-bit parameter may land on the next one.
        """
        unit = {"float32": 2**-22, "float16": 2**-10, "bfloat16": 2**-7}
        for got, want in zip(self.there, (self.param, *self.state), strict=True):
            host = GPU.to_numpy(got)
            assert host.dtype == want.dtype
            rtol = unit[host.dtype.name]
            atol = rtol * 4  # of parameters, and state, of up to 10
            np.testing.assert_allclose(host.astype(float), want.astype(float), rtol, atol)


@named
@every_dtype
@pytest.mark.parametrize("decay", [None, 0.02])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(name: str, sizes: tuple[int, ...], decay: float | None, dtype: str) -> None:
    for offset in (0, 1):
        model = Model(name, sizes, dtype, offset)
        for step in (1, 2, 3):
            with thread_order((step + offset) % 4):
                model.step(step, decay)
        model.check()


@named
def test_each_parameter_has_a_rate_of_its_own(name: str) -> None:
    """A parameter of zeros, or one without a gradient, moves at the plain rate, or stays."""
    model = Model(name, (64, 64, 64), "float32")
    host = model.param
    host[64:128] = 0
    model.there[0] = GPU.asarray(host)
    grad = np.ones(192)
    grad[128:] = 0
    model.step(1, None, grad)
    model.check()
    moved = np.abs(GPU.to_numpy(model.there[0]) - host)
    assert moved[:64].all()
    assert moved[64:128].all()
    assert not moved[128:].any()


@named
@pytest.mark.parametrize("order", [1, 2, 3])
def test_bits_do_not_depend_on_the_order(name: str, order: int) -> None:
    sizes = (3, 30_000, 700)
    natural, other = Model(name, sizes, "float32"), Model(name, sizes, "float32")
    for step in (1, 2):
        natural.step(step, 0.02)
        with thread_order(order):
            other.step(step, 0.02)
    for a, b in zip(natural.there, other.there, strict=True):
        assert GPU.to_numpy(a).tobytes() == GPU.to_numpy(b).tobytes()


@named
def test_what_is_not_finite_stays_in_its_parameter(name: str) -> None:
    for bad in (np.nan, np.inf):
        model = Model(name, (40, 5000, 40), "float32")
        grad = np.ones(model.size)
        grad[model.bounds[1][0] + 4999] = bad
        model.step(1, 0.1, grad)
        param = GPU.to_numpy(model.there[0])
        for i in (0, 2):
            assert np.isfinite(param[slice(*model.bounds[i])]).all()
        model.check()


def test_chunks_cover_every_parameter_once() -> None:
    for size in (1, 7, 16, 100):
        rows = chunks_of(((0, 7), (16, 17), (32, 132)), size)
        covered = [k for start, end, *_ in rows for k in range(start, end)]
        assert covered == [*range(7), 16, *range(32, 132)]
        for i in range(3):
            own = [k for k, row in enumerate(rows) if row[2] == i]
            assert all(rows[k][3:] == (own[0], len(own)) for k in own)


@named
def test_what_is_left_to_the_body(name: str) -> None:
    found = GPU.kernels.get(name)
    assert found is not None
    x = GPU.asarray(np.ones(64, np.float32))
    state = [x] * RULES[name][1]
    options = [None if v is None else GPU.asarray(v) for v in numbers(name, 1, None)]
    good = ((0, 3), (32, 64))
    assert found.accepts(x, x, *state, *options, bounds=good)
    assert not found.accepts(x, x, *state, *options, bounds=((0, 0), (32, 64)))
    wide = x.astype(np.float64)
    assert not found.accepts(wide, wide, *state, *options, bounds=good)


@only_stand_in
def test_a_capture_needs_a_step_before() -> None:
    with (
        GPU.guard,  # type: ignore[union-attr]
        capturing(),
        pytest.raises(BackendError, match="have made a step before"),
    ):
        layerwise.table(((0, 5),), 0)


class TestOptimizers:
    """As a user has them: parameters of several shapes, on both devices."""

    @staticmethod
    def trained(name: str, device: str, steps: int, dtype: Any = None) -> Any:
        rng = np.random.default_rng(0)
        shapes = ((4, 3), (3,), (), (2, 2, 2))
        params = [tg.Parameter(rng.standard_normal(s), device=device, dtype=dtype) for s in shapes]
        grads = rng.standard_normal((steps, 4, 12))
        options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01}
        optimizer = getattr(optim, name)(params, **options)
        traffic = []
        for step in range(steps):
            for i, p in enumerate(params):
                if (step, i) != (1, 2):  # which parts the run
                    grad = grads[step, i, : p.numel()].reshape(p.shape)
                    p.grad = tg.tensor(grad, device=device, dtype=p.dtype)
                else:
                    p.grad = None
            with count_traffic() as seen:
                optimizer.step()
            traffic.append(seen)
        return params, optimizer, traffic

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("name", ["LARS", "LAMB"])
    def test_both_devices_take_the_same_steps(self, name: str, dtype: str, cuda: str) -> None:
        here, first, _ = self.trained(name, "cpu", 4, np.dtype(dtype))
        there, second, traffic = self.trained(name, cuda, 4, np.dtype(dtype))
        rtol = 2e-6 if dtype == "float32" else 1e-12  # four steps of float32; sums in another order
        for p, q in zip(here, there, strict=True):
            np.testing.assert_allclose(q.detach().cpu().numpy(), p.detach().numpy(), rtol, rtol)
        assert all((t.d2h, t.synchronizations) == (0, 0) for t in traffic)
        assert traffic[-1].h2d == 0
        state = second.state_dict()["state"]
        for i, entry in first.state_dict()["state"].items():
            assert entry.keys() == state[i].keys()
            for key, value in entry.items():
                np.testing.assert_allclose(
                    np.asarray(state[i][key].cpu()), np.asarray(value), rtol, rtol
                )

    @pytest.mark.parametrize("name", ["LARS", "LAMB"])
    def test_a_state_goes_from_one_device_to_the_other(self, name: str, cuda: str) -> None:
        here, first, _ = self.trained(name, "cpu", 2)
        there, second, _ = self.trained(name, cuda, 1)
        second.load_state_dict(first.state_dict())
        for p, q in zip(here, there, strict=True):
            q.data = p.detach().to(cuda)
        for params, optimizer in ((here, first), (there, second)):
            for p in params:
                p.grad = tg.ones_like(p) * 0.5
            optimizer.step()
        for p, q in zip(here, there, strict=True):
            np.testing.assert_allclose(q.detach().cpu().numpy(), p.detach().numpy(), 2e-6, 2e-6)

    def test_muon_waits_for_nothing(self, cuda: str) -> None:
        p = tg.Parameter(np.random.default_rng(0).standard_normal((6, 4)), device=cuda)
        optimizer = optim.Muon([p])
        for step in range(3):
            p.grad = tg.ones_like(p)
            with count_traffic() as seen:
                optimizer.step()
            assert (seen.d2h, seen.synchronizations) == (0, 0)
            assert step == 0 or seen.h2d == 0
