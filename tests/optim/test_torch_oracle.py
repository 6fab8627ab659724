"""Every optimizer that PyTorch has too, against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.problem import Trained, TrainedByTorch, distance
from tinygrad_bn.optim.optimizer import ELSEWHERE

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

# The update rules are the same, in float64: what remains is the rounding of sums in another order,
# 1e-16 a step, and of tanh, which a problem that is not convex magnifies. LBFGS divides by
# differences of gradients, which are small at the end.
TOLERANCE = 1e-10
LBFGS_TOLERANCE = 1e-9

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.001, "weight_decay": 0.05, "maximize": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.005}),
    ("Adam", {"lr": 0.005, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.005, "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.005, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.005}),
    ("AdamW", {"lr": 0.005, "amsgrad": True, "weight_decay": 0.3, "maximize": True}),
    ("RMSprop", {"lr": 0.002}),
    ("RMSprop", {"lr": 0.0005, "momentum": 0.9, "weight_decay": 0.05}),
    ("RMSprop", {"lr": 0.001, "centered": True, "alpha": 0.9}),
    ("RMSprop", {"lr": 0.001, "centered": True, "momentum": 0.5, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.03}),
    ("Adagrad", {"lr": 0.03, "lr_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.05}),
    ("Adamax", {"lr": 0.005}),
    ("Adamax", {"lr": 0.005, "betas": (0.8, 0.95), "weight_decay": 0.05}),
    ("NAdam", {"lr": 0.005}),
    ("NAdam", {"lr": 0.005, "weight_decay": 0.1, "momentum_decay": 0.01}),
    ("NAdam", {"lr": 0.005, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.005}),
    ("RAdam", {"lr": 0.005, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.005, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("LBFGS", {"lr": 0.05, "max_iter": 3}),
    ("LBFGS", {"lr": 0.05, "max_iter": 4, "history_size": 3}),
]
each = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{n}-{'-'.join(map(str, o))}" for n, o in CASES]
)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """PyTorch keeps counters in its default dtype; NAdam's product of momenta needs float64 too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def exact_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep PyTorch's Newton-Schulz iteration in float64, where ours runs too."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


