"""The two backends side by side, and what comparing them takes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from tests import cupy_standin
from tinygrad_bn.backend import get_backend

cupy_standin.install()
CPU, GPU = get_backend("numpy"), get_backend("cupy")
NATIVE: Any = GPU.array_type

only_stand_in = pytest.mark.skipif(
    not cupy_standin.is_installed(), reason="imagines other machines, which a real GPU cannot"
)
two_gpus = pytest.mark.skipif(
    import_module("tinygrad_bn.backends.cupy_backend").device_count() < 2, reason="there is one GPU"
)
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint8")
ULPS = {"float64": 2**-51, "float32": 2**-21, "float16": 2**-10, "bfloat16": 2**-7}
"""A few units in the last place: both libraries round correctly or nearly so, and a GPU's exp and
pow are specified to 2 ulp; float16 and bfloat16 are computed in float32 and rounded once, which
may differ by 1 ulp."""


def dtype_named(name: str) -> Any:
    scalar: Any = pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name
    return np.dtype(scalar)


def sample(dtype: np.dtype[Any], *shape: int, low: float = -3, high: float = 3) -> Any:
    """Values that repeat and are of both signs, in no order; the same at every call."""
    values = np.random.default_rng(0).uniform(low, high, shape)
    if dtype.kind == "b":
        return values > 0
    if dtype.kind == "u":
        values = np.abs(values)
    return (np.round(values, 1) if dtype.kind in "fV" else np.round(values)).astype(dtype)


def on_gpu(value: Any) -> Any:
    """The same argument for the GPU: arrays are sent there, whatever they are nested in."""
    if isinstance(value, np.ndarray):
        return GPU.asarray(value)
    if isinstance(value, (tuple, list)):
        return type(value)(on_gpu(v) for v in value)
    return value


def assert_same(word: str, *args: Any, **kwargs: Any) -> None:
    """The word gives the same array on both backends: shape, dtype and values."""
    with np.errstate(all="ignore"):
        expected = getattr(CPU.xp, word)(*args, **kwargs)
    with GPU.guard:  # type: ignore[union-attr]
        result = getattr(GPU.xp, word)(*on_gpu(args), **kwargs)
    results, wanted = (result, expected) if word == "nonzero" else ((result,), (expected,))
    for got, other in zip(results, wanted, strict=True):
        want: Any = np.asarray(other)
        assert isinstance(got, NATIVE), word
        assert (got.shape, got.dtype) == (want.shape, want.dtype), word
        host = GPU.to_numpy(got)
        if want.dtype.kind in "fV":
            rtol = ULPS[want.dtype.name]
            host, want = host.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(host, want, rtol=rtol, atol=rtol, err_msg=word)
        else:
            np.testing.assert_array_equal(host, want, err_msg=word)
