"""Gradients of norms in training to order 3, and products with Hessians and Jacobians, nested too:
fused norms against the formula written with plain operations, and that against PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tests.nn.normalization.family import NORMS, Inputs, Norm, drawn
from tinygrad_bn.autograd import functional

BOUND = 1e-8
"""What is promised of float64. Most errors are near 1e-14; a group of two values, whose x̂ is ±1
whatever they are, leaves of its third derivatives what float64 has of a difference of 1e-5."""

every_norm = pytest.mark.parametrize("norm", NORMS, ids=str)
sizes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4))
cases = {"sizes": sizes, "eps": st.sampled_from([1e-5, 1e-2]), "seed": st.integers(0, 999)}


class Functions:
    """A norm and its formula, as functions of x, γ and β in a library, both with a curved loss."""

    def __init__(self, inputs: Inputs, device: str = "cpu", library: Any = tg) -> None:
        options = {"device": device}
        self.inputs = inputs
        given = (inputs.x, inputs.weight, inputs.bias)
        self.arguments = tuple(library.tensor(v, **options) for v in given if v is not None)
        rng = np.random.default_rng(7)
        self.directions = [
            tuple(library.tensor(rng.standard_normal(v.shape), **options) for v in self.arguments)
            for _ in range(3)
        ]
        self.weights = library.tensor(inputs.dy, **options)
        self.counts = library.tensor(inputs.counts, **options)
        self.mask = None if inputs.mask is None else library.tensor(inputs.mask, **options)

    def fused(self, x: Any, weight: Any, bias: Any = None) -> Any:
        return self.inputs.norm.function(x, weight, bias, self.mask, self.inputs.eps)

    def composed(self, x: Any, weight: Any, bias: Any = None) -> Any:
        return self.inputs.norm.formula(x, weight, bias, self.counts, self.inputs.eps)

    def loss_of(self, function: Any) -> Any:
        return lambda *arguments: (function(*arguments).tanh() * self.weights).sum()


def paired(xs: Any, ys: Any) -> Any:
    """Σ x·y over pairs of tensors."""
    return sum((x * y).sum() for x, y in zip(xs, ys, strict=True))


def derivatives(grad: Any, loss: Any, arguments: Any, directions: Any) -> list[Any]:
    """The gradients of a loss, of its gradients along a direction, and of those along another."""
    found, value = [], loss(*arguments)
    for direction in directions:
        gradients = grad(value, arguments, create_graph=True)
        found += gradients
        value = paired(gradients, direction)
    return found


def along(function: Any, directions: Any) -> Any:
    """The derivative of a function along each direction in turn: nested Jv products."""
    for direction in directions:
        function = nested(function, direction)
    return function


def nested(function: Any, direction: Any) -> Any:
    return lambda *arguments: functional.jvp(function, arguments, direction, create_graph=True)[1]


def assert_close(got: Any, wanted: Any, bound: float = BOUND) -> None:
    """Each result by itself, relative to its size; what should be zero, to 1."""
    for a, b in zip(got, wanted, strict=True):
        a, b = (np.asarray(v.detach().cpu().tolist()) for v in (a, b))
        assert a.shape == b.shape
        size = np.linalg.norm(b)
        assert np.linalg.norm(a - b) <= bound * (size if size > 1e-12 else 1)


def leaves(arguments: Any) -> tuple[Any, ...]:
    return tuple(x.detach().clone().requires_grad_() for x in arguments)


@every_norm
class TestAgainstTheFormula:
    @settings(max_examples=4, deadline=None)
    @given(**cases)
    def test_gradients_of_order_1_2_and_3(self, norm, sizes, eps, seed):
        f = Functions(drawn(norm, norm.sizes(*sizes), seed, eps=eps))
        got, wanted = (
            derivatives(tg.autograd.grad, f.loss_of(function), leaves(f.arguments), f.directions)
            for function in (f.fused, f.composed)
        )
        assert_close(got, wanted)

    @settings(max_examples=4, deadline=None)
    @given(**cases)
    def test_products_of_the_hessian_with_a_vector(self, norm, sizes, eps, seed):
        f = Functions(drawn(norm, norm.sizes(*sizes), seed, eps=eps))
        for product in (functional.hvp, functional.vhp):
            got, wanted = (
                product(f.loss_of(function), f.arguments, f.directions[0])[1]
                for function in (f.fused, f.composed)
            )
            assert_close(got, wanted)

    @settings(max_examples=4, deadline=None)
    @given(**cases)
    def test_nested_products_of_the_jacobian_with_vectors(self, norm, sizes, eps, seed):
        f = Functions(drawn(norm, norm.sizes(*sizes), seed, eps=eps))
        for order in (1, 2, 3):
            got, wanted = (
                along(function, f.directions[:order])(*f.arguments)
                for function in (f.fused, f.composed)
            )
            assert_close([got], [wanted])

    @settings(max_examples=3, deadline=None)
    @given(**cases)
    def test_both_ways_mixed(self, norm, sizes, eps, seed):
        """A gradient differentiated along a direction, and that the other way round."""
        f = Functions(drawn(norm, norm.sizes(*sizes), seed, eps=eps))

        def results(function: Any) -> list[Any]:
            loss = f.loss_of(function)

            def gradient(*arguments: Any) -> Any:
                return functional.vjp(loss, arguments, create_graph=True)[1]

            forward_over_reverse = functional.jvp(gradient, f.arguments, f.directions[0])[1]
            reverse_over_forward = functional.vjp(nested(loss, f.directions[0]), f.arguments)[1]
            return [*forward_over_reverse, *reverse_over_forward]

        assert_close(results(f.fused), results(f.composed))


@every_norm
def test_orders_1_to_3_on_every_backend(norm: Norm, device: str) -> None:
    f = Functions(drawn(norm, norm.sizes(4, 2, 3)), device)
    got, wanted = (
        derivatives(tg.autograd.grad, f.loss_of(function), leaves(f.arguments), f.directions)
        for function in (f.fused, f.composed)
    )
    assert_close(got, wanted)


@pytest.mark.torch
@every_norm
def test_orders_1_to_3_are_those_of_the_formula_in_pytorch(norm: Norm) -> None:
    """PyTorch's own batch norm is wrong from order 3 on: docs/precision.md."""
    torch = pytest.importorskip("torch")
    inputs = drawn(norm, norm.sizes(5, 3, 4))
    f, g = Functions(inputs), Functions(inputs, library=torch)
    ours = derivatives(tg.autograd.grad, f.loss_of(f.fused), leaves(f.arguments), f.directions)
    theirs = derivatives(
        torch.autograd.grad, g.loss_of(g.composed), leaves(g.arguments), g.directions
    )
    assert_close(ours, theirs)


@every_norm
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_second_gradients_of_float32_keep_their_digits_far_from_zero(norm: Norm, offset) -> None:
    """The replay computes in float64 as the kernels do: six digits are left at mean / std = 1e4,
    where the difference of two float32 numbers has but three.
    """
    inputs = drawn(norm, norm.sizes(32, 2, 16), dtype=np.float32, offset=offset)
    f, exact = Functions(inputs), Functions(drawn(norm, inputs.x.shape))
    exact.arguments = tuple(v.double() for v in f.arguments)
    exact.weights = f.weights.double()
    f.directions = [tuple(v.float() for v in vs) for vs in f.directions[:2]]
    exact.directions = [tuple(v.double() for v in vs) for vs in f.directions]
    exact.counts, exact.mask = f.counts.double(), f.mask
    ours = derivatives(tg.autograd.grad, f.loss_of(f.fused), leaves(f.arguments), f.directions)
    theirs = derivatives(
        tg.autograd.grad, exact.loss_of(exact.composed), leaves(exact.arguments), exact.directions
    )
    assert_close(ours, theirs, 2e-6)
