"""Who runs at a kernel point: a kernel, where there is one and it accepts, else the body."""

from __future__ import annotations

from importlib import import_module
from unittest.mock import patch

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.backend import KERNEL_POINTS, Kernel, get_backend
from tinygrad_bn.ops import moments

pytest.importorskip("numba")
families = pytest.importorskip("tinygrad_bn.backends.numba_kernels")

NUMPY = get_backend("numpy")


def test_every_kernel_has_its_kernel_point():
    import_module("tinygrad_bn.optim")  # which an import of the library leaves for later
    import_module("tinygrad_bn.ops.dense")
    for name, family in families.FAMILIES.items():
        assert NUMPY.kernels.get(name) is not None
        assert name in KERNEL_POINTS or family == "checks"  # which refuse, and compute nothing


def test_a_kernel_point_without_a_kernel_has_none():
    assert NUMPY.kernels.get("moving_average") is None


def test_reference_kernels_switches_kernels_off():
    calls = []
    kernel = NUMPY.kernels.get("whole_batch_norm")
    spy = type(kernel)(lambda *args: calls.append(1) or kernel.run(*args), kernel.accepts)
    x = tg.randn(8, 3)
    norm = tg.nn.functional.batch_norm
    with patch.dict(NUMPY.kernels, whole_batch_norm=spy):
        fast = norm(x, None, None, training=True)
        with tg.reference_kernels():
            slow = norm(x, None, None, training=True)
    assert calls == [1]
    np.testing.assert_allclose(fast.numpy(), slow.numpy(), atol=5e-7)  # float32's rounding at 4


NORMS = {
    "batch": lambda x, w: tg.nn.functional.batch_norm(x, None, None, w, training=True),
    "row": lambda x, w: tg.nn.functional.layer_norm(x, w.shape, w),
}


@pytest.mark.parametrize("family", NORMS)
def test_norms_reach_their_kernels_from_any_layout(family, monkeypatch):
    """With a transposed input, and the gradient that a sum expands."""
    norm = NORMS[family]

    def refuse(*args):
        raise AssertionError("expected the kernel, got the reference body")

    for point in (f"whole_{family}_norm", f"whole_{family}_norm_grad"):
        monkeypatch.setattr(KERNEL_POINTS[point], "reference", refuse)
    weight = tg.ones(5 if family == "batch" else 3)
    for input in (tg.randn(4, 5, 3), tg.randn(4, 3, 5).transpose(1, 2)):
        norm(input.requires_grad_(), weight.requires_grad_()).sum().backward()
        assert input.grad.shape == (4, 5, 3)


@pytest.mark.parametrize("wrapped", [0, 2])
def test_ctrl_c_inside_of_a_kernel_is_ctrl_c(wrapped):
    """Numba hands results over in Python, where a signal turns into its SystemError."""

    def run(*args, **kwargs):
        error = KeyboardInterrupt()
        for _ in range(wrapped):
            try:
                raise SystemError("returned a result with an exception set") from error
            except SystemError as outer:
                error = outer
        raise error

    spoilt = patch.dict(NUMPY.kernels, batch_moments=Kernel(run, lambda *args: True))
    with spoilt, pytest.raises(KeyboardInterrupt):
        moments.batch_moments(NUMPY, np.ones((4, 2, 1)), None)


def test_another_error_of_a_kernel_stays_itself():
    def run(*args, **kwargs):
        raise SystemError("own")

    spoilt = patch.dict(NUMPY.kernels, batch_moments=Kernel(run, lambda *args: True))
    with spoilt, pytest.raises(SystemError, match="own"):
        moments.batch_moments(NUMPY, np.ones((4, 2, 1)), None)
