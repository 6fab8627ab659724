"""Embeddings: rows by number, and the gradients that come back to them."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.errors import BackendError, DtypeError, GradientError, RangeError, ShapeError

F = nn.functional


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [tg.int64, tg.int32])
def test_gives_the_rows(shape, dtype):
    m = nn.Embedding(5, 3)
    index = np.random.default_rng(0).integers(0, 5, shape)
    y = m(tg.tensor(index, dtype=dtype))
    assert y.shape == (*shape, 3)
    assert np.array_equal(y.detach().numpy(), m.weight.detach().numpy()[index])


def test_gradients_of_repeated_rows_add_up(device):
    w = tg.zeros(4, 2, requires_grad=True, device=device)
    F.embedding(tg.tensor([[1, 3], [1, 1]], device=device), w).sum().backward()
    assert w.grad.tolist() == [[0, 0], [3, 3], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("index", "padding_idx"), [([0, 3, 3, 1], None), ([0, 1, 3, 3], 2), ([0, 1, 0, 1], -1)]
)
def test_gradients_to_order_2(index, padding_idx):
    """Without reading the padding row, whose values finite differences would see."""
    w = tg.randn(4, 2, dtype=tg.float64, requires_grad=True)

    def cubed(w):
        return F.embedding(tg.tensor(index), w, padding_idx) ** 3

    assert gradcheck(cubed, (w,))
    assert gradgradcheck(cubed, (w,))


def test_the_padding_row_starts_at_zero_and_gets_no_gradient():
    m = nn.Embedding(4, 2, padding_idx=-2)
    assert m.padding_idx == 2
    assert m.weight.detach().numpy()[2].tolist() == [0, 0]
    assert (m.weight.detach().numpy()[[0, 1, 3]] != 0).all()
    y = m(tg.tensor([2, 1]))
    assert y.detach().numpy()[0].tolist() == [0, 0]
    y.sum().backward()
    assert m.weight.grad.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0]]
    assert repr(m) == "Embedding(4, 2, padding_idx=2)"


def test_the_output_does_not_share_the_weights_memory():
    w = tg.zeros(2, 2)
    F.embedding(tg.tensor(1), w).overwrite(5)
    F.embedding(tg.tensor([0, 1]), w).overwrite(5)
    assert w.tolist() == [[0, 0], [0, 0]]


def test_a_later_change_of_the_numbers_does_not_reach_the_graph():
    w, index = tg.zeros(2, 1, requires_grad=True), tg.tensor([0, 0])
    y = F.embedding(index, w).sum()
    index.overwrite(np.array([1, 1]))
    try:
        y.backward()
    except GradientError:
        return
    assert w.grad.tolist() == [[2], [0]]


def test_numbers_on_another_device_are_refused(cuda):
    with pytest.raises(BackendError, match="numbers on cpu, got cuda:0"):
        nn.Embedding(5, 2)(tg.tensor([0], device=cuda))


def test_from_pretrained_shares_memory_and_freezes():
    rows = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    m = nn.Embedding.from_pretrained(rows, padding_idx=0)
    assert m.weight.array is rows.array
    assert not m.weight.requires_grad
    assert m(tg.tensor([1, 0])).tolist() == [[3, 4], [1, 2]]
    assert nn.Embedding.from_pretrained(rows, freeze=False).weight.requires_grad
    assert repr(m) == "Embedding(2, 2, padding_idx=0)"


@pytest.mark.parametrize("bad", [[0, 5], [-1, 0]])
def test_numbers_without_a_row_are_refused(bad):
    with pytest.raises(RangeError, match=r"\[0, 5\)"):
        nn.Embedding(5, 2)(tg.tensor(bad))


def test_other_mistakes_are_refused():
    with pytest.raises(DtypeError, match="float32"):
        nn.Embedding(5, 2)(tg.zeros(2))
    with pytest.raises(DtypeError, match="bool"):
        nn.Embedding(5, 2)(tg.zeros(2, dtype=tg.bool))
    for padding_idx in (5, -6):
        with pytest.raises(RangeError, match="padding_idx"):
            nn.Embedding(5, 2, padding_idx)
    for call in (nn.Embedding.from_pretrained, lambda w: F.embedding(tg.tensor([0]), w)):
        with pytest.raises(ShapeError):
            call(tg.zeros(3))


@pytest.mark.torch
def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.Embedding(6, 3, padding_idx=1), nn.Embedding(6, 3, padding_idx=1)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    index = np.array([[0, 1, 5], [1, 5, 5]])
    (ours(tg.tensor(index)) ** 2).sum().backward()
    (theirs(torch.tensor(index)) ** 2).sum().backward()
    # sums of at most three products, in float32
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-6)
