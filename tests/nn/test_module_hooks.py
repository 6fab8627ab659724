"""Hooks around forward and backward, and the names of modules in anomaly mode."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, GradientError, TinygradError


class Doubled(nn.Module):
    def forward(self, x, factor=2.0):
        return x * factor


class TestForwardHooks:
    def test_before_forward_may_replace_the_arguments(self):
        m = Doubled()
        seen = []
        m.register_forward_pre_hook(lambda module, args: seen.append((module, args)))
        with m.register_forward_pre_hook(lambda module, args: args[0] + 1):
            assert m(3) == 8
        assert m(3) == 6
        assert seen == [(m, (3,)), (m, (3,))]

    def test_before_forward_may_replace_keywords(self):
        m = Doubled()
        m.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True
        )
        assert m(2, factor=3) == 8

    def test_after_forward_may_replace_the_output(self):
        m = Doubled()
        first = m.register_forward_hook(lambda module, args, output: output + 1)
        m.register_forward_hook(
            lambda module, args, kwargs, output: (args, kwargs, output), with_kwargs=True
        )
        assert m(2, factor=1) == ((2,), {"factor": 1}, 3)
        first.remove()
        assert m(2, factor=1) == ((2,), {"factor": 1}, 2)

    def test_the_same_hook_twice_is_removed_once(self):
        m, seen = Doubled(), []

        def hook(module, args):
            seen.append(args)

        handle = m.register_forward_pre_hook(hook)
        m.register_forward_pre_hook(hook)
        handle.remove()
        m(1)
        assert len(seen) == 1


class TestBackwardHooks:
    def test_sees_the_gradients_of_inputs_and_outputs(self):
        m, seen = Doubled(), []
        m.register_full_backward_hook(lambda *args: seen.append(args))
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        (m(x * 1) * tg.tensor([3.0, 4.0])).sum().backward()
        [(module, grad_input, grad_output)] = seen
        assert module is m
        assert [g.tolist() for g in grad_output] == [[3, 4]]
        assert [g.tolist() for g in grad_input] == [[6, 8]]
        assert x.grad.tolist() == [6, 8]

    def test_may_replace_the_gradient_of_the_input(self):
        m = Doubled()
        m.register_full_backward_hook(lambda m, grad_input, grad_output: (grad_input[0] * 10,))
        x = tg.tensor([1.0], requires_grad=True)
        m(x).sum().backward()
        assert x.grad.tolist() == [20]

    def test_parameters_get_the_gradients_they_would_have_had(self):
        plain = nn.Linear(3, 2)
        hooked = copy.deepcopy(plain)
        hooked.register_full_backward_hook(lambda *args: None)
        x = tg.randn(4, 3)
        for m in (plain, hooked):
            m(x).square().sum().backward()
        assert np.array_equal(plain.weight.grad.numpy(), hooked.weight.grad.numpy())

    def test_without_a_gradient_of_the_input_there_is_none(self):
        m, seen = nn.Linear(2, 2), []
        m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
        m(tg.ones(1, 2)).sum().backward()
        assert seen == [((None,), [[1, 1]])]

    def test_several_inputs_and_outputs(self):
        class Swap(nn.Module):
            def forward(self, a, n, b):
                return b * n, n, a * 2

        m, seen = Swap(), []
        m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        a, b = (tg.ones(1, requires_grad=True) for _ in range(2))
        first, _, second = m(a, 3, b)
        (first + 5 * second).sum().backward()
        [(grad_input, grad_output)] = seen
        assert [g and g.item() for g in grad_input] == [10, None, 3]
        assert [g and g.item() for g in grad_output] == [1, None, 5]

    def test_gradients_of_gradients_pass_through(self):
        m = Doubled()
        m.register_full_backward_hook(lambda *args: None)
        x = tg.tensor([3.0], requires_grad=True)
        y = (m(x) ** 3).sum()
        (first,) = tg.autograd.grad(y, x, create_graph=True)
        (second,) = tg.autograd.grad(first.sum(), x)
        assert first.item() == 3 * 2 * 36  # d(2x)³/dx = 24 x²
        assert second.item() == 48 * 3

    def test_a_result_of_another_length_is_refused(self):
        m = Doubled()
        m.register_full_backward_hook(lambda m, gi, go: (gi[0], gi[0]))
        y = m(tg.ones(1, requires_grad=True)).sum()
        with pytest.raises(ArgumentError, match="return 1 gradients, got 2"):
            y.backward()

    def test_nothing_is_recorded_under_no_grad(self):
        m = Doubled()
        m.register_full_backward_hook(lambda *args: None)
        with tg.no_grad():
            assert not m(tg.ones(1, requires_grad=True)).requires_grad

    def test_a_change_in_place_of_the_input_is_still_seen(self):
        class Squared(nn.Module):
            def forward(self, x):
                return x * x

        m = Squared()
        m.register_full_backward_hook(lambda *args: None)
        x = tg.ones(2, requires_grad=True)
        y = m(x).sum()
        x.detach().overwrite(3)
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()


class TestAnomalyMode:
    def test_names_the_module_in_the_trace(self):
        class Root(nn.Module):
            def forward(self, x):
                return (x - 1).sqrt()

        m = nn.Sequential(nn.Identity(), nn.Sequential(Root()))
        token = tg.config.anomaly_mode.set(True)
        try:
            y = m(tg.ones(1, requires_grad=True) * 1)
            with pytest.raises(TinygradError, match=r"In module '1.0' \(Root\)"):
                (y * 0).sum().backward()
        finally:
            tg.config.anomaly_mode.reset(token)
        assert tg.config.where.get() == ""
