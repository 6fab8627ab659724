"""Gradients clipped by their norm: the kernels against their bodies, and few launches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tinygrad_bn.backends.cuda_kernels import clipping as family

import tinygrad_bn as tg
from tests.cupy_standin import count_launches, count_traffic, thread_order
from tests.two_backends import CPU, GPU, dtype_named, only_stand_in
from tinygrad_bn.nn.utils import clip_grad_norm_
from tinygrad_bn.ops import clipping

STORED = ("float32", "float16", "bfloat16")
SIZES = (1, 3, 4, 8, 31, 33, 1009, 4096, 100_003)
UNIT = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def run(name: str, *args: Any) -> Any:
    """What the kernel gives; it overwrites its first argument, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*args)
        (result,) = found.run(*args)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    assert result is args[0]
    return GPU.to_numpy(result)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("n", SIZES)
def test_squares_and_scaling(n: int, dtype: str, offset: int) -> None:
    """Sums of float64 in another order; and a product that is rounded once."""
    x = np.random.default_rng(n).standard_normal(n + offset).astype(dtype_named(dtype))
    total, here = np.array(2.5), x[offset:]
    (want,) = clipping.add_squares.reference(CPU, total, here)
    there = GPU.asarray(x)[offset:]
    with thread_order(n % 4):
        got = run("add_squares", GPU.asarray(total), there)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-13)
    for most in (0.1, 1e9, 0.0):
        (want,) = clipping.clipped.reference(CPU, here, total, most)
        got = run("clipped", GPU.asarray(x)[offset:], GPU.asarray(total), most)
        assert got.dtype == want.dtype
        rtol = UNIT[dtype]
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=rtol, atol=1e-7)
        assert most < 1 or got.tobytes() == here.tobytes()


def test_squares_beyond_float32() -> None:
    for scale in (1e30, 1e-30):
        x = np.full(1000, scale, np.float32)
        got = run("add_squares", GPU.asarray(np.array(0.0)), GPU.asarray(x))
        np.testing.assert_allclose(got, 1000 * float(x[0]) ** 2, rtol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_bits_do_not_depend_on_the_order(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "multiprocessors", lambda device: 3)
    x = GPU.asarray(np.random.default_rng(0).standard_normal(50_001).astype(np.float32))
    natural = run("add_squares", GPU.asarray(np.array(0.0)), x)
    with thread_order(order):
        assert run("add_squares", GPU.asarray(np.array(0.0)), x).tobytes() == natural.tobytes()


def gradients(device: str, dtype: str, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(0)
    params = []
    for shape in ((20, 5), (5,), (), (3, 2, 2), (0,)):
        p = tg.Parameter(np.zeros(shape), device=device, dtype=getattr(tg, dtype))
        p.grad = tg.tensor(rng.standard_normal(shape) * scale, dtype=p.dtype, device=device)
        params.append(p)
    return params


@pytest.mark.parametrize("dtype", ["float64", *STORED])
@pytest.mark.parametrize("most", [0.5, 100.0])
def test_both_devices_clip_alike(dtype: str, most: float, cuda: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rtol = UNIT.get(dtype, 1e-12)
    here, there = gradients("cpu", dtype), gradients(cuda, dtype)
    first, second = (clip_grad_norm_(params, most) for params in (here, there))
    assert second.dtype == first.dtype
    assert second.shape == ()
    np.testing.assert_allclose(second.item(), first.item(), rtol=1e-6)
    for p, q in zip(here, there, strict=True):
        a, b = (np.asarray(x.grad.cpu().double()) for x in (p, q))
        np.testing.assert_allclose(b, a, rtol=2 * rtol, atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite(bad: float, cuda: str) -> None:
    """As PyTorch has it: NaN makes all NaN; infinity makes all 0, and itself NaN."""
    found = []
    for device in ("cpu", cuda):
        params = gradients(device, "float32")
        params[0].grad[3, 2] = bad
        norm = clip_grad_norm_(params, 1.0)
        found.append([np.asarray(norm.cpu()), *(np.asarray(p.grad.cpu()) for p in params)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(b, a)


@only_stand_in
def test_two_launches_for_each_gradient(cuda: str) -> None:
    params = gradients(cuda, "float32")[:4]
    clip_grad_norm_(params, 1.0)
    with count_launches() as launches, count_traffic() as seen:
        clip_grad_norm_(params, 1.0)
    assert launches.count == 2 * 4 + 3  # and zero, a root, and its dtype
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
