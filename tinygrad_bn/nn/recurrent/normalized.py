"""Recurrent layers with norms inside: the walk over time and the cells, whatever the norm.

They are composed of the library's operations, a few for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.recurrent.base import RNNBase, Sequences
from tinygrad_bn.nn.recurrent.layers import GRU, LSTM, RNN
from tinygrad_bn.ops.differentiable import differentiable
from tinygrad_bn.ops.join import cat, chunk, split
from tinygrad_bn.ops.linear import linear
from tinygrad_bn.ops.piecewise import relu
from tinygrad_bn.ops.rearrange import flip
from tinygrad_bn.ops.recurrent import Running
from tinygrad_bn.tensors import Tensor

Norms: TypeAlias = Mapping[str, Callable[[Tensor, int], Tensor]]
"""By name what normalises values (N, ·) at a step, the first of which is 0."""


class NormalizedRNNBase(RNNBase):
    """What recurrent layers with norms have in common.

    In reverse too, steps count from where the recurrence begins: each sequence is read from its
    own end, so that step 0 is the first of all of them.
    """

    norm_widths: ClassVar[Mapping[str, int]] = {"ih": 1, "hh": 1}
    """The norms of a direction, and over how many times hidden_size values each is."""

    def refuse_projection(self) -> None:
        """Refuse what the papers have no norm for."""
        if self.proj_size:
            raise ArgumentError(
                f"expected proj_size=0 for {type(self).__name__}, got {self.proj_size}"
            )

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, and set the norms' to what they start as."""
        super().reset_parameters()
        for norm in self.children():
            norm.reset_parameters()

    def norms(self, suffix: str) -> Norms:
        """The norms of one layer and direction."""
        raise NotImplementedError

    def one_direction(
        self, suffix: str, x: Tensor, states: list[Tensor], sequences: Sequences, reverse: bool
    ) -> tuple[Tensor, ...]:
        weight_ih, weight_hh, bias_ih, bias_hh, _ = self.weights(suffix)
        assert weight_ih is not None
        assert weight_hh is not None
        xp, norms = differentiable(x.backend).xp, self.norms(suffix)
        gx = linear(mirrored(x, sequences) if reverse else x, weight_ih)
        walk = [Running(xp, state) for state in states]
        y = []
        for step, of_step in enumerate(split(gx, sequences.sizes)):
            before = [state.at(of_step.shape[0]) for state in walk]
            ax, ah = self.normalized(norms, step, of_step, linear(before[0], weight_hh))
            if bias_ih is not None and bias_hh is not None:
                ax, ah = ax + bias_ih, ah + bias_hh
            after = self.cell(norms, step, ax, ah, *before)
            y.append(after[0])
            for state, values in zip(walk, after, strict=True):
                state.rows = values
        rows_of_y = cat(y, 0)
        if reverse:
            rows_of_y = mirrored(rows_of_y, sequences)
        return (rows_of_y, *(state.all() for state in walk))

    def normalized(self, norms: Norms, step: int, gx: Tensor, gh: Tensor) -> tuple[Tensor, Tensor]:
        """The two products of a step, each normalised."""
        return norms["ih"](gx, step), norms["hh"](gh, step)

    def cell(
        self, norms: Norms, step: int, ax: Tensor, ah: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """The states after a step from its two normalised products, with their biases."""
        raise NotImplementedError


def mirrored(x: Tensor, sequences: Sequences) -> Tensor:
    """Rows with every sequence read from its end."""
    if sequences.packing is not None:
        return sequences.packing.mirrored(x)
    sizes = sequences.sizes
    return flip(x.reshape(len(sizes), sizes[0], x.shape[1]), 0).reshape(x.shape)


class NormalizedRNN(NormalizedRNNBase, RNN):
    """The simple recurrent network."""

    def cell(
        self, norms: Norms, step: int, ax: Tensor, ah: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        a = ax + ah
        return (relu(a) if self.nonlinearity == "relu" else a.tanh(),)


class NormalizedLSTM(NormalizedRNNBase, LSTM):
    """The long short-term memory, with a norm of c on its way to h."""

    norm_widths = {"ih": 4, "hh": 4, "c": 1}

    def cell(
        self, norms: Norms, step: int, ax: Tensor, ah: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        i, f, g, o = chunk(ax + ah, 4, 1)
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * norms["c"](c, step).tanh(), c


class NormalizedGRU(NormalizedRNNBase, GRU):
    """The gated recurrent unit."""

    norm_widths = {"ih": 3, "hh": 3}

    def cell(
        self, norms: Norms, step: int, ax: Tensor, ah: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        (r, z, n), (r_h, z_h, n_h) = chunk(ax, 3, 1), chunk(ah, 3, 1)
        z = (z + z_h).sigmoid()
        n = (n + (r + r_h).sigmoid() * n_h).tanh()
        return (n + z * (states[0] - n),)
