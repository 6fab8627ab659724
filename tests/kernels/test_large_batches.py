"""Kernels that write past the caches: the bits of those that do not, for batches of any size, laid
anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.test_batch_norm import NUMPY, drawn

pytest.importorskip("numba")
batch_norm = pytest.importorskip("tinygrad_bn.backends.numba_kernels.batch_norm")

batches = st.builds(
    drawn,
    n=st.sampled_from([1, 2, 7, 33]),
    channels=st.sampled_from([1, 3, 16, 33, 64]),
    space=st.sampled_from([1, 1, 2, 31, 97]),
    affine=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)


def placed(like: Any, offset: int) -> Any:
    """An array for a result, so many elements behind the beginning of a line."""
    memory = np.full(like.nbytes + 64 + 64 * like.itemsize, 255, np.uint8)
    start = -memory.ctypes.data % 64 + offset * like.itemsize
    return memory[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


def results(name: str, args: tuple[Any, ...], offset: int) -> list[Any]:
    """What the kernel leaves, the first result so many elements behind the beginning of a line."""
    kernel = NUMPY.kernels.get(name)
    assert kernel is not None
    assert kernel.into is not None
    outs = kernel.run(*args)
    first, *rest = outs if isinstance(outs, tuple) else (outs,)
    outs = (placed(first, offset), *map(np.empty_like, rest))
    function, operands = kernel.into(outs, *args)
    function(*operands)
    return [out.tobytes() for out in outs]


@settings(max_examples=50, deadline=None)
@given(batch=batches, relu=st.booleans(), offset=st.integers(0, 16))
def test_give_the_bits_of_the_others(batch: Any, relu: bool, offset: int) -> None:
    x, dy, weight, bias = batch.x, batch.dy, batch.weight, batch.bias
    mean, rstd = x.mean((0, 2), np.float64), 1 / np.sqrt(x.var((0, 2), dtype=np.float64) + 1e-3)
    known = mean, rstd, weight
    means = np.random.default_rng(0).standard_normal((2, len(mean)))
    prefix, through = ("batch_relu", (bias,)) if relu else ("batch", ())
    for name, args in (
        ("batch_normalize_relu" if relu else "batch_normalize", (x, *known, bias)),
        (f"{prefix}_grad_input", (dy, x, *known, *through, *means, None)),
        ("whole_batch_norm", (x, weight, bias, None, 1e-5, relu)),
        ("whole_batch_norm_grad", (dy, x, *known, bias, None, batch.count, relu)),
    ):
        wanted = results(name, args, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch_norm, "LARGE", 0)
            got = results(name, args, offset)
        assert got[0] == wanted[0]
        for a, b in zip(got[1:], wanted[1:], strict=True):
            # sums of float64, which may have another order in another function
            np.testing.assert_allclose(np.frombuffer(a), np.frombuffer(b), rtol=1e-12, atol=1e-12)


def test_masks_and_results_over_their_operands_are_for_the_others(monkeypatch: Any) -> None:
    """They are read, or lie in the caches, and have no function here."""
    batch = drawn(space=3, masked=True)
    known = np.zeros(3), np.ones(3), batch.weight
    args = batch.dy, batch.x, *known, None, batch.mask, batch.count, False
    name = "whole_batch_norm_grad"
    wanted = results(name, args, 0)
    monkeypatch.setattr(batch_norm, "LARGE", 0)
    assert results(name, args, 0) == wanted
    kernel = NUMPY.kernels.get("batch_normalize")
    assert kernel is not None
    assert kernel.into is not None
    y = kernel.run(batch.x, *known, None)
    function, operands = kernel.into((batch.x,), batch.x, *known, None)
    function(*operands)
    np.testing.assert_array_equal(batch.x, y)


@pytest.mark.parametrize(
    ("rows", "new", "module"),
    [(8, False, "columns"), (2**20, False, "large_batches"), (2**20, True, "columns")],
)
def test_what_caches_hold_is_for_the_others(rows: int, new: bool, module: str) -> None:
    """And what the system clears when it is first written to, which brings it there."""
    kernel = NUMPY.kernels.get("batch_normalize")
    assert kernel is not None
    assert kernel.into is not None
    x, y = (np.empty((rows, 8, 1), np.float32) for _ in range(2))
    known = np.zeros(8), np.ones(8), None, None
    function: Any = kernel.into((y if new else y[:],), x, *known)[0]
    assert function.py_func.__module__.endswith(module)
