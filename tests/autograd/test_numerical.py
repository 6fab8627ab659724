"""Gradient checks, and products with Jacobians and Hessians."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.autograd import functional, gradcheck, gradgradcheck
from tinygrad_bn.errors import ArgumentError, GradientError, ShapeError


class Off(tg.Function):
    """A square whose gradient is wrong in one element by one per cent."""

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, dy):
        weights = 1 + 0.01 * self.xp.eye(1, self.x.shape[0])[0]
        return dy * 2 * self.x * weights


class OffAtTheSecond(tg.Function):
    """A cube whose gradient is right, but forgets that it depends on x."""

    def forward(self, x):
        self.x = x
        return x * x * x

    def backward(self, dy):
        return dy * (3 * self.x.detach() ** 2 if isinstance(self.x, tg.Tensor) else 3 * self.x**2)


@pytest.fixture
def x(device):
    return tg.tensor(np.linspace(0.5, 1.5, 6), device=device, requires_grad=True)


def test_gradcheck_accepts_what_is_right(x):
    assert gradcheck(lambda t: (t * t).exp(), x)
    assert gradgradcheck(lambda t: (t * t).exp(), x, order=3)


def test_gradcheck_finds_one_wrong_element(x):
    with pytest.raises(GradientError, match="finite differences"):
        gradcheck(Off.apply, x)
    assert not gradcheck(Off.apply, x, raise_exception=False)


def test_gradgradcheck_finds_a_gradient_that_forgets_its_input(x):
    assert gradcheck(OffAtTheSecond.apply, x)
    with pytest.raises(GradientError, match="finite differences"):
        gradgradcheck(OffAtTheSecond.apply, x)


def test_only_float64_can_be_checked():
    with pytest.raises(ArgumentError, match="float64, got float32"):
        gradcheck(lambda t: t * t, tg.ones(3, requires_grad=True))
    with pytest.raises(ArgumentError, match="at least one input"):
        gradcheck(lambda t: t * t, tg.ones(3))


def cubes(a, b):
    return (a**3).sum() * b.sum()


A, B = np.linspace(0.5, 1.5, 3), np.linspace(-1.0, 1.0, 2) + 3


def test_jacobian_of_several_inputs(device):
    a, b = tg.tensor(A, device=device), tg.tensor(B, device=device)
    ja, jb = functional.jacobian(lambda s, t: s[:, None] * t, (a, b))
    assert ja.shape == (3, 2, 3)
    np.testing.assert_allclose(ja.tolist(), np.einsum("ik,j->ijk", np.eye(3), B), rtol=1e-15)
    np.testing.assert_allclose(jb.tolist(), np.einsum("i,jk->ijk", A, np.eye(2)), rtol=1e-15)


def test_hessian(device):
    a, b = tg.tensor(A, device=device), tg.tensor(B, device=device)
    (haa, hab), (hba, hbb) = functional.hessian(cubes, (a, b))
    np.testing.assert_allclose(haa.tolist(), np.diag(6 * A * B.sum()), rtol=1e-14)
    np.testing.assert_allclose(hab.tolist(), np.outer(3 * A**2, np.ones(2)), rtol=1e-14)
    np.testing.assert_allclose(hba.tolist(), np.outer(np.ones(2), 3 * A**2), rtol=1e-14)
    assert np.all(np.asarray(hbb.tolist()) == 0)


def test_products(device):
    a = tg.tensor(A, device=device)
    v = tg.tensor([1.0, -2.0, 0.5], dtype=tg.float64, device=device)
    _, product = functional.jvp(lambda t: t**2, a, v)
    np.testing.assert_allclose(product.tolist(), 2 * A * v.cpu().numpy(), rtol=1e-15)
    _, product = functional.vjp(lambda t: t**2, a, v)
    np.testing.assert_allclose(product.tolist(), 2 * A * v.cpu().numpy(), rtol=1e-15)
    value, product = functional.hvp(lambda t: (t**3).sum(), a, v)
    assert value.item() == pytest.approx((A**3).sum(), rel=1e-15)
    np.testing.assert_allclose(product.tolist(), 6 * A * v.cpu().numpy(), rtol=1e-15)


def test_products_can_be_differentiated_further():
    a = tg.tensor(A, requires_grad=True)
    v = tg.ones(3, dtype=tg.float64)
    _, product = functional.jvp(lambda t: t**3, a, v, create_graph=True)
    (third,) = tg.autograd.grad(product.sum(), [a])
    np.testing.assert_allclose(third.numpy(), 6 * A, rtol=1e-14)


def test_the_inputs_are_left_alone():
    a = tg.tensor(A, requires_grad=True)
    functional.jacobian(lambda t: t * t, a)
    assert a.grad is None


def test_vectors_are_checked():
    a = tg.tensor(A)
    with pytest.raises(ShapeError, match="expected v"):
        functional.vjp(lambda t: t * t, a)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        functional.jvp(lambda t: t * t, a, tg.ones(2))
    with pytest.raises(ShapeError, match="single number"):
        functional.hessian(lambda t: t * t, a)
