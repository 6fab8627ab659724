"""Recurrent layers with norms inside: the cells, and the walk over time, whatever the norm.

A layer in a direction is one node, if its norms are what the layer made. Else it is composed of
operations, a few for each step, and calls its norms as the modules they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from tinygrad_bn.config import autocasting
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.nn.recurrent.base import RNNBase, Sequences
from tinygrad_bn.nn.recurrent.fusion import NormOfWalk
from tinygrad_bn.nn.recurrent.layers import GRU, LSTM, RNN
from tinygrad_bn.ops.differentiable import differentiable
from tinygrad_bn.ops.join import cat, chunk, split
from tinygrad_bn.ops.linear import linear
from tinygrad_bn.ops.packing import Running
from tinygrad_bn.ops.piecewise import relu
from tinygrad_bn.ops.rearrange import flip
from tinygrad_bn.ops.recurrent import recurrence
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
    places: ClassVar[Mapping[str, tuple[str, ...]]] = {"x": ("ih",), "h": ("hh",)}
    """The norms of a direction by what they normalise, side by side where there are several; see
    `tinygrad_bn.ops.recurrent_norms.Norm`."""

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

    def one_direction(
        self, suffix: str, x: Tensor, states: list[Tensor], sequences: Sequences, reverse: bool
    ) -> tuple[Tensor, ...]:
        if reverse:
            x = mirrored(x, sequences)
        norms = None
        if sequences.sizes[-1] and autocasting.get() is None:
            norms = self.norms_of_walk(suffix, x, sequences.sizes)
        if norms is None:
            y, *after = self.composed(suffix, x, states, sequences.sizes)
        else:
            y, *after = self.as_one(suffix, x, states, sequences.sizes, norms)
        return (mirrored(y, sequences) if reverse else y, *after)

    def as_one(
        self,
        suffix: str,
        x: Tensor,
        states: list[Tensor],
        sizes: tuple[int, ...],
        norms: Sequence[NormOfWalk],
    ) -> list[Tensor]:
        """The rows of one layer in one direction, and its last states, as one node."""
        tensors = [tensor for norm in norms for tensor in norm.tensors]
        known = tuple(norm.norm for norm in norms)
        y, *found = recurrence(
            self.sequence,
            *(x, *self.weights(suffix), *states, *tensors),
            sizes=sizes,
            reverse=False,
            norms=known,
            **self.cell_options(),
        )
        after, moments = found[: len(states)], found[len(states) :]
        self.see(norms, moments, sizes)
        return [y, *after]

    def see(
        self, norms: Sequence[NormOfWalk], moments: Sequence[Tensor], sizes: tuple[int, ...]
    ) -> None:
        """Take note of the mean and the variance of each batch norm at each step of a walk."""

    def norms_of_walk(
        self, suffix: str, x: Tensor, sizes: tuple[int, ...]
    ) -> list[NormOfWalk] | None:
        """The norms of one layer and direction for a node; None where they must be called."""
        found = []
        for place, names in self.places.items():
            norms = {
                f"norm_{name}{suffix}": self.norm_widths[name] * self.hidden_size for name in names
            }
            norm = self.norm_of_walk(norms, place, x, sizes)
            if norm is None:
                return None
            found.append(norm)
        return found

    def norm_of_walk(
        self, norms: Mapping[str, int], place: str, x: Tensor, sizes: tuple[int, ...]
    ) -> NormOfWalk | None:
        """The norms of those names, each of so many features, as one for a node."""
        raise NotImplementedError

    # Step by step

    def norms(self, suffix: str) -> Norms:
        """The norms of one layer and direction."""
        raise NotImplementedError

    def composed(
        self, suffix: str, x: Tensor, states: list[Tensor], sizes: tuple[int, ...]
    ) -> list[Tensor]:
        """The rows of one layer in one direction, and its last states, of operations."""
        weight_ih, weight_hh, bias_ih, bias_hh, _ = self.weights(suffix)
        assert weight_ih is not None
        assert weight_hh is not None
        xp, norms = differentiable(x.backend).xp, self.norms(suffix)
        gx = linear(x, weight_ih)
        walk = [Running(xp, state) for state in states]
        y = []
        for step, of_step in enumerate(split(gx, sizes)):
            before = [state.at(of_step.shape[0]) for state in walk]
            ax, ah = self.normalized(norms, step, of_step, linear(before[0], weight_hh))
            if bias_ih is not None and bias_hh is not None:
                ax, ah = ax + bias_ih, ah + bias_hh
            after = self.cell(norms, step, ax, ah, *before)
            y.append(after[0])
            for state, values in zip(walk, after, strict=True):
                state.rows = values
        return [cat(y, 0), *(state.all() for state in walk)]

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
    places = {"x": ("ih",), "h": ("hh",), "c": ("c",)}

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