def advance(trained: Any, count: int) -> None:
    if trained.optimizer.__class__.__name__ == "LBFGS":
        for _ in range(count // 20 or 1):  # each of them makes several steps
            trained.optimizer.step(trained.loss)
    else:
        trained.steps(count)


def as_numpy(value: Any) -> Any:
    if isinstance(value, list):
        return [as_numpy(x) for x in value]
    return np.asarray(value.detach() if hasattr(value, "detach") else value, dtype=float)


def ours(value: Any) -> Any:
    """A value of PyTorch's state dict with our tensors in it."""
    if isinstance(value, dict):
        return {key: ours(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(ours(x) for x in value)
    return tg.Tensor(value.numpy()) if isinstance(value, torch.Tensor) else value


@each
def test_trajectory_of_200_steps(name: str, options: dict[str, Any]) -> None:
    mine, theirs = Trained(name, **options), TrainedByTorch(name, **options)
    for trained in (mine, theirs):
        advance(trained, 200)
    assert distance(mine, theirs) < (LBFGS_TOLERANCE if name == "LBFGS" else TOLERANCE)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
@pytest.mark.usefixtures("exact_muon")
def test_trajectory_of_muon(nesterov: bool, adjust: str | None) -> None:
    options = {"all": False, "lr": 0.003, "nesterov": nesterov, "adjust_lr_fn": adjust}
    mine, theirs = Trained("Muon", **options), TrainedByTorch("Muon", **options)
    for trained in (mine, theirs):
        trained.steps(200)
    assert distance(mine, theirs) < TOLERANCE


def test_line_search_takes_the_same_steps() -> None:
    options = {"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 4}
    mine, theirs = Trained("LBFGS", **options), TrainedByTorch("LBFGS", **options)
    for trained in (mine, theirs):
        advance(trained, 4)
    assert distance(mine, theirs) < 1e-8  # a quotient of differences in every interpolation
    state = [t.optimizer.state_dict()["state"][0] for t in (mine, theirs)]
    assert state[0]["func_evals"] == state[1]["func_evals"]
    assert state[0]["n_iter"] == state[1]["n_iter"]


@each
def test_state_dict_has_the_same_keys_and_values(name: str, options: dict[str, Any]) -> None:
    mine, theirs = Trained(name, **options), TrainedByTorch(name, **options)
    for trained in (mine, theirs):
        advance(trained, 3)
    a, b = mine.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert a["state"].keys() == b["state"].keys()
    for number, entry in b["state"].items():
        expected = {key: value for key, value in entry.items() if key != "al"}  # L-BFGS's scratch
        assert a["state"][number].keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(
                as_numpy(a["state"][number][key]), as_numpy(value), rtol=1e-9, atol=1e-12
            )
    for mine_group, group in zip(a["param_groups"], b["param_groups"], strict=True):
        assert mine_group == {key: value for key, value in group.items() if key not in ELSEWHERE}


@each
def test_training_goes_on_from_torchs_state(name: str, options: dict[str, Any]) -> None:
    theirs = TrainedByTorch(name, **options)
    advance(theirs, 20)
    mine = Trained(
        name, **({"lr": 1.0} | {k: v for k, v in options.items() if k == "history_size"})
    )
    with tg.no_grad():
        for p, q in zip(mine.params, theirs.params, strict=True):
            p.overwrite(q.detach().numpy())
    mine.optimizer.load_state_dict(ours(theirs.optimizer.state_dict()))
    mine.done = theirs.done
    for trained in (mine, theirs):
        advance(trained, 20)
    assert distance(mine, theirs) < TOLERANCE


def test_torch_goes_on_from_our_state() -> None:
    mine, theirs = Trained("Adam", lr=0.02, amsgrad=True), TrainedByTorch("Adam")
    mine.steps(20)
    saved = mine.optimizer.state_dict()
    for p, q in zip(mine.params, theirs.params, strict=True):
        q.data.copy_(torch.tensor(p.array))
    state = {
        number: {key: torch.tensor(value.array) for key, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    theirs.optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    theirs.done = mine.done
    mine.steps(20)
    theirs.steps(20)
    assert distance(mine, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "RMSprop", "Adagrad"])
def test_parameters_with_gradients_now_and_then(name: str) -> None:
    """Each parameter counts only the steps in which it had a gradient."""
    options = {"lr": 0.01, **({"momentum": 0.9, "dampening": 0.3} if name == "SGD" else {})}
    mine, theirs = Trained(name, **options), TrainedByTorch(name, **options)
    for step in range(30):
        for trained in (mine, theirs):
            trained.loss(slice(0, 8))
            for i, p in enumerate(trained.params):
                if (step * 7 + i * 3) % 5 < 2 or (i == 1 and step < 9):
                    p.grad = None
            trained.optimizer.step()
    assert distance(mine, theirs) < TOLERANCE
    a, b = (t.optimizer.state_dict()["state"] for t in (mine, theirs))
    for number, entry in b.items():
        for key, value in entry.items():
            np.testing.assert_allclose(as_numpy(a[number][key]), as_numpy(value), rtol=1e-9)


def test_groups_with_options_of_their_own() -> None:
    def grouped(params: list[Any]) -> list[dict[str, Any]]:
        return [
            {"params": params[:1], "lr": 0.05, "betas": (0.5, 0.9)},
            {"params": params[1:], "weight_decay": 0.1, "amsgrad": True},
        ]

    mine, theirs = Trained("Adam"), TrainedByTorch("Adam")
    mine.optimizer = tg.optim.Adam(grouped(mine.params), lr=0.02)
    theirs.optimizer = torch.optim.Adam(grouped(theirs.params), lr=0.02)
    for trained in (mine, theirs):
        trained.steps(100)
        trained.optimizer.param_groups[0]["lr"] = 0.001
        trained.steps(100)
    assert distance(mine, theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam"])
def test_float32_stays_within_its_precision(name: str) -> None:
    mine = Trained(name, dtype="float32", lr=0.01)
    exact = Trained(name, lr=0.01)
    mine.steps(50)
    exact.steps(50)
    assert distance(mine, exact) < 2e-5  # 50 steps, each rounded to 6e-8 of values up to 3


@pytest.mark.parametrize(
    "message",
    ["lr", "betas", "eps", "weight_decay"],
)
def test_what_torch_refuses_is_refused(message: str) -> None:
    bad: dict[str, Any] = {message: (1.0, 0.9) if message == "betas" else -1.0}
    with pytest.raises(ValueError, match=message):
        Trained("Adam", **bad)
    with pytest.raises(ValueError):
        TrainedByTorch("Adam", **bad)
