"""Recurrent layers: the simple one, the long short-term memory, the gated recurrent unit."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.errors import ArgumentError, DtypeError
from tinygrad_bn.nn.recurrent.arguments import require_nonlinearity
from tinygrad_bn.nn.recurrent.base import RNNBase
from tinygrad_bn.ops.recurrent import GRUSequence, LSTMSequence


class RNN(RNNBase):
    """A simple recurrent network over sequences.

        h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or with max(·, 0) in place of tanh

    Parameters
    ----------
    input_size, hidden_size : the sizes of x_t and of h_t.
    num_layers : how many such networks are stacked, each reading the h of the one below.
    nonlinearity : "tanh" or "relu".
    bias : whether b_ih and b_hh exist.
    batch_first : whether batches are (N, T, *) in place of (T, N, *); states are not concerned.
    dropout : the probability of dropout between layers in training; one layer has none.
    bidirectional : whether a second network reads the sequences from their ends.

    Shapes
    ------
    input (T, N, input_size), one sequence (T, input_size), or a `PackedSequence`; the initial state
    ``hx`` (D · num_layers, N, hidden_size), zeros by default, where D is 2 if ``bidirectional``,
    else 1. A ``mask`` (T, N), true for the first steps of each sequence, says how long each is;
    what it leaves out is not computed, and 0 in the result. The result is the output
    (T, N, D · hidden_size) in the input's form, and the last state of each sequence, like ``hx``.

    Raises
    ------
    ShapeError
        For another rank, number of features or shape of state, and for sequences of no steps.
    ArgumentError
        For a mask that is not true for first steps, or for none of a sequence.
    DtypeError, BackendError
        For an input or state of another dtype or on another device than the weights.

    Notes
    -----
    Parameters and their names are PyTorch's: ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``,
    ``bias_hh_l0``, with ``_reverse`` behind them for the second direction. A layer in a direction
    is one node of the graph, however many steps there are, and differentiates to every order.
    Gradients through many steps vanish or explode: prefer `LSTM` or `GRU`, or `BatchNormRNN`.

    References
    ----------
    Elman 1990, "Finding structure in time". Werbos 1990, "Backpropagation through time".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        require_nonlinearity(nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def cell_options(self) -> dict[str, Any]:
        return {"relu": self.nonlinearity == "relu"}


class LSTM(RNNBase):
    """Long short-term memory over sequences.

        i, f, g, o = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, in four parts
        c_t = σ(f) c_(t-1) + σ(i) tanh(g)
        h_t = σ(o) tanh(c_t), or with a projection W_hr (σ(o) tanh(c_t))

    Parameters
    ----------
    input_size, hidden_size : the sizes of x_t and of c_t.
    num_layers : how many such networks are stacked, each reading the h of the one below.
    bias : whether b_ih and b_hh exist.
    batch_first : whether batches are (N, T, *) in place of (T, N, *); states are not concerned.
    dropout : the probability of dropout between layers in training; one layer has none.
    bidirectional : whether a second network reads the sequences from their ends.
    proj_size : the size of h_t, if it is projected; 0 if not.

    Shapes
    ------
    As those of `RNN`, with two states ``hx`` = (h_0, c_0): h_0 (D · num_layers, N, H), where H is
    proj_size or else hidden_size, and c_0 (D · num_layers, N, hidden_size). The result is the
    output (T, N, D · H) and (h_n, c_n).

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, BackendError
        As `RNN`; also for a proj_size below 0 or not below hidden_size.

    Notes
    -----
    Parameters and their names are PyTorch's; ``weight_hr_l0`` is the projection. Where batches are
    large enough, `BatchNormLSTM` learns in fewer steps; for small ones see `LayerNormLSTM`.

    References
    ----------
    Hochreiter and Schmidhuber 1997, "Long short-term memory". Gers, Schmidhuber and Cummins 2000,
    "Learning to forget". Sak, Senior and Beaufays 2014, arXiv:1402.1128, for the projection.
    """

    gates = 4
    state_names = ("h_0", "c_0")
    sequence = LSTMSequence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        if not isinstance(proj_size, int) or isinstance(proj_size, bool):
            raise DtypeError(f"expected a whole number as proj_size, got {proj_size!r}")
        if proj_size and not 0 < proj_size < hidden_size:
            raise ArgumentError(
                f"expected proj_size from 0 to {hidden_size - 1}, below hidden_size, got "
                f"{proj_size}"
            )
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )


class GRU(RNNBase):
    """Gated recurrent units over sequences.

        r = σ(W_ir x_t + b_ir + W_hr h_(t-1) + b_hr)
        z = σ(W_iz x_t + b_iz + W_hz h_(t-1) + b_hz)
        n = tanh(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn))
        h_t = (1 - z) n + z h_(t-1)

    Parameters
    ----------
    input_size, hidden_size : the sizes of x_t and of h_t.
    num_layers : how many such networks are stacked, each reading the h of the one below.
    bias : whether b_ih and b_hh exist.
    batch_first : whether batches are (N, T, *) in place of (T, N, *); states are not concerned.
    dropout : the probability of dropout between layers in training; one layer has none.
    bidirectional : whether a second network reads the sequences from their ends.

    Shapes
    ------
    Those of `RNN`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, BackendError
        As `RNN`.

    Notes
    -----
    Parameters and their names are PyTorch's. As there, the reset gate r multiplies the recurrent
    product; in the paper it multiplies h_(t-1) before the product.

    References
    ----------
    Cho et al. 2014, arXiv:1406.1078, the section on the hidden unit.
    """

    gates = 3
    sequence = GRUSequence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
