"""Nothing takes the first GPU for the only one: all of it on the second, while the first is current.

The stand-in refuses arrays of a device that is not current, so that every operation without a guard
fails here, and CUDA's current device is looked at after every test.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends import uploads

import tinygrad_bn as tg
from tests.two_backends import only_stand_in
from tinygrad_bn import nn, optim
from tinygrad_bn.autograd import functional, gradgradcheck
from tinygrad_bn.backend import Device
from tinygrad_bn.data import DataLoader, TensorDataset
from tinygrad_bn.errors import BackendError
from tinygrad_bn.nn.utils import clip_grad_norm_, clip_grad_value_
from tinygrad_bn.optim.averaging import EMA, AveragedModel
from tinygrad_bn.utils.checkpoint import checkpoint

pytestmark = only_stand_in

cupy: Any = uploads.cupy
SECOND = "cuda:1"


@pytest.fixture(autouse=True)
def the_first_stays_current() -> Iterator[None]:
    assert cupy.cuda.runtime.getDevice() == 0
    yield
    assert cupy.cuda.runtime.getDevice() == 0


def network(device: str) -> nn.Sequential:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4),
    ).to(device)  # fmt: skip


def batch(device: str) -> tuple[tg.Tensor, tg.Tensor]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 12)).astype("float32"), rng.integers(0, 4, 16)
    return tg.tensor(x, device=device), tg.tensor(y, device=device)


def step(model: Any, optimizer: Any, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def assert_there(tensors: Any) -> None:
    assert all(x.device == Device(SECOND) for x in tensors)


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

        found = [
            functional.jacobian(cube, x), functional.hessian(total, x), functional.vjp(cube, x, v)[1],
            functional.jvp(cube, x, v)[1], functional.hvp(total, x, v)[1],
            functional.jacobian(lambda x: x[:0], x),
        ]  # fmt: skip
        assert_there(found)
        assert found[0].tolist() == (3 * x * x).diag().tolist()

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


NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "GhostBatchNorm": lambda: nn.GhostBatchNorm(4, 2),
    "BatchRenorm": lambda: nn.BatchRenorm(4),
    "MeanOnlyBatchNorm": lambda: nn.MeanOnlyBatchNorm(4),
    "PowerNorm": lambda: nn.PowerNorm(4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "LayerNorm": lambda: nn.LayerNorm([4, 3, 3]),
    "RMSNorm": lambda: nn.RMSNorm(3),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "FilterResponseNorm": lambda: nn.FilterResponseNorm(4),
    "EvoNormB0": lambda: nn.EvoNormB0(4),
    "EvoNormS0": lambda: nn.EvoNormS0(4, 2),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)),
    "weight_norm": lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3)),
    "weight_standardization": lambda: nn.utils.weight_standardization(nn.Conv2d(4, 4, 3)),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 2),
    "Dropout": lambda: nn.Dropout(0.5),
}


class TestLayers:
    @pytest.mark.parametrize("name", NORMS)
    def test_forward_and_back(self, name: str) -> None:
        found = []
        for device in ("cuda:0", SECOND):
            tg.manual_seed(0)
            layer = NORMS[name]().to(device)
            x = tg.randn(4, 4, 3, 3, device=device, requires_grad=True)
            layer(x).square().sum().backward()
            assert x.grad is not None
            layer.eval()
            found.append([x.grad.tolist(), layer(x).tolist()])
        assert found[0] == found[1]
        assert_there([x.grad, *layer.parameters(), *layer.buffers()])

    @pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU, nn.LayerNormLSTM])
    def test_recurrent(self, kind: Any) -> None:
        layer = kind(3, 4, device=SECOND)
        y, _ = layer(tg.randn(5, 2, 3, device=SECOND))
        y.sum().backward()
        assert_there([y, *(p.grad for p in layer.parameters())])

    def test_embedding_and_losses(self) -> None:
        numbers = tg.tensor([0, 2, 1], device=SECOND)
        rows = nn.Embedding(3, 4, device=SECOND)(numbers)
        loss = nn.functional.cross_entropy(rows, numbers) + nn.functional.mse_loss(rows, rows * 2)
        loss.backward()
        assert_there([loss])


class TestMemory:
    def test_random_numbers_are_those_of_every_device(self) -> None:
        for draw in (tg.rand, tg.randn):
            tg.manual_seed(3)
            here = draw(7).tolist()
            tg.manual_seed(3)
            # normals to 2 ulp: libraries compute logarithms and sines with other roundings
            np.testing.assert_allclose(draw(7, device=SECOND).tolist(), here, rtol=3e-7)

    def test_copies_pickles_and_state(self) -> None:
        model = network(SECOND)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_there(again.parameters())
            assert again[0].weight.tolist() == model[0].weight.tolist()
        other = network("cpu")
        other.load_state_dict(model.state_dict())
        assert {p.device for p in other.parameters()} == {Device("cpu")}

    def test_views_indices_and_writes(self) -> None:
        x = tg.arange(12, device=SECOND).reshape(3, 4)
        x[1] = 7
        x[x > 9] = 0
        x[tg.tensor([0], device=SECOND)] += 1
        x[:, 1:2].zero_()
        assert_there([x, x.T, x[1, 2], x.sort().values, x.max(), x.nonzero()])
        assert x.tolist() == [[1, 0, 3, 4], [7, 0, 7, 7], [8, 0, 0, 0]]

    def test_devices_do_not_mix(self) -> None:
        with pytest.raises(BackendError, match="cuda:0"):
            tg.ones(2, device="cuda:0") + tg.ones(2, device=SECOND)

    def test_work_from_within_another_device(self) -> None:
        with cupy.cuda.Device(0):
            y = tg.ones(3, device=SECOND) * 2
            assert y.sum().item() == 6
        with cupy.cuda.Device(1):
            assert tg.ones(3, device="cuda:0").sum().item() == 3

    def test_as_the_default_device(self) -> None:
        tg.set_default_device(SECOND)
        try:
            assert tg.cuda.current_device() == 1
            assert_there([tg.ones(2), tg.ones(2, device="cuda"), tg.tensor([1.0]).to("cuda")])
            assert_there([tg.ones(2, device="cpu").cuda(), *nn.Linear(2, 3).parameters()])
            assert tg.tensor(1.0, device="cpu").pin_memory().is_pinned()
            assert tg.amp.GradScaler()._scale.device == Device(SECOND)
        finally:
            tg.set_default_device("cpu")
        assert tg.ones(2, device="cuda").device == Device("cuda:0")

    def test_it_is_asked_about(self) -> None:
        assert tg.cuda.device_count() == 2
        assert tg.cuda.get_device_name(1).endswith("1")
        tg.cuda.synchronize(1)
