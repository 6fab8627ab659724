"""Recurrent cells: one step of a recurrent network, for loops of one's own."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tinygrad_bn import creation
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.recurrent.arguments import (
    require_like,
    require_nonlinearity,
    require_sizes,
    require_state,
)
from tinygrad_bn.ops.recurrent import (
    GRUSequence,
    LSTMSequence,
    Recurrence,
    RNNSequence,
    recurrence,
)
from tinygrad_bn.tensors import Parameter, Tensor


class RNNCellBase(Module):
    """What recurrent cells have in common."""

    gates: ClassVar[int] = 1
    state_names: ClassVar[tuple[str, ...]] = ("hx",)
    sequence: ClassVar[type[Recurrence]] = RNNSequence

    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: object = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        tall = self.gates * hidden_size
        self.weight_ih = Parameter(creation.empty(tall, input_size, **place))
        self.weight_hh = Parameter(creation.empty(tall, hidden_size, **place))
        self.bias_ih = Parameter(creation.empty(tall, **place)) if bias else None
        self.bias_hh = Parameter(creation.empty(tall, **place)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases anew, uniform within ±1/√hidden_size."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def step(self, input: Tensor, states: Any, **options: Any) -> list[Tensor]:
        """The states after one step from those before it, zeros where there are none."""
        require_like(self.weight_ih, input, "input")
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            size = self.input_size
            raise ShapeError(f"expected (N, {size}) or ({size},), got {input.shape}")
        shape = (*input.shape[:-1], self.hidden_size)
        if states is None:
            place: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
            states = [creation.zeros(shape, **place) for _ in self.state_names]
        elif not isinstance(states, (tuple, list)) or len(states) != len(self.state_names):
            names = ", ".join(self.state_names)
            raise ShapeError(f"expected the states ({names}), got {type(states).__name__}")
        for name, state in zip(self.state_names, states, strict=True):
            require_state(input, state, name, shape)
        alone = input.ndim == 1
        x, *before = (t.unsqueeze(0) for t in (input, *states)) if alone else (input, *states)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)
        sizes = (x.shape[0],)
        _, *after = recurrence(
            self.sequence, x, *weights, *before, sizes=sizes, reverse=False, **options
        )
        return [state.squeeze(0) for state in after] if alone else after

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """One step of a simple recurrent network.

        h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with max(·, 0) in place of tanh

    Parameters
    ----------
    input_size, hidden_size : the sizes of x and h.
    bias : whether b_ih and b_hh exist.
    nonlinearity : "tanh" or "relu".

    Shapes
    ------
    input (N, input_size), hx (N, hidden_size), both without N for a single sample; hx is zeros by
    default. The result is as hx.

    Raises
    ------
    ShapeError
        For another rank, number of features or shape of hx.
    DtypeError, BackendError
        For an input or state of another dtype or on another device than the weights.

    Notes
    -----
    `RNN` takes whole sequences, with one node in the graph in place of one a step.

    References
    ----------
    Elman 1990, "Finding structure in time".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: object = None,
        dtype: Any = None,
    ) -> None:
        require_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h' from x and h."""
        states = None if hx is None else [hx]
        return self.step(input, states, relu=self.nonlinearity == "relu")[0]

    def extra_repr(self) -> str:
        shown = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + shown


class LSTMCell(RNNCellBase):
    """One step of a long short-term memory; see `LSTM` for the formulas.

    Parameters
    ----------
    input_size, hidden_size : the sizes of x, and of h and c.
    bias : whether b_ih and b_hh exist.

    Shapes
    ------
    input (N, input_size), ``hx`` = (h, c), (N, hidden_size) each, all without N for a single
    sample; zeros by default. The result is (h', c').

    Raises
    ------
    ShapeError, DtypeError, BackendError
        As `RNNCell`.

    References
    ----------
    Hochreiter and Schmidhuber 1997, "Long short-term memory".
    """

    gates = 4
    state_names = ("h_0", "c_0")
    sequence = LSTMSequence

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:
        """(h', c') from x and (h, c)."""
        h, c = self.step(input, hx)
        return h, c


class GRUCell(RNNCellBase):
    """One step of a gated recurrent unit; see `GRU` for the formulas.

    Parameters
    ----------
    input_size, hidden_size : the sizes of x and h.
    bias : whether b_ih and b_hh exist.

    Shapes
    ------
    input (N, input_size), hx (N, hidden_size), both without N for a single sample; hx is zeros by
    default. The result is as hx.

    Raises
    ------
    ShapeError, DtypeError, BackendError
        As `RNNCell`.

    References
    ----------
    Cho et al. 2014, arXiv:1406.1078, the section on the hidden unit.
    """

    gates = 3
    sequence = GRUSequence

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """h' from x and h."""
        return self.step(input, None if hx is None else [hx])[0]
