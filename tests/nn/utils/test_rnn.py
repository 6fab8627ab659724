"""Sequences of several lengths, padded and packed: as PyTorch, and whatever the lengths are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.autograd import gradcheck, gradgradcheck
from tinygrad_bn.nn.utils import rnn

lengths_in_any_order = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def numbers(*shape):
    """All different, so that none can stand in another's place."""
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


def sequences_of(lengths, features=2):
    ends = np.cumsum(lengths)
    rows = numbers(ends[-1], features)
    return [tg.tensor(rows[end - n : end]) for n, end in zip(lengths, ends, strict=True)]


@settings(max_examples=40, deadline=None)
@given(lengths=lengths_in_any_order, batch_first=st.booleans(), more=st.integers(0, 2))
def test_packing_and_padding_undo_each_other(lengths, batch_first, more):
    sequences, steps = sequences_of(lengths), max(lengths) + more
    packed = rnn.pack_sequence(sequences, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [
        sum(n > step for n in lengths) for step in range(max(lengths))
    ]
    padded, known = rnn.pad_packed_sequence(packed, batch_first, -1.0, steps)
    assert known.tolist() == lengths
    assert padded.shape == ((len(lengths), steps, 2) if batch_first else (steps, len(lengths), 2))
    for found, sequence in zip(
        rnn.unpad_sequence(padded, known, batch_first), sequences, strict=True
    ):
        assert found.tolist() == sequence.tolist()
    mask = np.arange(steps)[:, None] >= np.array(lengths)
    values = padded.numpy().swapaxes(0, 1) if batch_first else padded.numpy()
    assert (values[mask] == -1).all()
    again = rnn.pack_padded_sequence(padded, known, batch_first, enforce_sorted=False)
    for a, b in zip(again, packed, strict=True):
        assert a.tolist() == b.tolist()


@pytest.mark.torch
@pytest.mark.parametrize("lengths", [[5, 3, 2], [2, 5, 3], [4, 4]], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_agrees_with_pytorch(lengths, batch_first, device):
    torch = pytest.importorskip("torch")
    n, ordered = len(lengths), lengths == sorted(lengths, reverse=True)
    x = numbers(n, max(lengths), 2) if batch_first else numbers(max(lengths), n, 2)
    found = []
    for library, place in ((tg, {"device": device}), (torch, {})):
        module = library.nn.utils.rnn
        leaf = library.tensor(x, requires_grad=True, **place)
        packed = module.pack_padded_sequence(leaf, lengths, batch_first, ordered)
        assert (packed.sorted_indices is None) == ordered
        y, known = module.pad_packed_sequence(packed, batch_first, 7.0, 6)
        y.backward(library.tensor(numbers(*y.shape), **place))
        parts = [v for v in packed if v is not None]
        found.append([v.detach().cpu().numpy() for v in (*parts, y, known, leaf.grad)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.torch
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("tail", [(), (2,), (2, 3)], ids=str)
def test_pad_sequence_agrees_with_pytorch(side, batch_first, tail):
    torch = pytest.importorskip("torch")
    arrays = [numbers(n, *tail) for n in (2, 4, 0, 1)]
    options = {"batch_first": batch_first, "padding_value": -2.0, "padding_side": side}
    found, expected = (
        library.nn.utils.rnn.pad_sequence([library.tensor(a) for a in arrays], **options).tolist()
        for library in (tg, torch)
    )
    assert found == expected


def test_gradients(device):
    lengths = [2, 4, 1]
    x = tg.tensor(numbers(4, 3, 2), requires_grad=True, device=device)

    def there_and_back(x):
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        packed = packed._replace(data=packed.data * packed.data * 0.1)
        return rnn.pad_packed_sequence(packed, padding_value=3.0, total_length=5)[0]

    assert gradcheck(there_and_back, x, atol=1e-7)
    assert gradgradcheck(there_and_back, x, atol=1e-6)
    parts = [tg.tensor(numbers(n, 2), requires_grad=True, device=device) for n in (1, 3)]

    def joined(*parts):
        packed = rnn.pack_sequence([p * p for p in parts], enforce_sorted=False)
        return packed.data + rnn.pad_sequence(parts).sum()

    assert gradcheck(joined, parts, atol=1e-6)


def test_moves_and_casts(cuda):
    packed = rnn.pack_sequence(sequences_of([1, 3]), enforce_sorted=False)
    there = packed.cuda()
    assert there.is_cuda
    assert not packed.is_cuda
    assert there.sorted_indices.is_cuda
    assert not there.batch_sizes.is_cuda  # what steps there are is known without asking a GPU
    assert there.cpu().data.tolist() == packed.data.tolist()
    dtypes = [packed.float().data.dtype, packed.half().data.dtype, packed.double().data.dtype]
    assert dtypes == [np.float32, np.float16, np.float64]
    assert packed.float().sorted_indices.dtype == np.int64


def test_what_is_padded_with_is_in_the_dtype():
    packed = rnn.pack_sequence([tg.tensor([1, 2]), tg.tensor([3])])
    padded, _ = rnn.pad_packed_sequence(packed, padding_value=-1)
    assert padded.tolist() == [[1, 3], [2, -1]]
    assert padded.dtype == np.int64
