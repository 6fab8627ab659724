"""Shapes, joining and splitting: whose memory results are, their dtypes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError


def x() -> tg.Tensor:
    return tg.arange(24.0).reshape(2, 3, 4)


VIEWS = {
    "view": lambda x: x.view(6, 4),
    "reshape": lambda x: x.reshape(4, 6),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 1),
    "movedim": lambda x: x.movedim(0, -1),
    "mT": lambda x: x.mT,
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "expand": lambda x: x.expand(5, 2, 3, 4),
    "split": lambda x: x.split(2, 1)[1],
    "chunk": lambda x: x.chunk(2)[1],
    "unbind": lambda x: x.unbind(2)[3],
    "tensor_split": lambda x: x.tensor_split((1,), 1)[1],
}
COPIES = {
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(0),
    "repeat": lambda x: x.repeat(1, 1, 1),
    "tril": lambda x: x.tril(9),
    "cat": lambda x: tg.cat([x]),
    "pad": lambda x: tg.nn.functional.pad(x, (0, 0)),
}


class TestMemory:
    @pytest.mark.parametrize("name", VIEWS)
    def test_is_shared_by_views(self, name):
        base = x()
        assert np.shares_memory(VIEWS[name](base).numpy(), base.numpy())

    @pytest.mark.parametrize("name", COPIES)
    def test_is_the_results_own_otherwise(self, name):
        base = x()
        y = COPIES[name](base)
        before = base.tolist()
        y.fill_(-1)
        assert base.tolist() == before


class TestView:
    @pytest.mark.parametrize("shape", [(24,), (3, 2, 4), (12, 2)])
    def test_refuses_what_would_be_a_copy(self, shape, device):
        y = x().to(device).transpose(0, 1)
        if shape == (3, 2, 4):
            assert y.view(shape).shape == shape
        else:
            with pytest.raises(ShapeError, match="reshape"):
                y.view(shape)

    @pytest.mark.torch
    @given(
        st.permutations(range(3)), st.sampled_from([(6, 4), (2, 12), (24,), (2, 3, 2, 2), (4, 6)])
    )
    @settings(max_examples=60, deadline=None)
    def test_refuses_exactly_where_pytorch_does(self, order, shape):
        torch = pytest.importorskip("torch")
        theirs = torch.arange(24.0).reshape(2, 3, 4).permute(order)
        try:
            expected = theirs.view(shape)
        except RuntimeError:
            with pytest.raises(ShapeError):
                x().permute(order).view(shape)
        else:
            assert x().permute(order).view(shape).tolist() == expected.tolist()


class TestBadShapes:
    @pytest.mark.parametrize(
        "call",
        [
            lambda: x().reshape(5, 5),
            lambda: x().reshape(-1, -1),
            lambda: x().reshape(-1, 7),
            lambda: x().reshape(-2, -12),
            lambda: tg.zeros(0).reshape(-1, 0),
            lambda: x().view("ab"),
            lambda: x().permute(0, 1),
            lambda: x().permute(0, 1, 1),
            lambda: x().transpose(0, 3),
            lambda: x().T,
            lambda: tg.zeros(3).mT,
            lambda: x().squeeze(3),
            lambda: x().unsqueeze(5),
            lambda: x().expand(2, 3, 5),
            lambda: x().expand(3, 4),
            lambda: x().expand(-1, 2, 3, 4),
            lambda: x().flatten(2, 1),
            lambda: x().unflatten(0, (3, -1)),
            lambda: x().movedim((0, 1), 2),
            lambda: x().flip(3),
            lambda: x().flip((0, 0)),
            lambda: x().roll((1, 2), 0),
            lambda: tg.zeros(()).roll(1, 0),
            lambda: tg.zeros(()).flipud(),
            lambda: x().repeat_interleave(tg.tensor([1, 2, 3]), 0),
            lambda: x().repeat_interleave(tg.tensor([1, -2]), 0),
            lambda: x().repeat_interleave(2, 0, output_size=5),
            lambda: x().repeat(2),
            lambda: x().repeat(2, 2, -1),
            lambda: x().tril().t(),
            lambda: tg.zeros(3).tril(),
            lambda: x().diag(),
            lambda: x().trace(),
            lambda: tg.broadcast_tensors(tg.zeros(2), tg.zeros(3)),
            lambda: tg.cat([x(), tg.zeros(2, 3)]),
            lambda: tg.cat([x(), tg.zeros(2, 2, 4)]),
            lambda: tg.cat([tg.zeros(()), tg.zeros(())]),
            lambda: tg.cat([x()], 3),
            lambda: tg.stack([tg.zeros(2), tg.zeros(1)]),
            lambda: x().split((1, 2), 1)[0].split((1, 2), 1),
            lambda: x().split(-1),
            lambda: x().split(0),
            lambda: tg.zeros(()).split(1),
            lambda: tg.zeros(()).unbind(),
            lambda: tg.nn.functional.pad(x(), (1,)),
            lambda: tg.nn.functional.pad(x(), (1,) * 8),
            lambda: tg.nn.functional.pad(x(), (-3, -2)),
            lambda: tg.nn.functional.pad(x(), (4, 0), "reflect"),
            lambda: tg.nn.functional.pad(x(), (5, 0), "circular"),
            lambda: tg.nn.functional.pad(tg.zeros(0), (1, 0), "replicate"),
            lambda: tg.meshgrid(x(), x()),
        ],
    )
    def test_are_refused(self, call):
        with pytest.raises(ShapeError, match="expected"):
            call()

    @pytest.mark.parametrize(
        ("error", "call"),
        [
            (ArgumentError, lambda: tg.cat([])),
            (DtypeError, lambda: tg.cat(x())),
            (DtypeError, lambda: tg.stack([x(), np.zeros((2, 3, 4))])),
            (ArgumentError, lambda: x().chunk(0)),
            (ArgumentError, lambda: x().tensor_split(0)),
            (ArgumentError, lambda: tg.nn.functional.pad(x(), (1, 1), "mirror")),
            (ArgumentError, lambda: tg.nn.functional.pad(x(), (1, 1), "reflect", 1.0)),
            (ArgumentError, lambda: tg.meshgrid(tg.zeros(2), indexing="yx")),
            (DtypeError, lambda: tg.reshape(np.zeros(2), (2,))),
        ],
    )
    def test_and_other_bad_arguments(self, error, call):
        with pytest.raises(error, match="expected"):
            call()

    def test_devices_do_not_mix(self, cuda):
        with pytest.raises(BackendError, match="cuda"):
            tg.cat([tg.zeros(2), tg.zeros(2, device=cuda)])


class TestJoining:
    def test_promotes_dtypes(self):
        whole, real = tg.tensor([1, 2]), tg.tensor([0.5, 0.5])
        assert tg.cat([whole, real]).dtype == tg.float32
        assert tg.stack([whole, whole > 1]).dtype == tg.int64

    @pytest.mark.torch
    @given(st.integers(0, 9), st.integers(1, 5))
    @settings(max_examples=60, deadline=None)
    def test_splits_as_pytorch_does(self, size, n):
        torch = pytest.importorskip("torch")
        ours, theirs = tg.arange(size), torch.arange(size)
        for name in ("split", "tensor_split") + ("chunk",) * (size > 0):
            found, expected = getattr(ours, name)(n), getattr(theirs, name)(n)
            assert [p.tolist() for p in found] == [p.tolist() for p in expected], name

    def test_undoes_splitting(self):
        assert tg.cat(x().split(2, 2), 2).tolist() == x().tolist()
        assert tg.stack(x().unbind(1), 1).tolist() == x().tolist()

    def test_parts_that_nothing_uses_have_zeros_as_their_gradient(self, device):
        w = tg.arange(6.0, device=device).requires_grad_()
        (w.split(2)[1] * 3).sum().backward()
        assert w.backend.to_numpy(w.grad.array).tolist() == [0, 0, 3, 3, 0, 0]


def test_broadcast_shapes_is_numpys():
    for shapes in ([(3, 1), (4,)], [(0, 1), (1, 5), ()], [(2,)], []):
        assert tg.broadcast_shapes(*shapes) == np.broadcast_shapes(*shapes)
    with pytest.raises(ShapeError, match="broadcast"):
        tg.broadcast_shapes((2, 3), (4, 3))
