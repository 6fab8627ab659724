"""What recurrent layers have in common: stacked layers, directions, states and sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tinygrad_bn import creation
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn import init
from tinygrad_bn.nn.dropout import dropout, require_probability
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.recurrent.arguments import (
    lengths_of,
    require_like,
    require_sizes,
    require_state,
)
from tinygrad_bn.nn.utils.packing import Packing
from tinygrad_bn.nn.utils.rnn import PackedSequence
from tinygrad_bn.ops.join import cat, stack
from tinygrad_bn.ops.recurrent import Recurrence, RNNSequence, recurrence
from tinygrad_bn.tensors import Parameter, Tensor


@dataclass(frozen=True, slots=True)
class Sequences:
    """An input as rows (R, I), ``sizes`` of them at each step.

    Without a ``packing`` they are T steps of N rows.
    """

    rows: Tensor
    sizes: tuple[int, ...]
    packing: Packing | None


class RNNBase(Module):
    """What recurrent layers have in common; a subclass says which cell runs in them."""

    gates: ClassVar[int] = 1
    """How many times hidden_size the weights have rows."""
    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    sequence: ClassVar[type[Recurrence]] = RNNSequence
    """The operation that a layer in one direction is."""

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
        super().__init__()
        require_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        require_probability(dropout)
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        self.num_layers, self.bidirectional = num_layers, bidirectional
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        for layer in range(num_layers):
            for suffix in self.suffixes(layer):
                self.make_parameters(layer, suffix, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def make_parameters(self, layer: int, suffix: str, place: dict[str, Any]) -> None:
        """Make the parameters of one layer and direction."""
        width = self.input_size if layer == 0 else self.output_size * self.directions
        tall = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (tall, width),
            "weight_hh": (tall, self.output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (tall,), "bias_hh": (tall,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, name + suffix, Parameter(creation.empty(shape, **place)))

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, uniform within ±1/√hidden_size."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith(("weight", "bias")):
                init.uniform_(parameter, -bound, bound)

    @property
    def directions(self) -> int:
        """2 if ``bidirectional``, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The size of h: proj_size where h is projected."""
        return self.proj_size or self.hidden_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The sizes of the states."""
        return (self.output_size, *[self.hidden_size] * (len(self.state_names) - 1))

    def suffixes(self, layer: int) -> list[str]:
        """What the names of a layer's parameters end in, for each direction."""
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction, as PyTorch lists them."""
        named = dict(self.named_parameters(recurse=False))
        return [
            [p for name, p in named.items() if name.partition("_l")[1:] == ("_l", suffix[2:])]
            for layer in range(self.num_layers)
            for suffix in self.suffixes(layer)
        ]

    def flatten_parameters(self) -> None:
        """Nothing: weights need not lie side by side. Here for programs that call it."""

    # Its forward

    def forward(self, input: Any, hx: Any = None, *, mask: Tensor | None = None) -> Any:
        """The output of the last layer at every step, and the last states of all layers."""
        if isinstance(input, PackedSequence):
            if mask is not None:
                raise ShapeError("expected no mask beside a packed sequence, got one")
            self.require_features(input.data, (2,))
            packing = input.packing
            sequences, batched = Sequences(input.data, packing.sizes, packing), True
            count = packing.sizes[0]
        else:
            sequences, batched, count = self.sequences(input, mask)
        states = self.initial(hx, count, sequences, batched)
        y, final = self.run(sequences, states)
        if sequences.packing is not None:
            final = [sequences.packing.unsorted(state) for state in final]
        if not batched:
            final = [state.squeeze(1) for state in final]
        last = final[0] if len(final) == 1 else tuple(final)
        if isinstance(input, PackedSequence):
            return input._replace(data=y), last
        return self.laid_out(y, input, sequences, batched), last

    def require_features(self, input: Tensor, ranks: tuple[int, ...]) -> None:
        """Refuse another rank or number of features, dtype or device.

        Raises
        ------
        ShapeError, DtypeError, BackendError
        """
        require_like(next(self.parameters()), input, "input")
        if input.ndim not in ranks or input.shape[-1] != self.input_size:
            layout = "(N, T, {0})" if self.batch_first else "(T, N, {0})"
            shape = "(R, {0})" if ranks == (2,) else f"{layout} or (T, {{0}})"
            raise ShapeError(f"expected {shape.format(self.input_size)}, got {input.shape}")

    def sequences(self, input: Tensor, mask: Tensor | None) -> tuple[Sequences, bool, int]:
        """An input that is not packed as rows; whether it has a batch axis, and how many sequences.

        Raises
        ------
        ShapeError, ArgumentError, DtypeError, BackendError
            If it does not fit this layer, has no steps, or the mask keeps none of a sequence.
        """
        self.require_features(input, (2, 3))
        batched = input.ndim == 3
        time = int(batched and self.batch_first)
        steps, n = input.shape[time], input.shape[1 - time] if batched else 1
        if not steps:
            raise ShapeError(f"expected sequences of at least 1 step, got {input.shape}")
        x = input if time == 0 else input.transpose(0, 1)
        x = x.reshape(steps, n, self.input_size)
        if mask is None:
            rows = x.reshape(steps * n, self.input_size)
            return Sequences(rows, (n,) * steps, None), batched, n
        packing = Packing.of(lengths_of(mask, input.shape[:-1], time))
        return Sequences(packing.pack(x), packing.sizes, packing), batched, n

    def initial(self, hx: Any, count: int, sequences: Sequences, batched: bool) -> list[Tensor]:
        """The states to begin with, (L, N, ·) in the order of rows; zeros where none are given.

        Raises
        ------
        ShapeError, DtypeError, BackendError
            If they do not fit; nothing has been computed.
        """
        names, layers = self.state_names, self.num_layers * self.directions
        x = sequences.rows
        if hx is None:
            place: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
            return [creation.zeros(layers, count, size, **place) for size in self.state_sizes]
        states = [hx] if len(names) == 1 else hx
        if not isinstance(states, (tuple, list)) or len(states) != len(names):
            raise ShapeError(f"expected the states ({', '.join(names)}), got {type(hx).__name__}")
        for name, state, size in zip(names, states, self.state_sizes, strict=True):
            require_state(x, state, name, (layers, count, size) if batched else (layers, size))
        found = list(states) if batched else [state.unsqueeze(1) for state in states]
        packing = sequences.packing
        return found if packing is None else [packing.sorted(state) for state in found]

    def run(self, sequences: Sequences, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The rows of the last layer, and the last states (L, N, ·) of all."""
        x, final = sequences.rows, list[list[Tensor]]()
        for layer in range(self.num_layers):
            if layer and self.training:
                x = dropout(x, self.dropout)
            outputs = []
            for suffix in self.suffixes(layer):
                begin = [state[len(final)] for state in states]
                reverse = suffix.endswith("_reverse")
                y, *after = self.one_direction(suffix, x, begin, sequences, reverse)
                outputs.append(y)
                final.append(after)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 1)
        return x, [stack(each, 0) for each in zip(*final, strict=True)]

    def one_direction(
        self, suffix: str, x: Tensor, states: list[Tensor], sequences: Sequences, reverse: bool
    ) -> tuple[Tensor, ...]:
        """The rows of one layer in one direction, and its last states (N, ·)."""
        return recurrence(  # type: ignore[no-any-return]
            self.sequence,
            *(x, *self.weights(suffix), *states),
            sizes=sequences.sizes,
            reverse=reverse,
            **self.cell_options(),
        )

    def cell_options(self) -> dict[str, Any]:
        """What the cell is told beside its weights."""
        return {}

    def weights(self, suffix: str) -> list[Parameter | None]:
        """The weights and biases of one layer and direction, None for those it does not have."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [getattr(self, name + suffix, None) for name in names]

    def laid_out(self, y: Tensor, input: Tensor, sequences: Sequences, batched: bool) -> Tensor:
        """Rows in the layout of the input, with zeros where its mask is false."""
        time = int(batched and self.batch_first)
        steps, features = input.shape[time], y.shape[1]
        if sequences.packing is not None:
            y = sequences.packing.pad(y, steps)
        elif not batched:
            return y
        y = y.reshape(steps, -1 if y.numel() else sequences.sizes[0], features)
        if not batched:
            return y.squeeze(1)
        return y.transpose(0, 1) if time else y

    def extra_repr(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
        }
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                shown.append(f"{name}={value}")
        return ", ".join(shown)
