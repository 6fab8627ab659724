"""What recurrent layers, cells and packing refuse, and that nothing has changed then."""

from __future__ import annotations

import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, GradientError, ShapeError
from tinygrad_bn.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpad_sequence,
)

LAYERS = [nn.RNN, nn.LSTM, nn.GRU]
CELLS = [nn.RNNCell, nn.LSTMCell, nn.GRUCell]

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
every_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.__name__)


class TestMaking:
    @every_layer
    @pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
    def test_sizes(self, layer, name):
        sizes = {"input_size": 3, "hidden_size": 4, "num_layers": 2}
        for size in (0, -1):
            with pytest.raises(ArgumentError, match=f"{name} ≥ 1, got {size}"):
                layer(**{**sizes, name: size})
        with pytest.raises(DtypeError, match=f"whole number as {name}, got 2.5"):
            layer(**{**sizes, name: 2.5})

    @pytest.mark.parametrize("p", [-0.1, 1.1])
    def test_dropout(self, p):
        with pytest.raises(ArgumentError, match="probability"):
            nn.GRU(3, 4, 2, dropout=p)

    @pytest.mark.parametrize("size", [-1, 4, 5])
    def test_projection(self, size):
        with pytest.raises(ArgumentError, match=f"from 0 to 3.*got {size}"):
            nn.LSTM(3, 4, proj_size=size)

    def test_nonlinearity(self):
        for make in (nn.RNN, nn.RNNCell):
            with pytest.raises(ArgumentError, match="'tanh' or 'relu', got 'elu'"):
                make(3, 4, nonlinearity="elu")

    @every_cell
    def test_cell_sizes(self, cell):
        with pytest.raises(ArgumentError, match="hidden_size ≥ 1"):
            cell(3, 0)


