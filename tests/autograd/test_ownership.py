"""Gradients that are kept where they were computed: nobody sees them change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.autograd.ownership import taken
from tinygrad_bn.backend import get_backend
from tinygrad_bn.errors import GradientError
from tinygrad_bn.nn import functional as F

NUMPY = get_backend("numpy")


def leaf(*shape: int, device: str = "cpu") -> tg.Tensor:
    return tg.randn(*shape, dtype=tg.float64, device=device, requires_grad=True)


def memory(array: Any) -> int:
    """Where an array begins."""
    return int(array.__array_interface__["data"][0])


class TestTaken:
    """What `taken` keeps, and what it copies."""

    def kept(self, held: list[Any]) -> bool:
        before = memory(held[-1])
        return memory(taken(held, NUMPY)) == before

    def test_an_array_that_nobody_else_has_is_kept(self) -> None:
        assert self.kept([np.ones(3)])

    def test_so_is_another_shape_of_one(self) -> None:
        assert self.kept([np.ones((3, 1)).reshape(3)])

    def test_one_with_another_name_is_copied(self) -> None:
        array = np.ones(3)
        assert not self.kept([array])
        assert array.tolist() == [1.0, 1.0, 1.0]

    def test_one_with_a_view_is_copied(self) -> None:
        array = np.ones(3)
        held = [array]
        view = array[:2]
        del array
        assert not self.kept(held)
        assert view.tolist() == [1.0, 1.0]

    def test_a_view_of_what_somebody_has_is_copied(self) -> None:
        array = np.ones((3, 1))
        assert not self.kept([array.reshape(3)])

    def test_a_part_of_a_larger_one_is_copied(self) -> None:
        assert not self.kept([np.ones(30)[:3]])

    def test_repeated_elements_are_copied(self) -> None:
        copy = taken([np.broadcast_to(np.ones(1), (3,))], NUMPY)
        copy[0] = 5.0
        assert copy.tolist() == [5.0, 1.0, 1.0]

    def test_one_in_another_order_is_copied_into_c_order(self) -> None:
        assert taken([np.ones((3, 2)).T], NUMPY).flags.c_contiguous

    def test_memory_that_is_not_numpys_is_copied(self) -> None:
        assert not self.kept([np.frombuffer(bytes(8))])


class Kept(tg.autograd.Function):
    """The identity, whose gradient is an array that the test remembers the place of."""

    def forward(self, x: Any, *, places: list[int]) -> Any:
        self.places = places
        return x

    def backward(self, dy: Any, /) -> Any:
        dx = dy * 1.0
        self.places.append(memory(dx))
        return dx


def test_a_gradient_is_kept_where_it_was_computed() -> None:
    x, places = leaf(3), []
    Kept.apply(x, places=places).sum().backward()
    assert [memory(x.grad.array)] == places


def test_a_gradient_that_is_asked_for_is_given_where_it_was_computed() -> None:
    x, places = leaf(3), []
    (dx,) = tg.autograd.grad(Kept.apply(x, places=places).sum(), [x])
    assert [memory(dx.array)] == places


def test_leaves_that_get_the_same_gradient_share_nothing(device: str) -> None:
    x, y = leaf(3, device=device), leaf(3, device=device)
    (x + y).backward(tg.ones(3, dtype=tg.float64, device=device))
    with tg.no_grad():
        x.grad.mul_(5.0)
    assert x.grad.tolist() == [5.0] * 3
    assert y.grad.tolist() == [1.0] * 3


def test_the_gradient_that_a_walk_starts_from_stays_the_callers(device: str) -> None:
    x, start = leaf(3, device=device), tg.ones(3, dtype=tg.float64, device=device)
    x.backward(start)
    (x + 0.0).backward(start)
    assert x.grad.tolist() == [2.0] * 3
    assert start.tolist() == [1.0] * 3


def test_the_same_input_twice_gives_two_gradients(device: str) -> None:
    x = leaf(3, device=device)
    a, b = tg.autograd.grad((x * 2).sum(), [x, x])
    with tg.no_grad():
        a.mul_(5.0)
    assert b.tolist() == [2.0] * 3


def test_what_a_hook_keeps_does_not_change(device: str) -> None:
    x, seen = leaf(3, device=device), []
    x.register_hook(lambda grad: seen.append(grad))
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert [grad.tolist() for grad in seen] == [[2.0] * 3, [3.0] * 3]
    assert x.grad.tolist() == [5.0] * 3


def test_a_gradient_of_a_value_in_between_does_not_change(device: str) -> None:
    x = leaf(3, device=device)
    y = x * 1.0
    y.retain_grad()
    (y + 0.0).sum().backward()
    with tg.no_grad():
        y.grad.mul_(5.0)
    assert x.grad.tolist() == [1.0] * 3


class TestInSlots:
    """Layers whose gradients an optimizer keeps: backward writes them where they belong."""

    @pytest.fixture
    def layer(self, device: str) -> Any:
        layer = tg.nn.Linear(4, 3, device=device)
        self.optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)
        return layer

    def gradients(self, layer: Any, x: tg.Tensor) -> list[Any]:
        """Those of a layer without an optimizer."""
        plain = tg.nn.Linear(4, 3, device=x.device)
        plain.load_state_dict(layer.state_dict())
        plain(x).square().sum().backward()
        return [p.grad.tolist() for p in plain.parameters()]

    def now(self, layer: Any) -> list[Any]:
        return [None if p.grad is None else p.grad.tolist() for p in layer.parameters()]

    def test_they_are_those_without_an_optimizer(self, layer: Any, device: str) -> None:
        x = tg.randn(5, 4, device=device)
        layer(x).square().sum().backward()
        assert all(p._grad.array is p.slot for p in layer.parameters())
        assert self.now(layer) == self.gradients(layer, x)

    def test_a_second_pass_adds(self, layer: Any, device: str) -> None:
        x = tg.randn(5, 4, device=device)
        y = layer(x).square().sum()
        y.backward(retain_graph=True)
        y.backward()
        expected = [(2 * np.array(dx)).tolist() for dx in self.gradients(layer, x)]
        assert self.now(layer) == expected

    def test_a_layer_that_is_used_twice_gets_both(self, layer: Any, device: str) -> None:
        x, z = tg.randn(5, 4, device=device), tg.randn(5, 4, device=device)
        (layer(x).square().sum() + layer(z).square().sum()).backward()
        pairs = zip(self.gradients(layer, x), self.gradients(layer, z), strict=True)
        for got, (dx, dz) in zip(self.now(layer), pairs, strict=True):
            # two roundings to float32 in another order
            np.testing.assert_allclose(got, np.add(dx, dz), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("uses", [1, 2])
    def test_those_of_a_norm_are_cast_into_their_places(self, uses: int, device: str) -> None:
        """Sums of float64 are rounded to the parameters' dtype once, whoever keeps the result."""
        norms = [tg.nn.BatchNorm1d(4, device=device) for _ in range(2)]
        tg.optim.SGD(norms[0].parameters(), lr=0.1)
        x = tg.randn(5, 4, device=device)
        for norm in norms:
            sum((norm(x * (i + 1)) ** 3).sum() for i in range(uses)).backward()
        assert all(p._grad.array is p.slot for p in norms[0].parameters())
        kept, plain = ([p.grad.tolist() for p in norm.parameters()] for norm in norms)
        assert kept == plain

    def test_a_bias_alone_is_summed_into_its_place(self, layer: Any, device: str) -> None:
        layer.weight.requires_grad_(False)
        x = tg.randn(5, 4, device=device)
        layer(x).square().sum().backward()
        weight, bias = self.now(layer)
        assert weight is None
        # on a GPU the product would sum it along, in another order
        np.testing.assert_allclose(bias, self.gradients(layer, x)[1], rtol=1e-6, atol=1e-6)

    def test_a_matrix_times_itself_gets_both(self, device: str) -> None:
        weight = tg.nn.Parameter(tg.randn(3, 3, dtype=tg.float64, device=device))
        twin = weight.detach().clone().requires_grad_()
        tg.optim.SGD([weight], lr=0.1)
        F.linear(weight, weight).square().sum().backward()
        (twin @ twin.t()).square().sum().backward()
        np.testing.assert_allclose(weight.grad.tolist(), twin.grad.tolist(), rtol=1e-12)

    def test_what_was_read_before_stays(self, layer: Any, device: str) -> None:
        x = tg.randn(5, 4, device=device)
        layer(x).square().sum().backward()
        held = [p.grad for p in layer.parameters()]
        before = [grad.tolist() for grad in held]
        self.optimizer.zero_grad()
        layer(x + 1).sum().backward()
        assert [grad.tolist() for grad in held] == before

    def test_what_a_hook_keeps_stays(self, layer: Any, device: str) -> None:
        seen: list[tg.Tensor] = []
        layer.weight.register_hook(lambda grad: seen.append(grad))
        x = tg.randn(5, 4, device=device)
        for scale in (1.0, 2.0):
            layer(x * scale).sum().backward()
            self.optimizer.zero_grad()
        np.testing.assert_array_equal(2 * seen[0].cpu().numpy(), seen[1].cpu().numpy())

    def test_gradients_that_are_asked_for_leave_them_alone(self, layer: Any, device: str) -> None:
        x = tg.randn(5, 4, device=device)
        y = layer(x).square().sum()
        y.backward(retain_graph=True)
        before = self.now(layer)
        given = tg.autograd.grad(y, list(layer.parameters()))
        assert [dx.tolist() for dx in given] == before
        with tg.no_grad():
            given[0].mul_(5.0)
        assert self.now(layer) == before

    def test_a_walk_that_fails_leaves_no_gradient(self, layer: Any, device: str) -> None:
        x = tg.randn(5, 4, device=device, requires_grad=True)
        h = x.exp()
        y = layer(h * 1.0).sum()  # the layer is done when exp refuses
        h.detach().fill_(0.0)
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()
        assert self.now(layer) == [None, None]

    def test_a_frozen_weight_is_left_out(self, layer: Any, device: str) -> None:
        layer.weight.requires_grad_(False)
        layer(tg.randn(5, 4, device=device)).sum().backward()
        assert layer.weight.grad is None
        assert layer.bias.grad.tolist() == [5.0] * 3
