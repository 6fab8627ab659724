"""The kernels of convolution against the reference bodies that define them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygrad_bn.backend import get_backend
from tinygrad_bn.ops import unfolding, wiring
from tinygrad_bn.ops.windows import Windows
from tinygrad_bn.ops.wiring import Wiring

pytest.importorskip("numba")
dense = pytest.importorskip("tinygrad_bn.backends.numba_kernels.dense")

NUMPY = get_backend("numpy")


def kernel(name, *args):
    """What the kernel gives; it must accept the arguments."""
    found = NUMPY.kernels.get(name)
    assert found is not None
    assert found.accepts(*args)
    return found.run(*args)


def reference(name, *args):
    point = getattr(unfolding, name, None) or getattr(wiring, name)
    return point.reference(NUMPY, *args)


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@st.composite
def images(draw):
    """Windows, and a size that has some; sometimes as many as positions, which is a case apart."""
    axes = draw(st.integers(1, 3))
    each = [
        (
            draw(st.integers(1, 4)),
            draw(st.sampled_from([1, 1, 2, 3])),
            draw(st.integers(1, 3)),
            (draw(st.integers(0, 5)), draw(st.integers(0, 5))),
        )
        for _ in range(axes)
    ]
    windows = Windows(*zip(*each, strict=True))
    size = tuple(draw(st.integers(1, 6)) for _ in range(axes))
    assume(all(n >= r for n, r in zip(windows.padded(size), windows.reach, strict=True)))
    return windows, size


several = settings(max_examples=50, deadline=None)


@several
@given(image=images(), n=st.integers(1, 3), channels=st.integers(1, 3))
def test_unfolding_moves_every_value_to_its_place(image, n, channels):
    windows, size = image
    x = normal(n, channels, *size)
    np.testing.assert_array_equal(kernel("unfolded", x, windows), reference("unfolded", x, windows))


@several
@given(image=images(), n=st.integers(1, 3), channels=st.integers(1, 3))
def test_folding_adds_them_up_again(image, n, channels):
    windows, size = image
    columns = normal(*reference("unfolded", normal(n, channels, *size), windows).shape)
    args = (columns, windows, (n, channels, *size))
    # sums of at most 64 values in another order
    np.testing.assert_allclose(kernel("folded", *args), reference("folded", *args), atol=1e-13)


@pytest.mark.parametrize("kind", ["same", "wide", "tall", "beyond"])
def test_windows_one_apart_and_as_many_as_positions(kind):
    """A plane is moved in one piece; also by more than its size."""
    padding, kernels = {
        "same": (((1, 1), (1, 1)), (3, 3)),
        "wide": (((0, 0), (3, 3)), (1, 7)),
        "tall": (((3, 3), (0, 0)), (7, 1)),
        "beyond": (((8, 8), (8, 8)), (17, 17)),
    }[kind]
    windows = Windows(kernels, (1, 1), (1, 1), padding)
    x = normal(2, 2, 4, 5)
    assert windows.count((4, 5)) == (4, 5)
    np.testing.assert_array_equal(kernel("unfolded", x, windows), reference("unfolded", x, windows))


@several
@given(
    image=images(),
    n=st.integers(1, 3),
    channels=st.integers(2, 3),
    each=st.integers(1, 2),
    biased=st.booleans(),
)
def test_depthwise(image, n, channels, each, biased):
    windows, size = image
    how = Wiring(windows, size, channels)
    x, w = normal(n, channels, *size), normal(channels * each, 1, *windows.kernel, seed=1)
    y = normal(n, channels * each, *how.count, seed=2)
    bias, back = (normal(c, seed=3) if biased else None for c in (channels * each, channels))
    for name, args in (
        ("convolved", (x, w, bias, how)),
        ("spread", (y, w, back, how)),
        ("correlated", (x, y, how)),
    ):
        found = kernel(name, *args)
        assert found.flags.c_contiguous
        # sums of some hundred products in another order
        np.testing.assert_allclose(found, reference(name, *args), rtol=1e-12, atol=1e-12)


@several
@given(
    image=images(),
    n=st.integers(1, 4),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 6),
    block=st.sampled_from([1, 3000, 2**19]),
    biased=st.booleans(),
)
def test_few_channels(image, n, channels, outputs, block, biased):
    """Of one sample or several a block; over three axes they are unfolded."""
    windows, size = image
    how = Wiring(windows, size)
    x, w = normal(n, channels, *size), normal(outputs, channels, *windows.kernel, seed=1)
    y = normal(n, outputs, *how.count, seed=2)
    bias, back = (normal(c, seed=3) if biased else None for c in (outputs, channels))
    calls = {"convolved": (x, w, bias), "spread": (y, w, back), "correlated": (x, y)}
    if len(size) == 3 or windows.are_points:
        assert not any(NUMPY.kernels.get(k).accepts(*args, how) for k, args in calls.items())
        return
    with mock.patch.object(dense, "BLOCK", block):
        for name in ("reading", "summing", "writing"):
            getattr(dense, name).cache_clear()
        found = {name: kernel(name, *args, how) for name, args in calls.items()}
    for name, args in calls.items():
        assert found[name].flags.c_contiguous
        # sums of some hundred products in another order
        expected = reference(name, *args, how)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_outputs_and_places_than_a_tile_has(dtype):
    how = Wiring(Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))), (33, 35))
    x, w = normal(5, 30, 33, 35, dtype=dtype), normal(13, 30, 3, 3, seed=1, dtype=dtype)
    y = normal(5, 13, 33, 35, seed=2, dtype=dtype)
    for name, args in {"convolved": (x, w, None), "spread": (y, w, None)}.items():
        exact = reference(name, *(a if a is None else a.astype(np.float64) for a in args), how)
        # sums of 270 products around 1, each rounded at about 16
        bound = 270 * 16 * np.finfo(dtype).eps / 2
        np.testing.assert_allclose(kernel(name, *args, how), exact, atol=bound)


@pytest.mark.parametrize("groups", [1, 2])
def test_nan_stays_in_the_windows_that_hold_it(groups):
    """What lies beside an image in a line is another sample, or another row: they are not seen."""
    how = Wiring(Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))), (6, 5), groups)
    x, w = normal(3, 2, 6, 5), normal(2, 2 // groups, 3, 3, seed=1)
    x[1, 0, 0, 0] = x[1, 0, 5, 4] = np.nan
    for name, args in {"convolved": (x, w, None), "spread": (x, w, None)}.items():
        found, expected = kernel(name, *args, how), reference(name, *args, how)
        assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("groups", [1, 2])
def test_float32_gradients_of_weights_lose_nothing_over_many_samples(groups):
    """Parts are added in float64; one sum in float32 would be off by some 1e-4."""
    how = Wiring(Windows((1, 3), (1, 1), (1, 1), ((0, 0), (1, 1))), (64, 64), groups)
    x, y = (normal(64, 2, 64, 64, seed=s, dtype=np.float32) + 1 for s in (0, 1))
    exact = reference("correlated", x.astype(np.float64), y.astype(np.float64), how)
    # the parts are sums of 64 values around 1
    np.testing.assert_allclose(kernel("correlated", x, y, how), exact, rtol=1e-6)


def test_bits_depend_on_the_input_alone():
    """Not on the thread, nor on what the others do."""
    windows = Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    x, w = normal(5, 4, 6, 5), normal(4, 4, 3, 3, seed=1)

    def phases(_):
        columns = kernel("unfolded", x, windows)
        found = [columns, kernel("folded", columns, windows, x.shape)]
        for groups in (1, 4):
            how, part = Wiring(windows, (6, 5), groups), w[:, : 4 // groups].copy()
            found += [kernel(name, x, part, None, how) for name in ("convolved", "spread")]
            found.append(kernel("correlated", x, x, how))
        return [v.tobytes() for v in found]

    wanted = phases(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(bits == wanted for bits in pool.map(phases, range(8)))


def test_what_goes_to_the_reference():
    windows = Windows((2,), (1,), (1,), ((0, 0),))
    how, last = Wiring(windows, (5,), 3), Wiring(windows, (5,), 3, last=True)
    x, w = normal(2, 3, 5), normal(3, 1, 2)
    for bad in (x.astype(np.float16), x[:0], x[:, :, ::-1]):
        assert not NUMPY.kernels.get("unfolded").accepts(bad, windows)
        assert not NUMPY.kernels.get("folded").accepts(bad, windows, (2, 3, 5))
        assert not NUMPY.kernels.get("convolved").accepts(bad, w, None, how)
        assert not NUMPY.kernels.get("correlated").accepts(x, bad, how)
        assert not NUMPY.kernels.get("correlated").accepts(bad, x, how)
    convolved, correlated = (NUMPY.kernels.get(n) for n in ("convolved", "correlated"))
    assert not convolved.accepts(x, w, None, last)
    # groups of several channels, and more channels than tiles are quick for
    two = Wiring(windows, (5,), 2)
    assert not convolved.accepts(normal(2, 4, 5), normal(4, 2, 2), None, two)
    assert not correlated.accepts(normal(2, 4, 5), normal(2, 4, 5), two)
    many = Wiring(windows, (5,))
    assert not convolved.accepts(normal(2, 65, 5), normal(64, 65, 2), None, many)
    assert not correlated.accepts(normal(2, 65, 5), normal(2, 64, 4), many)