class TestLayers:
    @every_layer
    @pytest.mark.parametrize("shape", [(3,), (5, 2, 4), (5, 2), (5, 2, 2, 3), ()], ids=str)
    def test_other_shapes(self, layer, shape):
        with pytest.raises(ShapeError, match=r"expected \(T, N, 3\) or \(T, 3\), got"):
            layer(3, 4)(tg.zeros(shape))
        with pytest.raises(ShapeError, match=r"expected \(N, T, 3\) or \(T, 3\), got"):
            layer(3, 4, batch_first=True)(tg.zeros(shape))

    @every_layer
    def test_empty_sequences(self, layer):
        with pytest.raises(ShapeError, match=r"at least 1 step, got \(0, 2, 3\)"):
            layer(3, 4)(tg.zeros(0, 2, 3))
        with pytest.raises(ShapeError, match="at least 1 step"):
            layer(3, 4, batch_first=True)(tg.zeros(2, 0, 3))
        with pytest.raises(ShapeError, match="at least 1 step"):
            layer(3, 4)(tg.zeros(0, 3))

    @every_layer
    def test_other_dtypes_and_devices(self, layer, cuda):
        with pytest.raises(DtypeError, match="weights' float32, got float64"):
            layer(3, 4)(tg.zeros(5, 2, 3, dtype=tg.float64))
        with pytest.raises(BackendError, match="input on cpu, got one on cuda:0"):
            layer(3, 4)(tg.zeros(5, 2, 3, device=cuda))
        with pytest.raises(DtypeError, match="expected input to be a tensor"):
            layer(3, 4)([[1.0, 2.0, 3.0]])

    @pytest.mark.parametrize("shape", [(1, 3, 4), (2, 2, 4), (1, 2, 5), (2, 4), (2,)], ids=str)
    def test_states_of_other_shapes(self, shape):
        x, state, good = tg.zeros(5, 2, 3), tg.zeros(shape), tg.zeros(1, 2, 4)
        with pytest.raises(ShapeError, match=r"h_0 of shape \(1, 2, 4\), got"):
            nn.GRU(3, 4)(x, state)
        with pytest.raises(ShapeError, match=r"h_0 of shape \(1, 2, 4\), got"):
            nn.LSTM(3, 4)(x, (state, good))
        with pytest.raises(ShapeError, match=r"c_0 of shape \(1, 2, 4\), got"):
            nn.LSTM(3, 4)(x, (good, state))
        packed = pack_padded_sequence(x, [5, 2])
        with pytest.raises(ShapeError, match=r"h_0 of shape \(1, 2, 4\), got"):
            nn.GRU(3, 4)(packed, state)

    def test_states_of_another_kind(self):
        x, state = tg.zeros(5, 2, 3), tg.zeros(1, 2, 4)
        for hx in (state, (state,), (state, state, state)):
            with pytest.raises(ShapeError, match=r"expected the states \(h_0, c_0\)"):
                nn.LSTM(3, 4)(x, hx)
        with pytest.raises(DtypeError, match="h_0 to be a tensor, got tuple"):
            nn.GRU(3, 4)(x, (state,))
        with pytest.raises(DtypeError, match="c_0 of the weights' float32, got float64"):
            nn.LSTM(3, 4)(x, (state, state.double()))
        with pytest.raises(ShapeError, match=r"h_0 of shape \(1, 4\), got \(1, 1, 4\)"):
            nn.GRU(3, 4)(tg.zeros(5, 3), tg.zeros(1, 1, 4))
        with pytest.raises(ShapeError, match=r"h_0 of shape \(1, 2, 2\), got"):
            nn.LSTM(3, 4, proj_size=2)(x, (state, state))

    def test_nothing_is_drawn_before_a_state_is_refused(self):
        layer = nn.GRU(3, 4, 2, dropout=0.5)
        tg.manual_seed(0)
        with pytest.raises(ShapeError):
            layer(tg.zeros(5, 2, 3), tg.zeros(1, 2, 4))
        after = tg.rand(3).tolist()
        tg.manual_seed(0)
        assert tg.rand(3).tolist() == after

    def test_masks(self):
        layer, x = nn.GRU(3, 4), tg.zeros(3, 2, 3)
        ones = tg.ones(3, 2)
        with pytest.raises(DtypeError, match="mask of booleans, got float32"):
            layer(x, mask=ones)
        with pytest.raises(ShapeError, match=r"expected a mask \(3, 2\)"):
            layer(x, mask=tg.ones(2, 3) > 0)
        with pytest.raises(ArgumentError, match="true for the first steps"):
            layer(x, mask=tg.tensor([[True, True], [False, True], [True, True]]))
        with pytest.raises(ArgumentError, match=r"lengths of at least 1, got \[3, 0\]"):
            layer(x, mask=tg.tensor([[True, False]] * 3))
        with pytest.raises(ShapeError, match="no mask beside a packed sequence"):
            layer(pack_padded_sequence(x, [3, 2]), mask=ones > 0)

    def test_packed_sequences_that_are_none(self):
        layer, data = nn.GRU(3, 4), tg.zeros(4, 3)
        for sizes in ([1, 3], [2, 2, 0], []):
            with pytest.raises(ShapeError, match="that never grow"):
                layer(PackedSequence(data, tg.tensor(sizes, dtype=tg.int64)))
        with pytest.raises(ShapeError, match=r"data of 5 rows for sizes \[3, 2\], got \(4, 3\)"):
            layer(PackedSequence(data, tg.tensor([3, 2])))
        with pytest.raises(ShapeError, match="each of 2 sequences once"):
            layer(PackedSequence(data, tg.tensor([2, 2]), tg.tensor([1, 1])))
        with pytest.raises(ShapeError, match=r"expected \(R, 3\), got \(4, 2\)"):
            layer(PackedSequence(tg.zeros(4, 2), tg.tensor([2, 2])))


class TestCells:
    @every_cell
    @pytest.mark.parametrize("shape", [(2,), (5, 2), (5, 2, 3), ()], ids=str)
    def test_other_shapes(self, cell, shape):
        with pytest.raises(ShapeError, match=r"expected \(N, 3\) or \(3,\), got"):
            cell(3, 4)(tg.zeros(shape))

    def test_states(self):
        x, state = tg.zeros(2, 3), tg.zeros(2, 4)
        for bad in (tg.zeros(3, 4), tg.zeros(4), tg.zeros(2, 5)):
            with pytest.raises(ShapeError, match=r"hx of shape \(2, 4\), got"):
                nn.GRUCell(3, 4)(x, bad)
            with pytest.raises(ShapeError, match=r"c_0 of shape \(2, 4\), got"):
                nn.LSTMCell(3, 4)(x, (state, bad))
        with pytest.raises(ShapeError, match=r"the states \(h_0, c_0\), got"):
            nn.LSTMCell(3, 4)(x, state)
        with pytest.raises(DtypeError, match="weights' float32, got int64"):
            nn.RNNCell(3, 4)(tg.zeros(2, 3, dtype=tg.int64))


