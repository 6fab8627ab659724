"""Training on the second GPU, on both, and on a GPU for each rank.

The stand-in refuses arrays of a device that is not current, so that every operation without a guard
fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.second_gpu.place import SECOND, assert_there, batch, network, step
from tinygrad_bn import distributed, nn, optim
from tinygrad_bn.autograd import functional, gradgradcheck
from tinygrad_bn.backend import Device
from tinygrad_bn.data import DataLoader, TensorDataset
from tinygrad_bn.nn.utils import clip_grad_norm_, clip_grad_value_
from tinygrad_bn.optim.averaging import EMA, AveragedModel
from tinygrad_bn.utils.checkpoint import checkpoint

OPTIMIZERS: list[Callable[[Any], Any]] = [
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, amsgrad=True),
    optim.AdamW, optim.Adadelta, optim.Adagrad, optim.Adamax, optim.LAMB,
    lambda p: optim.LARS(p, momentum=0.9), optim.Lion, optim.NAdam, optim.RAdam, optim.RMSprop,
    lambda p: optim.SGDScheduleFree(p, lr=0.1), optim.AdamWScheduleFree,
]  # fmt: skip
NAMES = (
    "SGD Adam AdamW Adadelta Adagrad Adamax LAMB LARS Lion NAdam RAdam RMSprop SGDScheduleFree "
    "AdamWScheduleFree"
).split()


class TestTraining:
    @pytest.mark.parametrize("make", OPTIMIZERS, ids=NAMES)
    def test_the_same_bits_on_either_gpu(self, make: Callable[[Any], Any]) -> None:
        found = []
        for device in ("cuda:0", SECOND):
            model = network(device)
            optimizer = make(model.parameters())
            losses = [step(model, optimizer, *batch(device)).item() for _ in range(3)]
            found.append((losses, [p.tolist() for p in model.parameters()]))
        assert found[0] == found[1]
        assert_there([*model.parameters(), *model.buffers()])
        kept = optimizer.state_dict()["state"].values()
        assert_there(x for entry in kept for x in entry.values() if isinstance(x, tg.Tensor))

    def test_compiled(self) -> None:
        """As a CUDA graph of that GPU, with eager's bits."""
        found = []
        for compiled in (False, True):
            model = network(SECOND)
            optimizer = optim.Adam(model.parameters())
            run = tg.compile(step) if compiled else step
            x, y = batch(SECOND)
            losses = [run(model, optimizer, x, y) for _ in range(4)]
            assert_there(losses)
            found.append(([x.item() for x in losses], [p.tolist() for p in model.parameters()]))
        assert found[0] == found[1]

    def test_lbfgs(self) -> None:
        model = nn.Linear(12, 4, device=SECOND)
        optimizer = optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
        x, y = batch(SECOND)

        def closure() -> tg.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        before = optimizer.step(closure).item()
        assert closure().item() < before

    def test_in_mixed_precision(self) -> None:
        pytest.importorskip("ml_dtypes")
        model, scaler = network(SECOND), tg.amp.GradScaler(SECOND, init_scale=8.0)
        optimizer = optim.Adam(model.parameters())
        x, y = batch(SECOND)
        for bad in (False, True, False):
            with tg.autocast("cuda"):
                loss = nn.functional.cross_entropy(model(x * (np.inf if bad else 1)), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_grad_value_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 4.0
        assert_there([loss, *(p.grad for p in model.parameters())])

    def test_from_a_loader(self) -> None:
        data = TensorDataset(*batch("cpu"))
        model, optimizer = network(SECOND), None
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for x, y in DataLoader(data, 8, shuffle=True, prefetch=1, device=SECOND):
            assert_there([x, y, step(model, optimizer, x, y)])

    def test_through_a_checkpoint(self) -> None:
        model = network(SECOND)
        x, y = batch(SECOND)
        nn.functional.cross_entropy(checkpoint(model, x.requires_grad_()), y).backward()
        assert_there([x.grad, *(p.grad for p in model.parameters())])

    def test_gradients_of_gradients(self) -> None:
        norm = nn.BatchNorm1d(3, dtype="float64", device=SECOND)
        x = tg.randn(5, 3, dtype="float64", device=SECOND, requires_grad=True)
        assert gradgradcheck(lambda t: norm(t).tanh(), x)

    def test_jacobians_and_products(self) -> None:
        x, v = (tg.randn(3, device=SECOND) for _ in range(2))

        def cube(x: tg.Tensor) -> tg.Tensor:
            return x * x * x

        def total(x: tg.Tensor) -> tg.Tensor:
            return cube(x).sum()

        found = [functional.jacobian(cube, x), functional.jacobian(lambda x: x[:0], x)]
        found += [functional.hessian(total, x), functional.hvp(total, x, v)[1]]
        found += [functional.vjp(cube, x, v)[1], functional.jvp(cube, x, v)[1]]
        assert_there(found)
        assert tg.allclose(found[0], (3 * x * x).diag())

    def test_in_anomaly_mode(self) -> None:
        model = network(SECOND)
        with tg.autograd.detect_anomaly():
            model(batch(SECOND)[0]).sum().backward()


class TestModelsOnBoth:
    """Layers on two GPUs: a walk meets nodes, sums and leaves of either."""

    @staticmethod
    def parts(devices: tuple[str, str]) -> tuple[nn.Module, nn.Module]:
        tg.manual_seed(0)
        first = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        return first.to(devices[0]), nn.Linear(6, 3).to(devices[1])

    @pytest.mark.parametrize(
        "devices",
        [("cuda:0", SECOND), (SECOND, "cuda:0"), (SECOND, "cpu"), ("cpu", SECOND)],
        ids=lambda d: f"{d[0]} and {d[1]}",
    )
    def test_steps(self, devices: tuple[str, str]) -> None:
        found = []
        for place in (devices, ("cpu", "cpu")):
            first, second = self.parts(place)
            params = [*first.parameters(), *second.parameters()]
            optimizer = optim.SGD(params, lr=0.1, momentum=0.5)
            tg.manual_seed(1)
            x = tg.randn(8, 4).to(place[0]).requires_grad_()
            for _ in range(2):
                optimizer.zero_grad()
                for _ in range(2):  # gradients are added up
                    h = first(x)
                    h.retain_grad()
                    there = h.to(place[1])
                    y = second(there) + second(there * 2)  # sums on the way back
                    (y.square().sum() + h.sum().to(place[1])).backward()
                clip_grad_norm_(params, 1.0)
                clip_grad_value_(params, 0.1)
                optimizer.step()
            found.append([t.tolist() for t in (*params, x.grad, h.grad)])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # of float32 sums, two steps

    def test_gradients_of_gradients(self) -> None:
        first, second = self.parts(("cuda:0", SECOND))
        x = tg.randn(8, 4, device="cuda:0", requires_grad=True)
        h = first(x)
        y = second((h * h).to(SECOND)).square().sum() + h.sum().to(SECOND)
        (slope,) = tg.autograd.grad(y, x, create_graph=True)
        (slope.square().sum() + slope.to(SECOND).sum().to("cuda:0")).backward()
        for p in (*first.parameters(), *second.parameters()):
            assert p.grad is None or p.grad.device == p.device
        (again,) = tg.autograd.grad(second(first(x).to(SECOND)).sum(), [x], allow_unused=True)
        assert again.device == Device("cuda:0")

    def test_hooks(self) -> None:
        x = tg.ones(3, device="cuda:0", requires_grad=True)
        x.register_hook(lambda grad: grad * 2)
        h = x * 3
        h.register_hook(lambda grad: grad + 1)
        h.to(SECOND).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [12.0] * 3

    def test_averages_and_vectors(self) -> None:
        first, second = self.parts(("cuda:0", SECOND))
        model = nn.Sequential(first, second)
        for average in (AveragedModel(model), EMA(model)):
            average.update_parameters(model)
            average.update_parameters(model)
        flat = nn.utils.parameters_to_vector(second.parameters())
        nn.utils.vector_to_parameters(flat * 2, second.parameters())
        assert_there([flat, *second.parameters()])


class TestRanks:
    def test_replicas_on_both(self) -> None:
        """Two ranks, a GPU each, learn what one learns on the whole batch."""

        def model(device: str) -> nn.Module:
            tg.manual_seed(0)
            return nn.Sequential(nn.Linear(12, 6), nn.SyncBatchNorm(6), nn.Linear(6, 4)).to(device)

        def work(rank: int) -> Any:
            device = f"cuda:{rank}"
            x, y = batch(device)
            replica = replicas[rank]
            optimizer = optim.SGD(replica.parameters(), lr=0.1)
            for _ in range(2):
                optimizer.zero_grad()
                half = slice(8 * rank, 8 * rank + 8)
                nn.functional.cross_entropy(replica(x[half]), y[half]).backward()
                distributed.average_gradients(replica.parameters())
                optimizer.step()
            return [p.tolist() for p in replica.parameters()]

        replicas = [model(f"cuda:{rank}") for rank in range(2)]  # a seed is for all threads
        found = distributed.spawn(work, 2)
        assert found[0] == found[1]
        alone = model("cpu")
        optimizer = optim.SGD(alone.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            x, y = batch("cpu")
            nn.functional.cross_entropy(alone(x), y).backward()
            optimizer.step()
        for p, other in zip(alone.parameters(), found[0], strict=True):
            # of float32 sums of sixteen, in another order, over two steps
            np.testing.assert_allclose(p.tolist(), other, rtol=1e-4, atol=1e-6)
