"""The chain rule: accumulation, memory, order of nodes, in-place changes, hooks."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.autograd.interpreters import replay
from tinygrad_bn.autograd.variable import LAST_WRITE
from tinygrad_bn.errors import BackendError, DtypeError, GradientError, ShapeError


def leaf(values, device="cpu"):
    return tg.tensor(values, dtype=tg.float64, device=device, requires_grad=True)


def test_gradients_accumulate_over_backwards(device):
    x = leaf([1.0, 2.0], device)
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]


def test_a_value_used_twice_gets_both_gradients(device):
    x = leaf([3.0], device)
    y = x * 2
    (y * y + y).sum().backward()
    assert x.grad.tolist() == [2 * (2 * 6 + 1)]


def test_a_chain_of_100_000_operations_differentiates_and_is_freed():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.backward()
    assert x.grad.item() == 1.0
    del y
    gc.collect()


def test_a_deep_graph_that_is_never_differentiated_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = y * 1.0
    del y


def test_backward_frees_the_graph():
    x = leaf([1.0, 2.0])
    y = x.exp()
    kept = weakref.ref(y.creator)
    z = y.sum()
    z.backward()
    with pytest.raises(GradientError, match="freed by an earlier backward"):
        z.backward()
    assert "y" not in kept().__dict__


def test_a_retained_graph_can_be_walked_again():
    x = leaf([1.0, 2.0])
    z = x.exp().sum()
    z.backward(retain_graph=True)
    z.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([1.0, 2.0]), rtol=1e-15)


def test_grad_leaves_grad_alone_and_prunes(device):
    x, w = leaf([1.0, 2.0], device), leaf([3.0, 4.0], device)
    y = (x * w).sum()
    (dx,) = tg.autograd.grad(y, [x])
    assert dx.tolist() == [3.0, 4.0]
    assert x.grad is None
    assert w.grad is None


def test_grad_of_a_result_of_an_operation():
    x = leaf([1.0, 2.0])
    y = x * 3
    z = (y * y).sum()
    dy, dx = tg.autograd.grad(z, [y, x])
    assert dy.tolist() == [6.0, 12.0]
    assert dx.tolist() == [18.0, 36.0]


def test_grad_names_an_unused_input():
    x, w = leaf([1.0]), leaf([1.0])
    with pytest.raises(GradientError, match="input 1 is not"):
        tg.autograd.grad((x * x).sum(), [x, w])
    _, dw = tg.autograd.grad((x * x).sum(), [x, w], allow_unused=True)
    assert dw is None
    _, dw = tg.autograd.grad((x * x).sum(), [x, w], materialize_grads=True)
    assert dw.tolist() == [0.0]


def test_outputs_and_their_gradients_are_checked():
    x = leaf([1.0, 2.0])
    with pytest.raises(GradientError, match="expected a scalar"):
        (x * x).backward()
    with pytest.raises(GradientError, match="no graph leads to"):
        tg.tensor([1.0]).sum().backward()
    with pytest.raises(GradientError, match=r"shape \(2,\)"):
        (x * x).backward(tg.ones(3, dtype=tg.float64))
    with pytest.raises(GradientError, match="float64"):
        (x * x).backward(tg.ones(2))


def test_backward_into_given_inputs_only():
    x, w = leaf([1.0]), leaf([2.0])
    (x * w).sum().backward(inputs=[w])
    assert x.grad is None
    assert w.grad.tolist() == [1.0]


def test_several_outputs_at_once():
    x = leaf([2.0])
    tg.autograd.backward([x * x, x * 3], [tg.tensor([1.0]).double(), tg.tensor([10.0]).double()])
    assert x.grad.tolist() == [4.0 + 30.0]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_gradients_of_every_order(order, device):
    x = leaf(0.7, device)
    y = x.sin()
    for _ in range(order):
        (y,) = tg.autograd.grad(y, [x], create_graph=True)
    expected = [np.sin, np.cos, lambda t: -np.sin(t), lambda t: -np.cos(t)][order % 4](0.7)
    assert y.item() == pytest.approx(expected, rel=1e-14)  # sums of a few products of sin and cos


def test_create_graph_in_backward_makes_grad_differentiable():
    x = leaf([1.0, 2.0])
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    first.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [6.0, 12.0], rtol=1e-15)


def test_no_graph_is_recorded_under_no_grad():
    x = leaf([1.0])
    with tg.no_grad():
        assert not (x * 2).requires_grad
        with tg.enable_grad():
            assert (x * 2).requires_grad
    with tg.inference_mode():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @tg.no_grad()
    def double(t):
        return t * 2

    assert not double(x).requires_grad
    with tg.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert tg.is_grad_enabled()


class TestModesAsDecorators:
    def test_need_no_parentheses(self):
        @tg.no_grad
        def quiet():
            return tg.is_grad_enabled()

        assert quiet() is False
        assert tg.is_grad_enabled()

    def test_hold_while_a_generator_runs_and_not_between(self):
        @tg.no_grad()
        def running():
            """Tells."""
            given = yield tg.is_grad_enabled()
            try:
                yield given, tg.is_grad_enabled()
            except KeyError:
                yield "caught", tg.is_grad_enabled()
            return tg.is_grad_enabled()

        generator = running()
        assert running.__doc__ == "Tells."
        assert next(generator) is False
        assert tg.is_grad_enabled()
        assert generator.send(7) == (7, False)
        assert generator.throw(KeyError()) == ("caught", False)
        assert tg.is_grad_enabled()
        with pytest.raises(StopIteration) as end:
            next(generator)
        assert end.value.value is False

    def test_hold_while_a_generator_is_closed(self):
        seen = []

        @tg.no_grad()
        def running():
            try:
                yield 1
            finally:
                seen.append(tg.is_grad_enabled())

        generator = running()
        next(generator)
        generator.close()
        assert seen == [False]
        assert tg.is_grad_enabled()

    def test_let_an_error_of_the_generator_through(self):
        @tg.no_grad()
        def broken():
            yield 1
            raise KeyError("own")

        generator = broken()
        next(generator)
        with pytest.raises(KeyError, match="own"):
            next(generator)
        assert tg.is_grad_enabled()


def test_gradient_mode_belongs_to_the_thread():
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


class TestInPlace:
    """A change of what a graph still needs is an error, never a wrong gradient."""

    def test_of_a_kept_input(self):
        x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        y = (x * w).sum()
        with tg.no_grad():
            w.add_(1.0)
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_of_a_kept_output(self):
        y = leaf([1.0, 2.0]).exp()
        z = y.sum()
        with tg.no_grad():
            y.zero_()
        with pytest.raises(GradientError, match="output of shape"):
            z.backward()

    def test_through_a_view(self):
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        y = (x * x).sum()
        with tg.no_grad():
            x.detach().reshape(4)[1] = 7.0
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_of_what_is_not_needed_is_allowed(self):
        x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        y = (x + w).sum()
        with tg.no_grad():
            w.zero_()
        y.backward()
        assert x.grad.tolist() == [1.0, 1.0]

    def test_before_the_operation_is_allowed(self):
        x = leaf([1.0, 2.0])
        with tg.no_grad():
            x.add_(1.0)
        (x * x).sum().backward()
        assert x.grad.tolist() == [4.0, 6.0]

    def test_is_refused_for_a_gradient_of_a_gradient(self):
        x, w = leaf([1.0]), leaf([2.0])
        y = (x + w).sum()
        with tg.no_grad():
            w.zero_()
        with pytest.raises(GradientError, match="higher order"):
            tg.autograd.grad(y, [x], create_graph=True)

    @pytest.mark.parametrize("holder", ["node", "view", "detached"])
    def test_of_running_statistics_that_a_graph_holds(self, holder, device):
        """What nobody holds is written to without any node having to look; these somebody holds."""
        norm = tg.nn.BatchNorm1d(2, device=device)
        norm(tg.randn(4, 2, device=device))
        x = tg.ones(2, device=device, requires_grad=True)
        mean = norm.running_mean
        held = {"node": mean, "view": mean[:], "detached": mean.detach()}[holder]
        y = (x * held).sum()
        del held
        norm(tg.randn(4, 2, device=device))
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_of_what_nobody_holds_stops_no_graph(self, device):
        norm = tg.nn.BatchNorm1d(2, device=device)
        norm(tg.randn(4, 2, device=device))
        x = tg.ones(2, device=device, requires_grad=True)
        y = (x * x).sum()
        before = LAST_WRITE[0]
        norm(tg.randn(4, 2, device=device))
        assert LAST_WRITE[0] == before
        y.backward()
        assert x.grad.tolist() == [2.0, 2.0]

    def test_inside_the_graph_is_refused(self):
        x = leaf([1.0])
        with pytest.raises(GradientError, match="outside of the graph"):
            x.zero_()
        assert x.tolist() == [1.0]


class TestHooks:
    def test_a_leaf_hook_sees_the_whole_gradient_once(self):
        x = leaf([1.0])
        seen = []
        x.register_hook(lambda g: seen.append(g.tolist()))
        (x * 2 + x * 3).sum().backward()
        assert seen == [[5.0]]

    def test_a_hook_may_replace_the_gradient_and_be_removed(self):
        x = leaf([1.0])
        y = x * 2
        handle = y.register_hook(lambda g: g * 10)
        z = (y * 3).sum()
        z.backward(retain_graph=True)
        assert x.grad.tolist() == [60.0]
        handle.remove()
        x.grad = None
        z.backward()
        assert x.grad.tolist() == [6.0]

    def test_a_hook_that_returns_a_wrong_shape_is_named(self):
        x = leaf([1.0])
        x.register_hook(lambda g: tg.ones(3))
        with pytest.raises(GradientError, match="expected a hook"):
            (x * 2).sum().backward()

    def test_retain_grad(self):
        x = leaf([1.0, 2.0])
        y = x * 2
        y.retain_grad()
        (y * y).sum().backward()
        assert y.grad.tolist() == [4.0, 8.0]

    def test_after_accumulation(self):
        x = leaf([1.0])
        seen = []
        x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
        (x * 2).sum().backward()
        (x * 2).sum().backward()
        assert seen == [[2.0], [4.0]]

    def test_hooks_run_on_tensors_with_a_graph_when_one_is_made(self):
        x = leaf([2.0])
        y = x * x
        handle = y.register_hook(lambda g: g * x)
        (dx,) = tg.autograd.grad((y * y).sum(), [x], create_graph=True)
        handle.remove()  # or it would act on the way through y again
        (ddx,) = tg.autograd.grad(dx.sum(), [x])
        # dx = 2x² · x · 2x = 4x⁴, so the next one is 16x³
        assert (dx.item(), ddx.item()) == (64.0, 128.0)


class TestGradAttribute:
    def test_gradients_share_no_memory(self):
        x, w = leaf([1.0, 2.0]), leaf([1.0, 2.0])
        start = tg.ones(2, dtype=tg.float64)
        (x + w).backward(start)
        arrays = [x.grad.array, w.grad.array, start.array]
        for i, a in enumerate(arrays):
            assert not any(np.shares_memory(a, b) for b in arrays[i + 1 :])

    def test_is_checked_when_set(self):
        x = leaf([1.0, 2.0])
        with pytest.raises(ShapeError, match=r"\(2,\)"):
            x.grad = tg.ones(3)
        with pytest.raises(DtypeError, match="tensor or None"):
            x.grad = np.ones(2)

    def test_adds_up_in_the_slot_an_optimizer_gives(self):
        x = leaf([1.0, 2.0])
        x.slot = np.full(2, np.nan)
        (x * 3).sum().backward()
        (x * 4).sum().backward()
        assert x.slot.tolist() == [7.0, 7.0]
        held = x.grad
        x.grad = None
        (x * 5).sum().backward()
        assert x.slot.tolist() == [5.0, 5.0]
        assert held.tolist() == [7.0, 7.0]  # nobody overwrites what was read

    def test_a_gradient_with_a_graph_is_not_changed_under_it(self):
        x = leaf([2.0])
        (x**2).sum().backward(create_graph=True)
        first = x.grad
        (x * 3).sum().backward()
        assert first.tolist() == [4.0]
        assert x.grad.tolist() == [7.0]


class Cube(tg.Function):
    def forward(self, x):
        self.x = x
        return x * x * x

    def backward(self, dy):
        return dy * (3 * self.x * self.x)


class Halves(tg.Function):
    """Two outputs: half of x and a quarter of it."""

    def forward(self, x):
        return x / 2, x / 4

    def backward(self, da, db):
        return da / 2 + db / 4


class TestFunction:
    def test_of_a_user_has_gradients_of_every_order(self, device):
        x = tg.tensor(np.linspace(-1, 1, 5), device=device, requires_grad=True)
        assert tg.autograd.gradgradcheck(Cube.apply, x, order=3)

    def test_with_several_outputs_fills_in_zeros(self):
        x = leaf([8.0])
        _, b = Halves.apply(x)
        b.sum().backward()
        assert x.grad.tolist() == [0.25]
        assert tg.autograd.gradgradcheck(lambda t: Halves.apply(t * t), leaf([1.0, 2.0]))

    def test_refuses_other_things_than_tensors(self):
        with pytest.raises(DtypeError, match="got ndarray"):
            Cube.apply(np.ones(3))
        with pytest.raises(DtypeError, match="at least one tensor"):
            Cube.apply(3.0)

    def test_a_gradient_of_a_wrong_shape_names_the_operation(self):
        class Wrong(tg.Function):
            def forward(self, x):
                return x * 1

            def backward(self, dy):
                return self.xp.sum(dy)

        with pytest.raises(ShapeError, match=r"Wrong.*\(3,\)"):
            Wrong.apply(leaf([1.0, 2.0, 3.0])).sum().backward()

    def test_a_wrong_number_of_gradients_names_the_operation(self):
        class Short(tg.Function):
            def forward(self, a, b):
                return a * b

            def backward(self, dy):
                return dy

        with pytest.raises(GradientError, match="expected 2 gradients from Short"):
            Short.apply(leaf([1.0]), leaf([1.0])).sum().backward()

    def test_without_a_backward_says_so(self):
        class Forward(tg.Function):
            def forward(self, x):
                return x * 1

        with pytest.raises(GradientError, match="Forward has no gradient"):
            Forward.apply(leaf([1.0])).sum().backward()

    def test_devices_do_not_mix(self, cuda):
        with pytest.raises(BackendError, match="on cpu, got one on cuda:0"):
            tg.ones(2) + tg.ones(2, device=cuda)


class TestAnomaly:
    def test_names_the_operation_and_the_line(self):
        x = leaf([0.0])
        with tg.autograd.detect_anomaly():
            y = x.sqrt() * 0  # the line
            with pytest.raises(GradientError, match="Sqrt made NaN") as caught:
                y.sum().backward()
        assert "# the line" in str(caught.value)

    def test_names_the_module(self):
        class Root(tg.nn.Module):
            def forward(self, x):
                return x.sqrt() * 0

        model = tg.nn.Sequential(tg.nn.Identity(), Root())
        with tg.autograd.detect_anomaly(), pytest.raises(GradientError, match=r"1.*Root"):
            model(leaf([0.0])).sum().backward()

    def test_is_quiet_otherwise(self):
        x = leaf([0.0])
        (x.sqrt() * 0).sum().backward()
        assert np.isnan(x.grad.item())


def test_a_replay_keeps_what_the_node_kept_as_tensors_with_history():
    x = leaf([1.0, 2.0])
    twin = replay(x.exp().creator)
    assert isinstance(twin.y, tg.Tensor)
    assert twin.y.requires_grad


def test_gradients_cross_devices_to_every_order(cuda):
    x = leaf([1.0, 2.0])
    y = (x.to(cuda) ** 3).to("cpu")
    (dx,) = tg.autograd.grad(y.sum(), [x], create_graph=True)
    assert dx.device == "cpu"
    dx.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [6.0, 12.0], rtol=1e-15)


class TestArguments:
    def test_outputs_and_inputs_must_be_tensors(self):
        x = leaf([1.0])
        with pytest.raises(DtypeError, match="tensors as outputs, got int"):
            tg.autograd.grad(3, x)
        with pytest.raises(DtypeError, match="tensors as inputs, got NoneType"):
            tg.autograd.grad((x * 2).sum(), None)
        with pytest.raises(DtypeError, match="tensors as inputs, got ndarray"):
            (x * 2).sum().backward(inputs=[np.ones(1)])
        with pytest.raises(GradientError, match="at least one tensor as outputs"):
            tg.autograd.backward([])

    def test_a_hook_must_be_a_function_and_keep_the_dtype(self):
        x = leaf([1.0])
        with pytest.raises(DtypeError, match="expected a function as the hook"):
            x.register_hook(3)
        x.register_hook(lambda g: g.float())
        with pytest.raises(GradientError, match="a gradient of float64"):
            (x * 2).sum().backward()

    def test_a_backward_that_gives_a_number_names_the_operation(self):
        class Number(tg.Function):
            def forward(self, x):
                return x * 1

            def backward(self, dy):
                return 1.0

        with pytest.raises(GradientError, match=r"arrays from Number.backward, got float"):
            Number.apply(leaf([1.0])).sum().backward()
