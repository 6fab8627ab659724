"""A layer's affine map and its gradients are as many products, and nothing beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.cublaslt.arrays import assert_near, drawn, wide
from tests.cupy_standin import cublaslt as stand_in
from tests.two_backends import FLOATS, GPU, only_stand_in
from tinygrad_bn.backend import Kernel
from tinygrad_bn.ops import affine as points


def kernel_of(name: str) -> Kernel:
    kernel = GPU.kernels.get(name)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(6, 5, 4), (1, 5, 4), (6, 1, 1), (0, 5, 4), (6, 0, 4), (6, 5, 0)]
)
def test_kernels_give_what_the_bodies_say(shape: tuple[int, int, int], dtype: str) -> None:
    n, i, o = shape
    shapes = (n, i), (o, i), (o,), (n, o)
    x, weight, bias, dy = (drawn(*s, dtype=dtype, seed=k) for k, s in enumerate(shapes))
    for name, arrays, wanted in (
        ("affine", (x, weight, bias), (wide(x) @ wide(weight).T + wide(bias),)),
        ("affine_grad_parameters", (dy, x), (wide(dy).T @ wide(x), wide(dy).sum(axis=0))),
    ):
        given = [GPU.asarray(array) for array in arrays]
        assert kernel_of(name).accepts(*given)
        for results in (
            kernel_of(name).run(*given),
            getattr(points, name).reference(GPU, *given),  # which rounds once more
        ):
            results = results if isinstance(results, tuple) else (results,)
            for got, expected in zip(results, wanted, strict=True):
                assert_near(got, expected, max(i, n) + 1)


def test_other_dtypes_go_to_the_body() -> None:
    whole, x = GPU.asarray(np.ones((3, 3), int)), GPU.asarray(drawn(3, 3))
    assert not kernel_of("affine").accepts(whole, whole, whole[0])
    assert not kernel_of("affine").accepts(x, x, whole[0])
    assert not kernel_of("affine_grad_parameters").accepts(x, whole)


@only_stand_in
@pytest.mark.parametrize("leading", [(7,), (2, 3), ()])
def test_a_layer_is_three_products(leading: tuple[int, ...]) -> None:
    layer = tg.nn.Linear(5, 4, device="cuda")
    x = tg.randn(*leading, 5, device="cuda", requires_grad=True)
    with stand_in.count_calls() as forward:
        y = layer(x)
    with stand_in.count_calls() as backward:
        y.sum().backward()
    assert (forward["Matmul"], backward["Matmul"]) == (1, 2)


def test_a_layer_learns_as_without_kernels() -> None:
    def gradients() -> list[Any]:
        tg.manual_seed(0)
        layer = tg.nn.Linear(5, 4, device="cuda")
        x = tg.randn(7, 5, device="cuda", requires_grad=True)
        (layer(x) ** 2).sum().backward()
        return [t.grad.cpu().numpy() for t in (x, *layer.parameters())]

    fast = gradients()
    with tg.reference_kernels():
        slow = gradients()
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # sums of 7 numbers of size 1
