"""Recurrent batch normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

from tinygrad_bn.errors import ShapeError
from tinygrad_bn.nn.normalization.base import RunningNormalization, gathering
from tinygrad_bn.nn.normalization.batch import BatchNorm1d
from tinygrad_bn.nn.normalization.stepwise import StepBatchNorm
from tinygrad_bn.nn.recurrent.arguments import require_sizes
from tinygrad_bn.nn.recurrent.base import Sequences
from tinygrad_bn.nn.recurrent.fusion import NormOfWalk, of_batch_norm, teach
from tinygrad_bn.nn.recurrent.normalized import (
    NormalizedGRU,
    NormalizedLSTM,
    NormalizedRNN,
    NormalizedRNNBase,
    Norms,
)
from tinygrad_bn.ops.batch_normalization import Moments
from tinygrad_bn.tensors import Tensor

Lessons: TypeAlias = dict[RunningNormalization, list[Moments]]
"""What norms are to learn from."""

_lessons: ContextVar[Lessons] = ContextVar("lessons")
"""Those of the forward that is running."""


class BatchNormalized(NormalizedRNNBase):
    """What recurrent layers with batch norm have in common."""

    def __init__(
        self,
        *args: Any,
        max_length: int,
        gamma: float = 0.1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        running_var_correction: str = "unbiased",
        on_single: str = "error",
        **options: Any,
    ) -> None:
        require_sizes(max_length=max_length)
        super().__init__(*args, **options)
        self.refuse_projection()
        self.max_length, self.on_single = max_length, on_single
        weight = self.weight_ih_l0
        for layer in range(self.num_layers):
            for suffix in self.suffixes(layer):
                for name, times in self.norm_widths.items():
                    norm = StepBatchNorm(
                        times * self.hidden_size,
                        max_length,
                        gamma,
                        self.bias and name == "c",
                        weight.device,
                        weight.dtype,
                        eps=eps,
                        momentum=momentum,
                        running_var_correction=running_var_correction,
                        on_single=on_single,
                    )
                    self.register_module(f"norm_{name}{suffix}", norm)

    def run(self, sequences: Sequences, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As every layer; what the norms learn from all steps, they learn when it has succeeded."""
        if sequences.sizes[-1] == 1 and self.on_single == "error":
            self.refuse_single(sequences)
        lessons: Lessons = {}
        token = _lessons.set(lessons)
        try:
            result = super().run(sequences, states)
        finally:
            _lessons.reset(token)
        for layer, parts in lessons.items():
            layer.learn(Moments.merged(parts))
        return result

    def refuse_single(self, sequences: Sequences) -> None:
        """Refuse steps of one sequence where a norm takes the statistics of the batch."""
        if any(isinstance(m, BatchNorm1d) and m.by_batch for m in self.modules()):
            raise ShapeError(
                f"expected more than one sequence at every step in training, got steps of "
                f"{sequences.sizes[0]} to 1: batch statistics of a single value are its own; use "
                'eval(), sequences of like lengths, or on_single="running"'
            )

    def see(
        self, norms: Sequence[NormOfWalk], moments: Sequence[Tensor], sizes: tuple[int, ...]
    ) -> None:
        for norm, mean, var in zip(norms, moments[::2], moments[1::2], strict=True):
            teach(norm, mean, var, sizes, _lessons.get())

    def composed(
        self, suffix: str, x: Tensor, states: list[Tensor], sizes: tuple[int, ...]
    ) -> list[Tensor]:
        norms = [getattr(self, f"norm_{name}{suffix}") for name in self.norm_widths]
        layers = [m for norm in norms for m in norm.modules()]
        with gathering(m for m in layers if isinstance(m, RunningNormalization)) as gathered:
            result = super().composed(suffix, x, states, sizes)
        lessons = _lessons.get()
        for layer, parts in gathered.items():
            if parts:
                lessons.setdefault(layer, []).extend(parts)
        return result

    def norm_of_walk(
        self, norms: Mapping[str, int], place: str, x: Tensor, sizes: tuple[int, ...]
    ) -> NormOfWalk | None:
        ((name, width),) = norms.items()
        return of_batch_norm(getattr(self, name), width, place, x, sizes)

    def norms(self, suffix: str) -> Norms:
        """The norms of one layer and direction; in evaluation steps that no batch has reached take
        the statistics of the last one that was.
        """
        return {name: at_steps(getattr(self, f"norm_{name}{suffix}")) for name in self.norm_widths}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, max_length={self.max_length}"


