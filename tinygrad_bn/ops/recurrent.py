"""Recurrent networks as operations: a layer in one direction, over whole sequences, is one node.

What it computes, forward and back, are the walks of ``recurrent_walks.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.recurrent_cells import CELLS
from tinygrad_bn.ops.recurrent_norms import Norm, NormArrays
from tinygrad_bn.ops.recurrent_walks import walk_backward, walk_forward


class Recurrence(Function):
    """A cell along packed sequences; states are h (N, P) and what else the cell carries."""

    cell: ClassVar[str]
    """Its name in `CELLS`."""

    def forward(
        self,
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array | None,
        bias_hh: Array | None,
        weight_hr: Array | None,
        *rest: Array | None,
        sizes: tuple[int, ...],
        reverse: bool,
        norms: tuple[Norm, ...] = (),
        relu: bool = False,
    ) -> tuple[Array, ...]:
        """The output (R, P) and the last states, and with batch norms mean and variance of each.

        ``rest`` are the first states, and of each of the ``norms`` its γ, β, means and variances;
        see `NormArrays`. ``relu`` is for the cell that may have it.
        """
        self.sizes, self.reverse, self.relu = sizes, reverse, relu
        self.x, self.weights = x, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
        count = CELLS[self.cell_name()].states
        self.states, self.norms, self.arrays = rest[:count], norms, rest[count:]
        self.y, *found = walk_forward(
            self.backend,
            self.cell_name(),
            x,
            self.weights,
            self.states,
            self.norm_arrays(),
            sizes,
            reverse,
        )
        after, self.kept = found[:count], tuple(found[count:])
        moments = self.kept[: 2 * len(norms)] if norms and norms[0].by_batch else ()
        return (self.y, *after, *moments)

    def cell_name(self) -> str:
        """The name in `CELLS` of the cell with its options."""
        return self.cell

    def norm_arrays(self) -> tuple[NormArrays, ...]:
        """Each norm with its arrays."""
        given = iter(self.arrays)
        return tuple(
            (norm, next(given), next(given), next(given), next(given)) for norm in self.norms
        )

    def backward(self, dy: Array, *doutputs: Array) -> tuple[Array | None, ...]:
        """The gradients of what came in; moments are statistics to look at and pass none on."""
        norms, count = self.norm_arrays(), len(self.states)
        grads = walk_backward(
            self.backend,
            self.cell_name(),
            dy,
            doutputs[:count],
            self.x,
            self.weights,
            self.states,
            norms,
            self.y,
            self.kept,
            self.sizes,
            self.reverse,
            tuple(self.needs[:6]),
        )
        of_norms: list[Array | None] = []
        for k in range(len(norms)):
            of_norms += [*grads[6 + count + 2 * k :][:2], None, None]
        return (*grads[: 6 + count], *of_norms)


class RNNSequence(Recurrence):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with max(·, 0) in its place."""

    def cell_name(self) -> str:
        return "rnn_relu" if self.relu else "rnn_tanh"


class LSTMSequence(Recurrence):
    """The long short-term memory, with the states h and c."""

    cell = "lstm"


class GRUSequence(Recurrence):
    """The gated recurrent unit, whose reset gate multiplies W_hn h + b_hn."""

    cell = "gru"


@under_autocast
def recurrence(cell: type[Recurrence], *operands: Any, **options: Any) -> Any:
    """The output and the last states of a cell along packed sequences; see `Recurrence.forward`."""
    return cell.apply(*operands, **options)
