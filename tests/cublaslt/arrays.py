"""Operands, what their products may be off by, and products that nobody has used."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tinygrad_bn.backends.cublaslt import products as engine  # type: ignore

from tests.two_backends import GPU, dtype_named

EPS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
BIAS, RELU, BGRADA = 4, 2, 256


def drawn(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    values = np.random.default_rng(seed).uniform(-1, 1, shape)
    return values.astype(dtype_named(dtype))


def wide(x: Any) -> Any:
    return x.astype(np.float64)


def tolerance(dtype: str, k: int) -> float:
    """Elements are below 1, so a sum of k products in float32 is off by k² float32 roundings of 1
    at most, far less at random; then it is rounded to its dtype, from a size below k.
    """
    accumulated = EPS["float64" if dtype == "float64" else "float32"]
    return k * (k * accumulated + EPS[dtype])


def assert_near(result: Any, expected: Any, k: int, **options: Any) -> None:
    host = GPU.to_numpy(result)
    assert host.shape == expected.shape
    name = host.dtype.name
    np.testing.assert_allclose(wide(host), expected, rtol=0, atol=tolerance(name, k), **options)


@contextmanager
def fresh_products() -> Generator[Any]:
    """The first device's products, as nobody has used them."""
    known = engine.products(0)
    plans, workspaces = dict(known.plans), dict(known.workspaces)
    known.plans.clear()
    known.workspaces.clear()
    try:
        yield known
    finally:
        known.plans.update(plans)
        known.workspaces.update(workspaces)
