"""Mixed precision beside PyTorch's, on the CPU, where it has bfloat16 and scalers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn

pytestmark = pytest.mark.torch
torch: Any = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")

UNIT = 2.0**-8
"""Of bfloat16, relative: between two numbers that were rounded the same way lie 0 units; where one
sum comes out on the other side of a rounding, one."""


def mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(),
        nn.BatchNorm1d(16), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4),
    )  # fmt: skip


def cnn(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, groups=2), nn.BatchNorm2d(6), nn.SiLU(), nn.AvgPool2d(2),
        nn.ConvTranspose2d(6, 4, 2), nn.PReLU(), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def pair(make: Any) -> tuple[Any, Any]:
    """The same network in both libraries."""
    tg.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    state = {k: torch.from_numpy(np.array(v.detach())) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    return ours, theirs


def numbers(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(x.float().detach().numpy())


def assert_within(found: Any, expected: Any, units: int) -> None:
    """Equal up to so many units of the greatest value."""
    found, expected = numbers(found), numbers(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=units * UNIT * np.abs(expected).max())


@pytest.mark.parametrize(("make", "shape"), [(mlp, (32, 12)), (cnn, (32, 2, 8, 8))])
class TestNetworks:
    def test_same_dtypes_and_values_layer_by_layer(self, make: Any, shape: Any) -> None:
        ours, theirs = pair(make)
        x = np.random.default_rng(0).standard_normal(shape).astype("float32")
        a, b = tg.tensor(x), torch.from_numpy(x)
        with tg.autocast("cpu"), torch.autocast("cpu", torch.bfloat16):
            for number, (layer, other) in enumerate(zip(ours, theirs, strict=True)):
                a, b = layer(a), other(b)
                assert a.dtype.name == str(b.dtype).removeprefix("torch.") == "bfloat16"
                # a layer rounds its result, and PyTorch a product before its bias is added: one
                # unit; those of the layers before it come in too
                assert_within(a, b, 2 + number)

    def test_same_losses_and_gradients(self, make: Any, shape: Any) -> None:
        ours, theirs = pair(make)
        rng = np.random.default_rng(1)
        x, labels = rng.standard_normal(shape).astype("float32"), rng.integers(0, 4, len(range(32)))
        with tg.autocast("cpu"):
            loss = nn.functional.cross_entropy(ours(tg.tensor(x)), tg.tensor(labels))
        with torch.autocast("cpu", torch.bfloat16):
            other = torch.nn.functional.cross_entropy(
                theirs(torch.from_numpy(x)), torch.from_numpy(labels)
            )
        assert loss.dtype == np.float32
        assert other.dtype == torch.float32
        assert abs(loss.item() - other.item()) <= 2 * UNIT
        loss.backward()
        other.backward()
        assert all(p.grad.dtype == np.float32 for p in ours.parameters())
        found, expected = (
            np.concatenate([numbers(p.grad).ravel() for p in model.parameters()])
            for model in (ours, theirs)
        )
        # the depth of the network, and back again; of the greatest gradient: there are sums of many
        # numbers that nearly cancel, before a batch norm to nothing but rounding
        atol = 2 * len(ours) * UNIT * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
        assert np.linalg.norm(found - expected) <= 4 * UNIT * np.linalg.norm(expected)


@pytest.mark.parametrize("function", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_losses_are_float32(function: str) -> None:
    x, y = (np.random.default_rng(i).standard_normal((4, 5)).astype("float32") for i in (0, 1))
    with tg.autocast("cpu"):
        loss = getattr(nn.functional, function)(tg.tensor(x).bfloat16(), tg.tensor(y).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        other = getattr(torch.nn.functional, function)(
            torch.tensor(x).bfloat16(), torch.tensor(y).bfloat16()
        )
    assert loss.dtype == np.float32
    assert other.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), other.item(), rtol=1e-6)  # of float32 sums


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.02, "amsgrad": True}),
    ("NAdam", {"lr": 0.02}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5}),
    ("Adagrad", {"lr": 0.05, "initial_accumulator_value": 0.1}),
]
SEQUENCES = {
    "none": "........",
    "first": "x.......",
    "some": "..x.xx...x..",
    "all": "xxxx",
    "growing": "...........x.........",
}
"""Steps; those with an x have an infinite gradient."""


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
@pytest.mark.parametrize("steps", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
class TestScaler:
    def test_same_scales_and_parameters(
        self, name: str, options: dict[str, Any], steps: str, clip: bool, device: str
    ) -> None:
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((3, 4)).astype("float32")
        batches = [rng.standard_normal((5, 4)).astype("float32") for _ in steps]
        for batch, step in zip(batches, steps, strict=True):
            batch[2, 1] = np.inf if step == "x" else batch[2, 1]
        schedule = {"init_scale": 8.0, "growth_factor": 4.0, "growth_interval": 3}
        mine = tg.amp.GradScaler(device, **schedule)  # type: ignore[arg-type]
        other = torch.amp.GradScaler("cpu", **schedule)
        w = tg.tensor(weight, device=device, requires_grad=True)
        v = torch.tensor(weight, requires_grad=True)
        a = getattr(tg.optim, name)([w], **options)
        b = getattr(torch.optim, name)([v], **options)
        for batch in batches:
            for library, scaler, optimizer, p, x in (
                (tg, mine, a, w, tg.tensor(batch, device=device)),
                (torch, other, b, v, torch.tensor(batch)),
            ):
                optimizer.zero_grad()
                scaler.scale(((x @ p.T) ** 2).sum()).backward()
                if clip:
                    scaler.unscale_(optimizer)
                    library.nn.utils.clip_grad_norm_([p], 1.0)
                scaler.step(optimizer)
                scaler.update()
            assert mine.state_dict() == other.state_dict()
            # powers of two come and go exactly: what differs are the optimizers' roundings
            np.testing.assert_allclose(w.detach().cpu(), v.detach(), rtol=2e-5, atol=2e-6)


def test_state_dicts_are_exchanged() -> None:
    mine, other = tg.amp.GradScaler(init_scale=32.0), torch.amp.GradScaler("cpu", init_scale=64.0)
    assert mine.state_dict().keys() == other.state_dict().keys()
    mine.load_state_dict(other.state_dict())
    assert mine.get_scale() == 64.0
    other.load_state_dict(tg.amp.GradScaler(init_scale=4.0).state_dict())
    assert other.get_scale() == 4.0
