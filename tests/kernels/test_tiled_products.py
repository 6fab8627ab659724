"""Products by tiles are those of float64, rounded, in every layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygrad_bn.backends import products
from tinygrad_bn.backends.products import matmul, matmul_into

import tinygrad_bn as tg

pytest.importorskip("numba")
tiled_products = pytest.importorskip("tinygrad_bn.backends.numba_kernels.tiled_products")

pytestmark = pytest.mark.skipif(
    tiled_products.TILED_PRODUCT is None, reason="BLAS takes all products here"
)
KERNEL = tiled_products.TILED_PRODUCT


def matrix(rng, shape, order, dtype="f4"):
    return np.asarray(rng.standard_normal(shape), dtype, order)


def bound(a, b):
    """k ulp of Σ |a| |b|: what any order of rounded sums keeps within (Higham 2002, eq. 3.5)."""
    return a.shape[1] * np.finfo(a.dtype).eps * (abs(a) @ abs(b)) + np.finfo(a.dtype).tiny


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*[st.integers(1, 70)] * 3),
    st.sampled_from([1, 5]),
    st.sampled_from("CF"),
    st.sampled_from("CF"),
    st.sampled_from(["f4", "f8"]),
)
def test_any_sizes_and_layouts(sizes, times, of_a, of_b, dtype):
    m, k, n = sizes
    rng = np.random.default_rng(m + 100 * k + 10_000 * n)
    a = matrix(rng, (m, k * times), of_a, dtype)
    b = matrix(rng, (k * times, n), of_b, dtype)
    function, operands = tiled_products.product((np.full((m, n), np.nan, dtype),), a, b)
    function(*operands)
    y = operands[2].reshape(m, n)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    assert np.all(abs(y - exact) <= bound(a, b))


def test_values_that_are_not_finite_stay_in_their_rows_and_columns(monkeypatch):
    monkeypatch.setattr(tiled_products, "count", lambda: 1)
    rng = np.random.default_rng(0)
    a, b = matrix(rng, (16, 300), "C"), matrix(rng, (300, 272), "C")
    a[3, 7], b[5, 271] = np.nan, np.inf
    assert KERNEL.accepts(a, b)
    y = KERNEL.run(a, b)
    expected = np.zeros(y.shape, bool)
    expected[3], expected[:, 271] = True, True
    assert np.array_equal(~np.isfinite(y), expected)


def test_what_is_left_to_blas(monkeypatch):
    monkeypatch.setattr(tiled_products, "count", lambda: 1)
    rng = np.random.default_rng(0)
    a, b = matrix(rng, (16, 784), "C"), matrix(rng, (784, 256), "C")
    assert KERNEL.accepts(a, b)
    assert KERNEL.accepts(a, matrix(rng, (784, 256), "F"))
    assert KERNEL.accepts(matrix(rng, (784, 16), "F"), matrix(rng, (16, 256), "C"))
    assert not KERNEL.accepts(np.repeat(a, 2, 0)[::2], b)  # rows with gaps
    assert not KERNEL.accepts(a, b[:, :100].copy())  # tiles would be a quarter zeros
    assert not KERNEL.accepts(a, b[:, :250].copy())  # rows that begin within a line of a cache
    assert not KERNEL.accepts(np.ones((256, 1024), "f4"), np.ones((1024, 1024), "f4"))
    assert not KERNEL.accepts(a[:2], b)  # too little
    assert not KERNEL.accepts(a.astype("f8"), b)
    assert not KERNEL.accepts(a.astype("i4"), b.astype("i4"))
    assert not KERNEL.accepts(a[None], b)
    assert not KERNEL.accepts(a[:0], b)


def test_bits_do_not_depend_on_where_matrices_lie():
    """Panels are laid out where rows begin within a line of a cache, as NumPy's often do."""
    rng = np.random.default_rng(0)
    a, b = matrix(rng, (32, 300), "C"), matrix(rng, (300, 256), "C")

    def moved(x, by):
        memory = np.empty(x.size + 32, x.dtype)
        start = -memory.ctypes.data % 64 // x.itemsize + by
        there = memory[start : start + x.size].reshape(x.shape)
        there[...] = x
        return there

    first, *others = [
        KERNEL.run(moved(a, i), moved(b, j)) for i, j in ((0, 0), (4, 0), (0, 4), (5, 7))
    ]
    assert all(np.array_equal(first, y) for y in others)


def test_threads_of_blas_take_what_pays_for_them(monkeypatch):
    a, b = np.ones((64, 784), "f4"), np.ones((784, 256), "f4")
    assert tiled_products.accepts(a, b) == (tiled_products.count() == 1)
    monkeypatch.setattr(tiled_products, "count", lambda: 8)
    assert not tiled_products.accepts(a, b)
    monkeypatch.setattr(tiled_products, "count", lambda: 1)
    assert tiled_products.accepts(a, b)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("of_a", ["C", "F"])
@pytest.mark.parametrize(
    "shape", [(16, 784, 256), (300, 1, 70), (784, 16, 256), (784, 500, 10), (100, 30, 20)]
)
def test_given_memory_holds_the_same(shape, of_a, order, monkeypatch):
    monkeypatch.setattr(tiled_products, "count", lambda: 1)
    (m, k, n), rng = shape, np.random.default_rng(0)
    a, b = matrix(rng, (m, k), of_a), matrix(rng, (k, n), "C")
    out = np.full((m, n), np.nan, "f4", order)
    function, operands = matmul_into((out,), a, b)
    function(*operands)
    assert np.all(abs(out - a.astype("f8") @ b) <= bound(a, b))
    assert np.array_equal(out, matmul(a, b))


def test_halves_in_given_memory():
    a, b = np.ones((3, 4), "f2"), np.full((4, 5), 0.1, "f2")
    out = np.empty((3, 5), "f2")
    function, operands = matmul_into((out,), a, b)
    function(*operands)
    assert np.array_equal(out, matmul(a, b))


def test_a_step_takes_them_and_its_program_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(tiled_products, "count", lambda: 1)
    taken, accepts = [], tiled_products.accepts
    spied = tiled_products.TILED_PRODUCT
    kernel = type(spied)(spied.run, lambda *x: taken.append(x) or accepts(*x), spied.into)
    monkeypatch.setattr(products, "for_tiles", lambda: kernel)

    def trained(through):
        tg.manual_seed(0)
        nn, optim = tg.nn, tg.optim
        net = nn.Sequential(nn.Linear(300, 256), nn.ReLU(), nn.Linear(256, 160))
        optimizer = optim.SGD(net.parameters(), lr=0.1)

        def step(x, t):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), t)
            loss.backward()
            optimizer.step()
            return loss

        step, x, t = through(step), tg.randn(32, 300), tg.randint(0, 160, (32,))
        losses = [step(x, t).item() for _ in range(4)]
        return losses, [p.detach().numpy().copy() for p in net.parameters()]

    losses, values = trained(lambda step: step)
    assert len(taken) >= 5
    same_losses, same_values = trained(tg.compile)
    assert losses == same_losses
    assert all(map(np.array_equal, values, same_values))


@pytest.mark.parametrize(
    "shapes", [((3, 1), (1, 4)), ((2, 3, 1), (1, 4)), ((1,), (1, 4)), ((3, 1), (1,))]
)
def test_products_of_one_term(shapes):
    a, b = (np.random.default_rng(0).standard_normal(shape) for shape in shapes)
    assert np.array_equal(matmul(a, b), np.matmul(a, b))
