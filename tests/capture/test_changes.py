"""Whatever changes between two calls, a compiled step does what the step itself does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.capture import contents, glance, tracing


class Setting:
    """A model, its optimizer and a step; gradients accumulate where nobody clears them."""

    def __init__(self, clear: bool) -> None:
        tg.manual_seed(0)
        self.model: Any = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        self.optimizer: Any = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.clear = clear
        self.scale = 2.0

    @property
    def weight(self) -> Any:
        return self.model[0].weight

    def step(self, x: tg.Tensor) -> tg.Tensor:
        if self.clear:
            self.optimizer.zero_grad()
        loss = self.model(x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def hook_of_a_gradient(s: Setting) -> Iterator[None]:
    handle = s.weight.register_hook(lambda grad: grad * s.scale)
    yield
    s.scale = 0.5
    yield
    handle.remove()


def hook_after_a_gradient(s: Setting) -> Iterator[None]:
    handle = s.weight.register_post_accumulate_grad_hook(lambda p: p._grad.mul_(0.5))
    yield
    handle.remove()


def step_of_the_optimizer(s: Setting) -> Iterator[None]:
    original, factor = s.optimizer.step, 0.5

    def step() -> None:
        for p in s.model.parameters():
            p._grad.mul_(factor)
        original()

    s.optimizer.step = step
    yield
    factor = 0.25
    yield
    del s.optimizer.step


def gradient_that_is_read_and_changed(s: Setting) -> Iterator[None]:
    s.weight.grad.zero_()
    yield
    s.weight.grad.mul_(3.0)


def gradients_set_to_zero(s: Setting) -> Iterator[None]:
    s.model.zero_grad(set_to_none=False)
    yield
    s.optimizer.zero_grad(set_to_none=False)


def gradient_in_another_array(s: Setting) -> Iterator[None]:
    s.weight.grad.data = s.weight.grad.data * 3
    yield
    s.weight._grad.array = s.weight._grad.array.T.copy().T
    yield
    s.weight.grad = tg.ones(3, 4, device=s.weight.device)
    yield
    s.weight.grad = None


def an_update_in_between(s: Setting) -> Iterator[None]:
    """With a learning rate that is put back: what the update read last is another one."""
    group = s.optimizer.param_groups[0]
    before, group["lr"] = group["lr"], 0.5
    s.optimizer.step()
    group["lr"] = before
    yield
    group["lr"] = 0.01
    yield
    group["lr"] = before


def groups_of_another_kind(s: Setting) -> Iterator[None]:
    s.optimizer.param_groups = tuple(s.optimizer.param_groups)
    yield
    s.optimizer.param_groups[0]["lr"] = 0.01


def statistics_and_parameters(s: Setting) -> Iterator[None]:
    s.model[1].running_mean.data = s.model[1].running_mean.data + 1
    yield
    s.weight.data = s.weight.data * 0.5
    yield
    s.model[1].eval()
    yield
    s.model[1].train()


CHANGES: list[Callable[[Setting], Iterator[None]]] = [
    hook_of_a_gradient,
    hook_after_a_gradient,
    step_of_the_optimizer,
    gradient_that_is_read_and_changed,
    gradients_set_to_zero,
    gradient_in_another_array,
    an_update_in_between,
    groups_of_another_kind,
    statistics_and_parameters,
]


def trained(change: Any, clear: bool, compiled: bool) -> list[Any]:
    """What is left after each call; twice between changes, since a second look is a quick one."""
    setting = Setting(clear)
    run = tg.compile(setting.step) if compiled else setting.step
    changes = change(setting)
    rng = np.random.default_rng(0)
    found = []
    for number in range(12):
        if number >= 4 and number % 2 == 0:
            next(changes, None)
        run(tg.tensor(rng.standard_normal((5, 4), dtype=np.float32)))
        tensors = [*setting.model.state_dict().values()]
        tensors += [p._grad for p in setting.model.parameters() if p._grad is not None]
        found.append([x.detach().cpu().numpy().copy() for x in tensors])
    return found


@pytest.mark.parametrize("clear", [True, False], ids=["cleared", "accumulated"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_seen(change: Any, clear: bool, device: str) -> None:
    np.testing.assert_equal(trained(change, clear, True), trained(change, clear, False))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_seen_without_machine_code(change: Any, monkeypatch: Any) -> None:
    class Bare:
        threaded_code = None

    monkeypatch.setattr(glance, "backend_for", lambda device: Bare)
    for clear in (True, False):
        np.testing.assert_equal(trained(change, clear, True), trained(change, clear, False))


def test_hooks_that_a_step_adds_are_refused() -> None:
    p = nn.Parameter(np.ones(3, np.float32))

    def step(x: tg.Tensor) -> None:
        p.register_hook(lambda grad: grad)
        (p * x).sum().backward()

    with pytest.raises(tg.errors.CaptureError, match="changes the hooks of p"):
        tg.compile(step)(tg.ones(3))


def test_options_of_a_users_optimizer_are_seen() -> None:
    class Halved(optim.SGD):
        factor = 0.5

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p._grad = p._grad * self.factor
            super().step()

    found = []
    for compiled in (False, True):
        p = nn.Parameter(np.ones(3, np.float32))
        optimizer = Halved([p], lr=0.1)

        def step(x: tg.Tensor, p: Any = p, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            (p * x).sum().backward()
            optimizer.step()

        run = tg.compile(step) if compiled else step
        for factor in (0.5, 0.5, 0.25, 2.0, 2.0):
            optimizer.factor = factor
            run(tg.ones(3))
        Halved.factor = 0.125
        del optimizer.factor
        run(tg.ones(3))
        Halved.factor = 0.5
        found.append(p.detach().numpy().copy())
    np.testing.assert_array_equal(*found)


def test_a_schedule_is_read_before_the_update_that_follows_it(device: str) -> None:
    found = []
    for compiled in (False, True):
        p = nn.Parameter(np.ones(3, np.float32)).to(device)
        optimizer = optim.SGD([p], lr=0.1)
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def step(x: tg.Tensor, p: Any = p, o: Any = optimizer, s: Any = schedule) -> None:
            o.zero_grad()
            (p * x).sum().backward()
            s.step()
            o.step()

        run = tg.compile(step) if compiled else step
        for _ in range(5):
            run(tg.ones(3))
        found.append(p.detach().cpu().numpy().copy())
    np.testing.assert_array_equal(*found)


def test_a_global_that_hides_what_is_built_in_is_seen() -> None:
    space: dict[str, Any] = {}
    exec("def step(x): return x * abs(-2)", space)
    compiled = tg.compile(space["step"])
    for hidden, wanted in [(False, 2), (False, 2), (True, -2), (True, -2), (False, 2)]:
        if hidden:
            space["abs"] = lambda number: number
        else:
            space.pop("abs", None)
        assert compiled(tg.ones(1)).item() == wanted


def test_attributes_of_classes_are_seen() -> None:
    class Base:
        shift = 0.0

    class Scaled(Base):
        scale = 2.0

        def __call__(self, x: tg.Tensor) -> tg.Tensor:
            return x * self.scale + self.shift

    model: Any = Scaled()
    compiled = tg.compile(lambda x: model(x))

    def seen(wanted: float) -> None:
        for _ in range(3):
            assert compiled(tg.ones(1)).item() == wanted

    seen(2)
    Scaled.scale = 3.0
    seen(3)
    Base.shift = 1.0
    seen(4)
    Scaled.shift = 2.0  # type: ignore[misc]
    seen(5)
    del Scaled.shift
    seen(4)
    Scaled.__call__ = lambda self, x: x * 7  # type: ignore[method-assign]
    seen(7)


def test_functions_that_are_reloaded_are_seen() -> None:
    """As IPython does it: in the function itself."""

    def factor(x: float = 2.0, *, y: float = 1.0) -> float:
        return x * y

    compiled = tg.compile(lambda x: x * factor())

    def seen(wanted: float) -> None:
        for _ in range(3):
            assert compiled(tg.ones(1)).item() == wanted

    seen(2)
    factor.__defaults__ = (3.0,)
    seen(3)
    factor.__kwdefaults__ = {"y": 2.0}
    seen(6)
    factor.__kwdefaults__["y"] = 5.0
    seen(15)
    factor.__code__ = (lambda: 7.0).__code__
    seen(7)


def test_graphs_that_need_what_a_replay_overwrites_refuse(device: str) -> None:
    """Of arguments as of state."""
    state = tg.zeros(4)

    def step(x: tg.Tensor) -> None:
        x.add_(1.0)
        state.add_(x)

    compiled = tg.compile(step)
    for _ in range(3):
        for number in range(2):
            x, w = tg.ones(4), nn.Parameter(np.ones(4, np.float32))
            y = (w * (x, state)[number]).sum()
            compiled(x)
            with pytest.raises(tg.errors.GradientError):
                y.backward()


def test_what_changes_at_every_call_is_noted_ever_more_rarely(monkeypatch: Any) -> None:
    """To note it takes ten times as long as to look closely at it."""
    made: list[Any] = []

    class Counted(glance.Glance):
        def __init__(self, *args: Any) -> None:
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(tracing, "Glance", Counted)
    setting = Setting(clear=True)
    run, group = tg.compile(setting.step), setting.optimizer.param_groups[0]
    for number in range(100):
        group["lr"] = 0.1 / (number + 1)
        run(tg.ones(5, 4))
    assert len(made) <= 2 * 7  # two programs, the first for a call without gradients
    assert setting.optimizer.param_groups[0]["lr"] == 0.001


def test_a_step_may_return_numbers() -> None:
    for result in (0, 1, 2, None, True):
        compiled = tg.compile(lambda x, result=result: (x.add_(1), result)[1])
        x = tg.zeros(2)
        assert [compiled(x) for _ in range(4)] == [result] * 4
        assert x.tolist() == [4, 4]


@pytest.mark.parametrize("held", ["machine code", "Python"])
def test_what_containers_hold(held: str) -> None:
    if held == "Python":
        kind: Any = contents.Held
    else:
        pytest.importorskip("numba")
        from tinygrad_bn.backends import threaded_code

        kind = threaded_code.Held
    a, b, c = object(), object(), object()
    mapping, names, items, cell = {1: a, "b": b}, {"b": b}, [a, b], (lambda: variable).__closure__
    assert cell

    def function(x: Any = a) -> None:
        pass

    rows = [(names, "b"), (names, "c")]
    look = kind([[mapping], [items], rows, [cell[0]], [function, Setting.step]])

    def seen(bits: int) -> None:
        assert look.changed() == bits

    seen(0)
    mapping[1] = c
    seen(1)
    mapping[1] = a
    seen(0)
    mapping["c"] = c
    seen(1)
    del mapping["c"], mapping[1]
    mapping[1] = a  # the same, in another order
    seen(1)
    items.append(c)
    seen(0b11)
    items.pop()
    items[0] = c
    seen(0b11)
    items[0] = a
    names["d"] = c
    seen(1)
    names["c"] = c
    seen(0b101)
    del names["c"], names["b"]
    seen(0b101)
    names["b"] = b
    variable = c
    seen(0b1001)
    variable = a
    seen(0b1001)
    function.__defaults__ = (b,)
    seen(0b11001)
    function.__defaults__ = (a,)  # another tuple
    seen(0b11001)