def at_steps(norm: StepBatchNorm) -> Any:
    """The norm as a function of values and any step."""
    last = norm.last
    return lambda x, step: norm(x, min(step, last))


class BatchNormRNN(BatchNormalized, NormalizedRNN):
    """A simple recurrent network with batch norm of its two products.

        h_t = tanh(BN(W_ih x_t; γ_ih) + BN(W_hh h_(t-1); γ_hh) + b_ih + b_hh)

    Parameters, shapes and errors are those of `RNN`, and those of `BatchNormLSTM` for the norms.

    References
    ----------
    Cooijmans et al. 2016, arXiv:1603.09025, whose norms of an LSTM's products are taken over.
    """


class BatchNormLSTM(BatchNormalized, NormalizedLSTM):
    """Long short-term memory with batch norm of its two products, and of c on its way to h.

        i, f, g, o = BN(W_ih x_t; γ_ih) + BN(W_hh h_(t-1); γ_hh) + b_ih + b_hh, in four parts
        c_t = σ(f) c_(t-1) + σ(i) tanh(g)
        h_t = σ(o) tanh(BN(c_t; γ_c, β_c))

    BN has the statistics of a step t over the sequences that have one; γ and β are the same at all
    steps. Evaluation takes the running statistics of the step.

    Parameters
    ----------
    input_size to bidirectional : as those of `LSTM`; there is no projection.
    max_length : how many steps have statistics of their own; later ones share those of the last.
        In evaluation steps that no batch has reached take those of the last that was.
    gamma : what γ starts as; at 1 tanh would saturate, and gradients through time vanish.
    eps, momentum, running_var_correction, on_single : as those of `BatchNorm1d`.

    Shapes
    ------
    Those of `LSTM`. Of sequences of several lengths, by a mask or packed, only those that have a
    step enter its statistics.

    Raises
    ------
    ShapeError
        As `LSTM`; and for a step of a single sequence in training, unless on_single is "running".
    ArgumentError
        As `LSTM`; and for a max_length below 1.

    Notes
    -----
    Weights and biases have the names of `LSTM`'s, whose state dict can be loaded with
    ``strict=False``. The norms are ``norm_ih_l0``, ``norm_hh_l0`` and ``norm_c_l0``; β of the first
    two is left at 0, as in the paper, since b is there already. Running statistics advance once a
    forward, and the shared ones towards the moments of all the steps that share them.
    `nn.utils.freeze_batch_norm` holds them, and γ and β_c, which all steps share.

    A layer in a direction is one node of the graph, however many steps there are. Where a norm has
    hooks, or another module stands in its place, such as `SyncBatchNorm`, and in mixed precision,
    the layer is composed of operations instead, some twenty for each step, and is slower.

    In the second direction each sequence is read from its own end, and steps count from there:
    statistics differ most in the first steps of a recurrence, so that max_length need not be that
    of the sequences. Prefer `LayerNormLSTM` for small batches, and where sequences come one by one.

    Where all samples are nearly alike in a step, as in the blank rows at the top of digits, there
    is no variance to divide by, and what little there is becomes large: add some noise to such
    inputs in training, as examples/11_rows_of_digits.py does.

    References
    ----------
    Cooijmans et al. 2016, arXiv:1603.09025, the sections on the batch-normalized LSTM and on the
    initialization of γ.
    """


class BatchNormGRU(BatchNormalized, NormalizedGRU):
    """Gated recurrent units with batch norm of their two products.

        r, z, n_x = BN(W_ih x_t; γ_ih) + b_ih and r_h, z_h, n_h = BN(W_hh h_(t-1); γ_hh) + b_hh
        h_t = (1 - σ(z + z_h)) tanh(n_x + σ(r + r_h) n_h) + σ(z + z_h) h_(t-1)

    Parameters, shapes and errors are those of `GRU`, and those of `BatchNormLSTM` for the norms.

    References
    ----------
    Cooijmans et al. 2016, arXiv:1603.09025, whose norms of an LSTM's products are taken over into
    the cell of Cho et al. 2014, arXiv:1406.1078.
    """
