"""What a program could not do again is refused, by its line, and nothing has changed then."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.errors import CaptureError, DtypeError

X = tg.tensor([[1.0, 2.0], [3.0, 5.0]])
COUNT = 0


def if_positive(x: tg.Tensor) -> tg.Tensor:
    if x.sum() > 0:  # here
        return x
    return -x


def count(x: tg.Tensor) -> tg.Tensor:
    global COUNT
    COUNT += 1
    return x * 2


READS: dict[str, Callable[[tg.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),  # here
    "float": lambda x: x * float(x.sum()),  # here
    "int": lambda x: x[int(x[0, 0])],  # here
    "bool": if_positive,
    "numpy": lambda x: x.numpy(),  # here
    "array": lambda x: np.asarray(x),  # here
    "tolist": lambda x: x.tolist(),  # here
    "format": lambda x: f"{x.sum():.3f}",  # here
    "repr": lambda x: repr(x),  # here
    "mask": lambda x: x[x > 0],  # here
    "nonzero": lambda x: tg.nonzero(x),  # here
    "index": lambda x: list(range(5))[x.sum().long()],  # here
}


@pytest.mark.parametrize("name", READS)
def test_reading_a_value_names_the_line(name: str) -> None:
    with pytest.raises(CaptureError) as caught:
        tg.compile(READS[name])(X)
    place = str(caught.value).rpartition('File "')[2]
    path, line = place.split('", line ')
    with open(path, encoding="utf-8") as source:
        assert "# here" in source.readlines()[int(line.partition(",")[0]) - 1]


def draws(x: tg.Tensor) -> tg.Tensor:
    return x * random.random()


def draws_from_numpy(x: tg.Tensor) -> tg.Tensor:
    return x * float(np.random.random())  # noqa: NPY002


def test_python_that_a_replay_would_not_run_is_refused() -> None:
    with pytest.raises(CaptureError, match="changes count"):
        tg.compile(count)(X)
    losses: list[Any] = []
    with pytest.raises(CaptureError, match="kept elsewhere"):
        tg.compile(lambda x: losses.append(x.sum()))(X)
    counts = {"steps": 0}

    def counting(x: tg.Tensor) -> tg.Tensor:
        counts["steps"] += 1
        return x * 2

    with pytest.raises(CaptureError, match="changes counts"):
        tg.compile(counting)(X)
    rng = np.random.default_rng(0)
    with pytest.raises(CaptureError, match="changes random"):
        tg.compile(draws)(X)
    with pytest.raises(CaptureError, match=r"changes numpy\.random"):
        tg.compile(draws_from_numpy)(X)
    with pytest.raises(CaptureError, match="changes rng"):
        tg.compile(lambda x: x * float(rng.random()))(X)
    with pytest.raises(CaptureError, match="as a tensor"):
        tg.compile(lambda x: x + tg.tensor(rng.random((2, 2), dtype=np.float32)))(X)
    with pytest.raises(CaptureError, match="no replay could look"):
        tg.compile(lambda x: x + tg.from_numpy(rng.random((2, 2), dtype=np.float32)))(X)
    batches = iter([tg.ones(2, 2), tg.zeros(2, 2)])
    with pytest.raises(CaptureError, match="no replay could look"):
        tg.compile(lambda x: x + next(batches))(X)


def test_what_has_a_graph_or_is_no_tensor_is_refused() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(CaptureError, match="returns a tensor with a graph"):
        tg.compile(model)(X)
    with pytest.raises(DtypeError, match="got a NumPy array"):
        tg.compile(lambda x: x)(np.ones(2))
    with pytest.raises(CaptureError, match="without a graph"):
        tg.compile(lambda x: model(x).square().sum().backward(create_graph=True))(X)


def test_a_gradient_of_an_argument_is_asked_for_before_the_call() -> None:
    with pytest.raises(CaptureError, match="asks for no gradient of an argument"):
        tg.compile(lambda x: x.requires_grad_().square().sum().backward())(tg.ones(2))
    compiled = tg.compile(lambda x: x.square().sum().backward())
    x = tg.ones(2, requires_grad=True)
    for times in (1, 2, 3):
        compiled(x)
        assert x.grad is not None
        assert x.grad.tolist() == [2.0 * times] * 2


def test_a_refused_step_has_changed_no_tensor() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    before = {name: x.numpy().copy() for name, x in model.state_dict().items()}

    def step(x: tg.Tensor) -> float:
        model(x).square().sum().backward()
        return model[0].weight.grad.sum().item()  # type: ignore[no-any-return]

    with pytest.raises(CaptureError):
        tg.compile(step)(X)
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), before[name])
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_step_that_is_refused_at_its_end_is_taken_back() -> None:
    """Also what the optimizer, the schedule and the stream of random numbers keep in Python."""
    generator = tg.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(generator=generator), nn.Linear(3, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    seen: list[Any] = []

    def step(x: tg.Tensor) -> None:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if keeping:
            seen.append(1)

    keeping, compiled = False, tg.compile(step)
    compiled(X)
    before = [x.numpy().copy() for x in model.state_dict().values()]
    stream, keeping = generator.get_state().tolist(), True
    with pytest.raises(CaptureError, match="changes seen"):
        compiled(X)
    for x, y in zip(model.state_dict().values(), before, strict=True):
        np.testing.assert_array_equal(x.numpy(), y)
    assert generator.get_state().tolist() == stream
    assert schedule.last_epoch == 1
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert float(next(iter(optimizer.state.values()))["step"]) == 1


def test_errors_of_a_step_come_from_replays_too() -> None:
    loss = tg.compile(lambda x, t: nn.functional.cross_entropy(x, t))
    good = tg.tensor([0, 1])
    loss(X, good)
    for label in (7, 8, 9):  # from the second on after a quick look at the arguments
        with pytest.raises(IndexError, match=rf"expected labels of 2 classes.*got {label}"):
            loss(X, tg.tensor([0, label]))
        assert loss(X, good).item() == nn.functional.cross_entropy(X, good).item()


def test_errors_come_from_views_of_arguments_too() -> None:
    take = tg.compile(lambda x, i: nn.functional.cross_entropy(x, i.view(2, 2)[0]))
    good = tg.tensor([0, 1, 1, 0])
    take(X, good)
    for label in (7, 8, 9):
        with pytest.raises(IndexError, match=f"got {label}"):
            take(X, tg.tensor([0, label, 1, 0]))
        assert take(X, good).item() == nn.functional.cross_entropy(X, good[:2]).item()


def test_numbers_in_variables_are_seen() -> None:
    scale, options = 2.0, {"shift": 1.0}

    def step(x: tg.Tensor) -> tg.Tensor:
        return x * scale + options["shift"]

    compiled = tg.compile(step)
    for scale, options["shift"] in [(2.0, 1.0), (3.0, 1.0), (3.0, 5.0), (2.0, 1.0)]:  # noqa: B007
        np.testing.assert_array_equal(compiled(X).numpy(), step(X).numpy())


def test_a_step_that_never_settles_is_refused() -> None:
    options = {"number": 0}
    compiled = tg.compile(lambda x: x * options["number"])
    with pytest.raises(CaptureError, match="changes with every call: see options"):  # noqa: PT012
        for options["number"] in range(100):
            compiled(X)


def test_constants_that_a_step_overwrites_begin_anew() -> None:
    def step(x: tg.Tensor) -> tg.Tensor:
        total = tg.zeros(2)
        for row in range(2):
            total += x[row]
        return total

    compiled = tg.compile(step)
    for _ in range(3):
        assert compiled(X).tolist() == [4.0, 7.0]


def test_verify_finds_what_python_hides() -> None:
    hidden = iter(range(10))
    compiled = tg.compile(lambda x: x * next(hidden), verify=True)
    compiled(X)
    with pytest.raises(CaptureError, match="results of the step itself"):
        compiled(X)


def test_verify_leaves_training_as_it_is() -> None:
    found = []
    for verify in (False, True):
        tg.manual_seed(4)
        model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step(x: tg.Tensor, o: Any = optimizer, m: Any = model, s: Any = schedule) -> Any:
            o.zero_grad()
            loss = m(x).square().mean()
            loss.backward()
            o.step()
            s.step()
            return loss.detach()

        run = tg.compile(step, verify=verify)
        losses = [run(X).item() for _ in range(8)]
        found.append((losses, [x.numpy().copy() for x in model.state_dict().values()]))
    np.testing.assert_equal(found[0], found[1])
