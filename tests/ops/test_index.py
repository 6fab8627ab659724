"""Indexing: PyTorch's meaning, views and copies, what is refused, and writing in place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    GradientError,
    RangeError,
    ShapeError,
)


def values(x: tg.Tensor) -> np.ndarray:
    return x.backend.to_numpy(x.array)


SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def basic_parts(draw, shape):
    """Integers and slices for some of the axes, with None among them and perhaps an Ellipsis."""
    parts = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        slices = st.slices(n).filter(lambda s: s.step is None or s.step > 0)
        parts.append(draw(slices | st.integers(-n, n - 1) if n else slices))
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    if draw(st.booleans()):
        parts.append(Ellipsis)
    return tuple(parts)


@st.composite
def mixed_parts(draw, shape):
    """As `basic_parts`, with arrays that broadcast, and masks, in place of some parts."""
    common = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    parts, axis = [], 0
    stop = draw(st.integers(0, len(shape)))
    while axis < stop:
        n = shape[axis]
        kinds = ["slice", "mask"] + ["integer", "array"] * (n > 0)
        kind = draw(st.sampled_from(kinds))
        if kind == "integer":
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "array":
            size = int(np.prod(common))
            flat = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            parts.append(np.array(flat, np.int64).reshape(common))
        elif kind == "mask":
            mask = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
            parts.append(mask)
        else:
            # PyTorch takes steps forward only, and multiplies them by strides in 64 bits
            parts.append(draw(st.slices(n).filter(lambda s: 0 < (s.step or 1) < 2**32)))
        axis += 1
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    if draw(st.booleans()):
        parts.append(Ellipsis)
    return tuple(parts)


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


class TestBasicIndices:
    @given(st.data(), SHAPES)
    @settings(max_examples=150, deadline=None)
    def test_mean_what_numpys_do(self, data, shape):
        index = data.draw(basic_parts(shape))
        x = numbered(shape)
        found = tg.from_numpy(x)[index]
        np.testing.assert_array_equal(found.numpy(), x[index], strict=True)
        assert not found.numel() or np.shares_memory(found.numpy(), x)

    def test_may_step_backwards_unlike_pytorchs(self, device):
        x = tg.arange(5.0, device=device).requires_grad_()
        y = x[3:0:-2]
        y.backward(tg.tensor([1.0, 2.0], device=device))
        assert values(y).tolist() == [3, 1]
        assert values(x.grad).tolist() == [0, 2, 0, 1, 0]

    def test_take_whole_numbers_of_any_make(self):
        x = tg.arange(5)
        assert x[np.int32(2)] == x[tg.tensor(2)] == x[tg.tensor(1) : tg.tensor(3)][1] == 2
        assert x[np.True_].shape == x[tg.tensor(True)].shape == (1, 5)
        assert x[False].shape == (0, 5)

    def test_iterate(self):
        assert [row.tolist() for row in tg.arange(4).reshape(2, 2)] == [[0, 1], [2, 3]]


@pytest.mark.torch
class TestMixedIndices:
    @given(st.data(), SHAPES)
    @settings(max_examples=300, deadline=None)
    def test_mean_what_pytorchs_do_with_gradients(self, data, shape):
        torch = pytest.importorskip("torch")
        index = data.draw(mixed_parts(shape))
        theirs = torch.tensor(numbered(shape), requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            as_theirs = tuple(torch.tensor(p) if isinstance(p, np.ndarray) else p for p in index)
            try:
                expected = theirs[as_theirs]
            except IndexError:  # masks and arrays that do not broadcast
                with pytest.raises((ShapeError, RangeError)):
                    tg.tensor(numbered(shape))[index]
                return
        x = tg.tensor(numbered(shape), requires_grad=True)
        ours = tuple(tg.tensor(p) if isinstance(p, np.ndarray) else p for p in index)
        found = x[ours]
        np.testing.assert_array_equal(
            found.detach().numpy(), expected.detach().numpy(), strict=True
        )
        seed = numbered(tuple(expected.shape))
        expected.backward(torch.tensor(seed))
        found.backward(tg.tensor(seed))
        np.testing.assert_array_equal(x.grad.numpy(), theirs.grad.numpy())

    @given(st.data(), SHAPES)
    @settings(max_examples=200, deadline=None)
    def test_write_what_pytorchs_do(self, data, shape):
        torch = pytest.importorskip("torch")
        index = data.draw(mixed_parts(shape))
        x, theirs = tg.tensor(numbered(shape)), torch.tensor(numbered(shape))
        as_theirs = tuple(torch.tensor(p) if isinstance(p, np.ndarray) else p for p in index)
        try:
            part = theirs[as_theirs]
        except IndexError:
            part = None
        assume(part is not None)
        flat = numbered(tuple(part.shape)) * 0 - 1  # one value, as repeated places may keep any
        theirs[as_theirs] = torch.tensor(flat)
        x[tuple(tg.tensor(p) if isinstance(p, np.ndarray) else p for p in index)] = tg.tensor(flat)
        np.testing.assert_array_equal(x.numpy(), theirs.numpy())


class TestBadIndices:
    @pytest.mark.parametrize(
        ("error", "index"),
        [
            (RangeError, 3),
            (RangeError, -4),
            (RangeError, (0, 0, 0)),
            (RangeError, (..., 0, ...)),
            (RangeError, [0, 3]),
            (RangeError, (slice(None), [-5])),
            (RangeError, np.array([True, False])),
            (RangeError, np.ones((3, 3), np.bool_)),
            (ShapeError, ([0, 1], [0, 1, 2])),
            (DtypeError, 1.0),
            (DtypeError, "a"),
            (DtypeError, [0.5]),
            (DtypeError, [[0], [1, 2]]),
            (DtypeError, slice(0.5, None)),
            (DtypeError, np.array([0, 1], np.uint8)),
            (ArgumentError, slice(None, None, 0)),
        ],
        ids=str,
    )
    def test_are_refused_for_reading_and_writing(self, error, index, device):
        x = tg.ones(3, 4, device=device)
        with pytest.raises(error, match="expected"):
            x[index]
        with pytest.raises(error, match="expected"):
            x[index] = 0
        assert x.sum() == 12

    @pytest.mark.torch
    def test_tensors_of_another_library(self):
        torch = pytest.importorskip("torch")
        for index in (torch.tensor([0]), torch.tensor(0)):  # which could pass for a number
            with pytest.raises(DtypeError, match="got Tensor"):
                tg.ones(3, 4)[index]

    def test_of_another_device(self, cuda):
        with pytest.raises(BackendError, match="cpu"):
            tg.ones(3, device=cuda)[tg.tensor([0])]
        assert tg.ones(3, device=cuda)[[0, 1]].shape == (2,)


class TestWriting:
    def test_broadcasts(self, device):
        x = tg.zeros(2, 3, device=device)
        x[:, 1] = tg.tensor([1.0, 2.0], device=device)
        x[0, [0, 2]] = 5
        x[x > 4] += 1
        x[1] = tg.tensor([[7.0]], device=device)
        assert values(x).tolist() == [[6, 1, 6], [7, 7, 7]]

    def test_copies_between_overlapping_parts(self, device):
        x = tg.arange(5, device=device)
        x[1:] = x[:-1]
        assert values(x).tolist() == [0, 0, 1, 2, 3]

    @pytest.mark.parametrize(
        ("error", "dtype", "value"),
        [
            (DtypeError, tg.int64, 1.5),
            (DtypeError, tg.bool, 1),
            (DtypeError, tg.uint8, tg.tensor([1])),
            (ArgumentError, tg.int8, 128),
            (ArgumentError, tg.uint8, -1),
            (DtypeError, tg.float32, "a"),
            (ShapeError, tg.float32, [1, 2, 3]),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("index", [slice(0, 2), [0, 1]], ids=["slice", "list"])
    def test_refuses_values_that_do_not_fit(self, error, dtype, value, index):
        x = tg.zeros(4, dtype=dtype)
        with pytest.raises(error, match="expected"):
            x[index] = value
        assert not values(x).any()

    def test_narrows_within_a_kind(self):
        x = tg.zeros(2, dtype=tg.float32)
        x[0] = tg.tensor(0.1, dtype=tg.float64)
        x[1] = 2
        assert values(x).tolist() == [np.float32(0.1), 2]

    def test_is_refused_inside_of_the_graph(self):
        w = tg.ones(3, requires_grad=True)
        for write in (
            lambda: w.__setitem__(0, 2),
            lambda: (w * 2).__setitem__(0, 2),
            lambda: w.zero_(),
            lambda: w.add_(1),
            lambda: tg.zeros(3).__setitem__(0, w[0]),
            lambda: tg.zeros(3).copy_(w),
        ):
            with pytest.raises(GradientError, match="expected"):
                write()
        assert w.tolist() == [1, 1, 1]
        with tg.no_grad():
            w[0] = 2
            w.mul_(3)
        assert w.tolist() == [6, 3, 3]

    def test_into_expanded_memory_is_refused(self, device):
        x = tg.zeros(1, 3, device=device).expand(2, 3)
        for write in (lambda: x.fill_(1), lambda: x.__setitem__((0, 0), 1)):
            with pytest.raises(ArgumentError, match="clone"):
                write()

    def test_methods_return_the_tensor(self, device):
        x = tg.ones(3, device=device)
        for y in (x.add_(2), x.sub_(1, alpha=0.5), x.mul_(4), x.div_(5), x.clamp_(max=1.5)):
            assert y is x
        assert values(x).tolist() == [1.5, 1.5, 1.5]
        assert values(x.copy_(tg.tensor([1.0, 2.0, 3.0]))).tolist() == [1, 2, 3]
        assert values(x.fill_(4).zero_()).tolist() == [0, 0, 0]
        with pytest.raises(ShapeError, match="broadcasts"):
            x.add_(tg.ones(2, 3, device=device))
        with pytest.raises(DtypeError, match="casts"):
            tg.zeros(2, dtype=tg.int64).add_(0.5)


class TestAugmentedAssignment:
    def test_writes_in_place_outside_of_a_graph(self):
        x = kept = tg.ones(2)
        x += 1
        x *= 3
        x -= tg.ones(2)
        x /= 2
        assert x is kept
        assert x.tolist() == [2.5, 2.5]

    def test_binds_a_new_tensor_in_a_graph(self):
        w = tg.ones(2, requires_grad=True)
        x = w * 2
        kept = x
        x += 1
        assert x is not kept
        total = tg.zeros(())
        total += x.sum()
        total.backward()
        assert w.grad.tolist() == [2, 2]

    def test_writes_to_a_leaf_without_gradients(self):
        w = kept = tg.ones(2, requires_grad=True)
        with tg.no_grad():
            w -= 0.5
        assert w is kept
        assert w.tolist() == [0.5, 0.5]


class TestGraphsSeeWrites:
    VIEWS = {
        "slice": lambda x: x[1:],
        "integer": lambda x: x[0],
        "reshape": lambda x: x.reshape(-1).reshape(2, 2),
        "transpose": lambda x: x.T,
        "split": lambda x: x.split(1)[0],
        "unbind": lambda x: x.unbind(1)[0],
        "detach": lambda x: x.detach(),
        "expand": lambda x: x.expand(1, 2, 2)[0],
    }

    @pytest.mark.parametrize("name", [name for name in VIEWS if name != "expand"])
    def test_through_views_of_what_they_need(self, name, device):
        w = tg.ones(2, 2, requires_grad=True, device=device)
        x = tg.ones(2, 2, device=device)
        y = (w * x).sum()
        self.VIEWS[name](x).zero_()
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    @pytest.mark.parametrize("name", VIEWS)
    def test_to_the_base_of_what_they_need(self, name, device):
        w = tg.ones(2, 2, requires_grad=True, device=device)
        x = tg.ones(2, 2, device=device)
        part = self.VIEWS[name](x)
        y = (w * part).sum()
        x[...] = 3
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_but_not_of_an_index_which_they_keep_for_themselves(self):
        x, index = tg.ones(3, requires_grad=True), tg.tensor([2])
        y, z = x[index].sum(), tg.index_select(x, 0, index).sum()
        index[0] = 0
        (y + z).backward()
        assert x.grad.tolist() == [0, 0, 2]

    def test_nor_of_copies(self):
        x = tg.ones(3)
        w = tg.ones(2, requires_grad=True)
        y = (w * x[[0, 1]]).sum()
        x.zero_()
        y.backward()
        assert w.grad.tolist() == [1, 1]


class TestPlaces:
    @pytest.mark.parametrize(
        ("error", "call"),
        [
            (RangeError, lambda t, x, i: t.gather(x, 0, i - 1)),
            (RangeError, lambda t, x, i: t.gather(x, 0, i + 2)),
            (RangeError, lambda t, x, i: t.scatter(x, 0, i - 1, 1.0)),
            (RangeError, lambda t, x, i: t.scatter_add(x, 0, i + 2, x[:1])),
            (RangeError, lambda t, x, i: t.index_select(x, 0, i[0] + 2)),
            (RangeError, lambda t, x, i: t.take(x, i + 6)),
            (RangeError, lambda t, x, i: t.nn.functional.one_hot(i - 1)),
            (RangeError, lambda t, x, i: t.nn.functional.one_hot(i, 1)),
            (ShapeError, lambda t, x, i: t.gather(x, 0, i[0])),
            (ShapeError, lambda t, x, i: t.gather(x, 2, i)),
            (ShapeError, lambda t, x, i: t.gather(x, 0, t.cat([i, i], 1))),
            (ShapeError, lambda t, x, i: t.index_select(x, 0, i)),
            (ShapeError, lambda t, x, i: t.index_add(x, 0, i[0], x)),
            (ShapeError, lambda t, x, i: x.masked_fill(x > 0, x)),
            (ShapeError, lambda t, x, i: t.masked_select(x, t.ones(5, dtype=t.bool))),
            (DtypeError, lambda t, x, i: t.gather(x, 0, x)),
            (DtypeError, lambda t, x, i: t.scatter(x, 0, i)),
            (DtypeError, lambda t, x, i: t.scatter_add(x, 0, i, i)),
            (DtypeError, lambda t, x, i: x.masked_fill(x, 1)),
            (DtypeError, lambda t, x, i: i.masked_fill(i > 0, 1.5)),
            (DtypeError, lambda t, x, i: t.where(x > 0, x)),
        ],
    )
    def test_are_checked_as_in_pytorch(self, error, call):
        x, i = tg.ones(2, 3), tg.tensor([[0, 1, 0]])
        with pytest.raises(error, match="expected"):
            call(tg, x, i)

    def test_of_meeting_sources_one_arrives_with_its_gradient(self, device):
        x = tg.zeros(2, device=device)
        i = tg.tensor([1, 1, 1], device=device)
        src = tg.tensor([1.0, 2.0, 3.0], device=device, requires_grad=True)
        y = tg.scatter(x, 0, i, src)
        y.sum().backward()
        arrived = values(src.grad)
        assert sorted(arrived.tolist()) == [0, 0, 1]
        assert values(y).tolist() == [0, float((arrived * [1, 2, 3]).sum())]

    def test_scatter_leaves_nan_elsewhere_and_replaces_it(self):
        x = tg.tensor([np.nan, np.nan])
        y = tg.scatter(x, 0, tg.tensor([0]), tg.tensor([1.0]))
        np.testing.assert_array_equal(y.numpy(), [1, np.nan])

    def test_one_hot_counts_its_classes(self):
        hot = tg.nn.functional.one_hot(tg.tensor([2, 0]))
        assert hot.tolist() == [[0, 0, 1], [1, 0, 0]]
        assert hot.dtype == tg.int64

    def test_nonzero_in_both_forms(self, device):
        x = tg.tensor([[0, 3], [4, 0]], device=device)
        assert values(tg.nonzero(x)).tolist() == [[0, 1], [1, 0]]
        assert [values(p).tolist() for p in x.nonzero(as_tuple=True)] == [[0, 1], [1, 0]]
        assert [values(p).tolist() for p in tg.where(x > 0)] == [[0, 1], [1, 0]]
        assert tg.nonzero(tg.tensor(5, device=device)).shape == (1, 0)
        assert tg.nonzero(tg.tensor(0, device=device)).shape == (0, 0)
