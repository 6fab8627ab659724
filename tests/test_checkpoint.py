"""Checkpointing: the same gradients, less memory, no step counted twice."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cupy_standin import count_traffic
from tinygrad_bn import config, nn
from tinygrad_bn.errors import ArgumentError, GradientError
from tinygrad_bn.utils.checkpoint import checkpoint


def network():
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5)).double()


def gradients(model, x, run):
    tg.manual_seed(1)
    y = run(model, x)
    (y * y).sum().backward()
    return [x.grad, *(p.grad for p in model.parameters())]


def test_gives_the_same_gradients_bit_for_bit():
    values = np.random.default_rng(0).normal(size=(16, 4))
    a, b = (tg.tensor(values, requires_grad=True) for _ in range(2))
    first, second = network(), network()
    plain = gradients(first, a, lambda m, x: m(x))
    again = gradients(second, b, checkpoint)
    for p, q in zip(plain, again, strict=True):
        assert p.tolist() == q.tolist()
    for p, q in zip(first.buffers(), second.buffers(), strict=True):
        assert p.tolist() == q.tolist()  # running statistics advanced once


def test_the_stream_goes_on_where_it_was():
    x = tg.ones(4, 4, requires_grad=True)
    tg.manual_seed(3)
    checkpoint(nn.Dropout(0.5), x).sum().backward()
    after = tg.rand(3)
    tg.manual_seed(3)
    nn.Dropout(0.5)(x)
    assert after.tolist() == tg.rand(3).tolist()


def test_has_gradients_of_higher_order():
    x = tg.tensor(np.linspace(-1, 1, 5), requires_grad=True)
    assert tg.autograd.gradgradcheck(lambda t: checkpoint(lambda s: (s * s).sin(), t), x, order=3)


def test_parameters_in_a_closure_get_theirs():
    w = tg.tensor([2.0], requires_grad=True)
    x = tg.tensor([3.0], requires_grad=True)
    checkpoint(lambda t: t * w, x).sum().backward()
    assert (w.grad.item(), x.grad.item()) == (3.0, 2.0)


def test_inputs_without_gradient_and_other_arguments():
    w = tg.tensor([2.0], requires_grad=True)
    y = checkpoint(lambda t, k, *, shift: t * w * k + shift, tg.tensor([3.0]), 5, shift=1.0)
    y.sum().backward()
    assert (y.item(), w.grad.item()) == (31.0, 15.0)


def test_several_outputs():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    a, b = checkpoint(lambda t: (t * 2, t * t), x)
    (a + b).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_keeps_nothing_between():
    x = tg.ones(3, requires_grad=True)
    y = checkpoint(lambda t: t.exp().exp().exp(), x)
    kept = [v for v in y.creator.__dict__.values() if isinstance(v, np.ndarray)]
    assert kept == []
    assert y.creator.attributes["outputs"] == []


def test_needs_a_tensor():
    with pytest.raises(ArgumentError, match="at least one tensor"):
        checkpoint(lambda: tg.ones(1))


def test_without_gradients_is_a_plain_call():
    with tg.no_grad():
        assert checkpoint(lambda t: t * 2, tg.ones(1)).tolist() == [2.0]


class Counting(nn.Module):
    """x times the number of the call: state that is read and then changed."""

    def __init__(self):
        super().__init__()
        self.calls = 1.0

    def forward(self, x):
        factor = config.as_first_seen(lambda: self.calls)
        if not config.recomputing.get():
            self.calls += 1
        return x * factor


def test_a_second_forward_sees_the_state_of_the_first():
    x = tg.tensor([1.0], requires_grad=True)
    layer = Counting()
    y = checkpoint(lambda t: layer(layer(t)), x)  # times 1, times 2
    layer(x)
    y.sum().backward(retain_graph=True)
    assert (y.item(), x.grad.item()) == (2.0, 2.0)
    y.sum().backward()  # and a third
    assert (x.grad.item(), layer.calls) == (4.0, 4.0)


def test_a_segment_within_a_segment_sees_it_too():
    x = tg.tensor([1.0], requires_grad=True)
    layer = Counting()
    y = checkpoint(lambda t: checkpoint(layer, layer(t)) * t, x)
    layer(x)
    y.sum().backward()
    assert (y.item(), x.grad.item(), layer.calls) == (2.0, 4.0, 4.0)


def test_no_host_waits_for_the_stream_of_random_numbers(cuda):
    model = network().to(cuda)
    x = tg.ones(4, 4, dtype=tg.float64, device=cuda, requires_grad=True)
    checkpoint(model, x).sum().backward()  # what is made once has been
    with count_traffic() as seen:
        checkpoint(model, x).sum().backward()
    assert (seen.d2h, seen.synchronizations) == (0, 0)


def test_a_second_forward_that_reads_more_is_refused():
    x = tg.tensor([1.0], requires_grad=True)
    layer = Counting()
    y = checkpoint(lambda t: layer(t) if layer.calls == 1 else layer(layer(t)), x)
    with pytest.raises(GradientError, match="what the first did"):
        y.sum().backward()