class TestPacking:
    @pytest.mark.parametrize(
        ("lengths", "error", "message"),
        [
            ([2, 5, 3], ArgumentError, "descending order, or enforce_sorted=False"),
            ([5, 3, 0], ArgumentError, "at least 1"),
            ([5, 3, -1], ArgumentError, "at least 1"),
            ([6, 3, 2], ArgumentError, "at most 5 steps"),
            ([5, 3], ShapeError, "3 lengths, one for each sequence, got 2"),
            ([5, 3, 2, 1], ShapeError, "3 lengths"),
            ([5.0, 3.0, 2.0], DtypeError, "whole numbers"),
        ],
        ids=str,
    )
    def test_lengths(self, lengths, error, message):
        for given in (lengths, tg.tensor(lengths)):
            with pytest.raises(error, match=message):
                pack_padded_sequence(tg.zeros(5, 3, 2), given)

    def test_ranks(self):
        with pytest.raises(ShapeError, match=r"\(T, N, \*\) of rank 2 or more"):
            pack_padded_sequence(tg.zeros(5), [5])
        with pytest.raises(ShapeError, match=r"\(N, T, \*\) of rank 2 or more"):
            unpad_sequence(tg.zeros(5), [5], batch_first=True)

    def test_sequences(self):
        with pytest.raises(ArgumentError, match="at least one sequence"):
            pad_sequence([])
        with pytest.raises(ShapeError, match="alike but for L"):
            pad_sequence([tg.zeros(2, 3), tg.zeros(2, 4)])
        with pytest.raises(ShapeError, match="alike but for L"):
            pack_sequence([tg.tensor(1.0)])
        with pytest.raises(DtypeError, match="every sequence to be a tensor"):
            pack_sequence([[1.0]])
        with pytest.raises(ArgumentError, match="at least 1, got"):
            pack_sequence([tg.zeros(2, 3), tg.zeros(0, 3)])
        with pytest.raises(ArgumentError, match="descending"):
            pack_sequence([tg.zeros(2, 3), tg.zeros(3, 3)])
        with pytest.raises(ArgumentError, match="'right' or 'left', got 'both'"):
            pad_sequence([tg.zeros(2)], padding_side="both")

    def test_total_length(self):
        packed = pack_sequence([tg.zeros(3, 2), tg.zeros(1, 2)])
        with pytest.raises(ArgumentError, match="at least 3, got 2"):
            pad_packed_sequence(packed, total_length=2)


@every_layer
@pytest.mark.parametrize("place", ["input", "state", "weight", "output", "last state"])
def test_a_gradient_through_memory_that_was_overwritten_is_refused(layer, place):
    """Wherever the node reads it again; else it must be what it was."""
    module = layer(3, 4)
    x = tg.randn(2, 5, 3)
    states = [tg.randn(1, 5, 4) for _ in module.state_names]
    y, last = module(x, tuple(states) if len(states) == 2 else states[0])
    last = last[-1] if isinstance(last, tuple) else last
    targets = {"input": x, "state": states[-1], "output": y, "last state": last}
    total = y.sum() + last.sum()
    expected = [g.tolist() for g in tg.autograd.grad(total, module.parameters(), retain_graph=True)]
    target = targets.get(place, module.weight_hh_l0)
    target.detach().fill_(3.0)
    refused = ""
    try:
        found = tg.autograd.grad(total, module.parameters())
    except GradientError as error:
        refused = str(error)
    if refused:
        assert "changed in place" in refused
    else:
        assert place in ("output", "last state")
        assert [g.tolist() for g in found] == expected
