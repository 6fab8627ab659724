"""Kernels of whole norms against those of their phases, and against their bodies.

Sums of float64 may have another order in another function: what follows from them agrees to their
roundings, and what follows from the statistics that came out, to the bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.test_batch_norm import batches, drawn, each_space, kernel, reference
from tests.kernels.test_row_norm import rows as every_row


@settings(max_examples=50, deadline=None)
@given(batch=batches, relu=st.booleans())
def test_whole_batch_norm_is_its_phases_one_after_the_other(batch, relu):
    x, dy, weight, bias, mask = batch.x, batch.dy, batch.weight, batch.bias, batch.mask
    eps = 1e-5 * batch.scale**2
    y, mean, var, rstd = kernel("whole_batch_norm", x, weight, bias, mask, eps, relu)
    wanted_mean, wanted_var = kernel("batch_moments", x, mask)
    np.testing.assert_allclose(mean, wanted_mean, rtol=1e-13, atol=1e-13 * batch.scale)
    np.testing.assert_allclose(var, wanted_var, rtol=1e-12)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(var + eps), rtol=1e-15)
    name = "batch_normalize_relu" if relu else "batch_normalize"
    np.testing.assert_array_equal(y, kernel(name, x, mean, rstd, weight, bias))

    known = mean, rstd, weight
    dx, *sums = kernel("whole_batch_norm_grad", dy, x, *known, bias, mask, batch.count, relu)
    through = [bias] if relu else []
    prefix = "batch_relu" if relu else "batch"
    wanted = kernel(f"{prefix}_grad_sums", dy, x, *(known if relu else known[:2]), *through, mask)
    terms = np.maximum(np.abs(x - mean[:, None]) * rstd[:, None], 1)
    size = np.sum(np.abs(dy) * terms, axis=(0, 2))
    for total, wanted_total in zip(sums, wanted, strict=True):
        assert np.all(np.abs(total - wanted_total) <= 1e-13 * size)
    means = [total / max(batch.count, 1) for total in sums]
    np.testing.assert_array_equal(
        dx, kernel(f"{prefix}_grad_input", dy, x, *known, *through, *means, mask)
    )


@each_space
@pytest.mark.parametrize("relu", [False, True])
def test_whole_agrees_with_the_reference(space, relu):
    """To a few roundings of numbers up to ten, on data that keep away from the kink."""
    batch = drawn(space=space, masked=True)
    batch.x[np.abs(batch.x) < 0.1] = 1
    batch.bias[:] = 0
    known = batch.weight, batch.bias, batch.mask
    args = batch.x, *known, 1e-5, relu
    got, wanted = kernel("whole_batch_norm", *args), reference("whole_batch_norm", *args)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    statistics = wanted[1], wanted[3]
    far = np.abs(reference("batch_normalize", batch.x, *statistics, *known[:2])) > 1e-4
    batch.dy *= far
    args = batch.dy, batch.x, *statistics, *known, batch.count, relu
    for a, b in zip(
        kernel("whole_batch_norm_grad", *args),
        reference("whole_batch_norm_grad", *args),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(rows=every_row)
def test_whole_row_norm_is_its_phases_one_after_the_other(rows):
    x, dy, weight, bias = rows.x, rows.dy, rows.weight, rows.bias
    eps = 1e-5 * rows.scale**2
    if rows.centred:
        y, mean, var, rstd = kernel("whole_row_norm", x, weight, bias, eps)
    else:
        mean = None
        y, var, rstd = kernel("whole_rms_norm", x, weight, bias, eps)
    wanted_mean, wanted_var, _ = rows.statistics(kernel)
    if rows.centred:
        np.testing.assert_allclose(mean, wanted_mean, rtol=1e-13, atol=1e-13 * rows.scale)
    np.testing.assert_allclose(var, wanted_var, rtol=1e-12)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(var + eps), rtol=1e-15)
    np.testing.assert_array_equal(y, kernel("row_normalize", x, mean, rstd, weight, bias))

    dx, *sums = kernel("whole_row_norm_grad", dy, x, mean, rstd, weight)
    centre = 0 if mean is None else mean[..., None, None]
    x_hat = np.abs(x - centre) * rstd[..., None, None]
    size = np.sum(np.abs(dy) * np.maximum(x_hat, 1), axis=(0, 3))
    for total, wanted in zip(sums, kernel("row_grad_sums", dy, x, mean, rstd), strict=True):
        assert np.all(np.abs(total - wanted) <= 1e-13 * size)
    scale = 1 if weight is None else np.abs(weight)[..., None].max()
    wanted = kernel("row_grad_input", dy, x, mean, rstd, weight)
    # a rounding of the means, which the last bit of a sum may turn
    bound = 4 * np.finfo(x.dtype).eps * scale * np.abs(dy).max() * (1 + x_hat)
    assert np.all(np.abs(dx - wanted) <= bound * rstd[..., None, None])
