"""Activations on the GPU against the bodies that define them, computed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cupy_standin import count_traffic, thread_order
from tests.kernels.curves import CURVES
from tests.two_backends import CPU, GPU
from tinygrad_bn import curves

ODD = (0.0, -0.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 20.0, -20.0, 88.0, -104.0, 40.0)


def kernel(name: str, *args: Any) -> Any:
    """What the kernel gives, on the host; it must accept the arguments, and nothing waits."""
    found = GPU.kernels.get(name)
    assert found is not None
    with GPU.guard, count_traffic() as seen:  # type: ignore[union-attr]
        assert found.accepts(*args)
        result = found.run(*args)
    assert (seen.h2d, seen.d2h, seen.synchronizations) == (0, 0, 0)
    return GPU.to_numpy(result)


def sent(x: Any, offset: int) -> Any:
    """On the device, beginning at a multiple of 16 bytes or not."""
    return GPU.asarray(np.concatenate([np.zeros(offset, x.dtype), x]))[offset:]


@pytest.mark.parametrize("n", [1, 3, 4, 5, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("curve", CURVES, ids=str)
def test_gives_the_values_of_the_reference(curve: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    x = (rng.standard_normal(n) * rng.choice([0.1, 1, 5, 30], n)).astype(np.float32)
    if n > 2 * len(ODD):
        x[: len(ODD)] = ODD
    dy, eps = rng.standard_normal(n).astype(np.float32), np.finfo(np.float32).eps
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        y = curves.curve_value.reference(CPU, wide, curve)
        dx = curves.curve_grad.reference(CPU, dy.astype(np.float64), wide, curve)
        # ten roundings of what values and slopes lie within; x³ of GELU's tanh has more of them
        bound = eps * (60 if isinstance(curve, curves.GeluTanh) else 10)
        size = np.maximum(np.minimum(np.abs(wide), 40), 1)
        for offset in (0, 1):
            with thread_order((n + offset) % 4):
                got = kernel("curve_value", sent(x, offset), curve)
                grad = kernel("curve_grad", sent(dy, offset), sent(x, offset), curve)
            near = np.abs(got - y) <= bound * np.maximum(size, np.abs(y))
            assert np.all(near | (got == y) | (np.isnan(got) & np.isnan(y)))
            near = np.abs(grad - dx) <= bound * np.abs(dy) + 1e-37
            assert np.all(near | (grad == dx) | (np.isnan(grad) & np.isnan(dx)))


def test_a_thread_computes_more_than_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad_bn.backends.cuda_kernels import curves as family

    monkeypatch.setattr(family, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(family, "BLOCKS_EACH", 1)
    x = np.linspace(-3, 3, 3001, dtype=np.float32)
    wanted = curves.curve_value.reference(CPU, x, curves.Silu())
    np.testing.assert_allclose(kernel("curve_value", GPU.asarray(x), curves.Silu()), wanted, 1e-6)


def test_what_is_left_to_the_bodies() -> None:
    value, grad = GPU.kernels.get("curve_value"), GPU.kernels.get("curve_grad")
    assert value is not None
    assert grad is not None
    x = GPU.asarray(np.ones((4, 6), np.float32))
    assert value.accepts(x, curves.Gelu())
    assert not value.accepts(x, curves.Softsign())
    for other in (x.T, x[:0], GPU.asarray(np.ones(3))):
        assert not value.accepts(other, curves.Gelu())
        assert not grad.accepts(other, other, curves.Gelu())
