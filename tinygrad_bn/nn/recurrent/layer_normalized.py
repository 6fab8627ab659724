"""Recurrent layers with layer normalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_bn import creation
from tinygrad_bn.nn.normalization.layer import LayerNorm
from tinygrad_bn.nn.recurrent.fusion import NormOfWalk, of_layer_norms
from tinygrad_bn.nn.recurrent.normalized import (
    NormalizedGRU,
    NormalizedLSTM,
    NormalizedRNN,
    NormalizedRNNBase,
    Norms,
)
from tinygrad_bn.ops.join import cat
from tinygrad_bn.tensors import Tensor


class LayerNormalized(NormalizedRNNBase):
    """What recurrent layers with layer norm have in common."""

    def __init__(self, *args: Any, eps: float = 1e-5, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refuse_projection()
        place: dict[str, Any] = {
            "device": self.weight_ih_l0.device,
            "dtype": self.weight_ih_l0.dtype,
        }
        for layer in range(self.num_layers):
            for suffix in self.suffixes(layer):
                for name, times in self.norm_widths.items():
                    norm = LayerNorm(
                        times * self.hidden_size, eps, bias=self.bias and name == "c", **place
                    )
                    self.register_module(f"norm_{name}{suffix}", norm)

    def norm_of_walk(
        self, norms: Mapping[str, int], place: str, x: Tensor, sizes: tuple[int, ...]
    ) -> NormOfWalk | None:
        found = [getattr(self, name) for name in norms]
        return of_layer_norms(found, tuple(norms.values()), place, x)

    def norms(self, suffix: str) -> Norms:
        """The norms of one layer and direction, which are the same at all steps."""
        return {name: anytime(getattr(self, f"norm_{name}{suffix}")) for name in self.norm_widths}


def anytime(norm: LayerNorm) -> Any:
    """The norm as a function of values and a step, which it does not heed."""
    return lambda x, step: norm(x)


class LayerNormRNN(LayerNormalized, NormalizedRNN):
    """A simple recurrent network with layer norm of the sum of its products.

        h_t = tanh(LN(W_ih x_t + W_hh h_(t-1); α) + b_ih + b_hh)

    Parameters, shapes and errors are those of `RNN`; eps as that of `LayerNorm`.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, the section on recurrent networks.
    """

    norm_widths = {"h": 1}
    places = {"sum": ("h",)}

    def normalized(self, norms: Norms, step: int, gx: Tensor, gh: Tensor) -> tuple[Tensor, Tensor]:
        return norms["h"](gx + gh, step), creation.zeros_like(gh)


class LayerNormLSTM(LayerNormalized, NormalizedLSTM):
    """Long short-term memory with layer norm of its two products, and of c on its way to h.

        i, f, g, o = LN(W_ih x_t; α_ih) + LN(W_hh h_(t-1); α_hh) + b_ih + b_hh, in four parts
        c_t = σ(f) c_(t-1) + σ(i) tanh(g)
        h_t = σ(o) tanh(LN(c_t; α_c, β_c))

    Parameters
    ----------
    input_size to bidirectional : as those of `LSTM`; there is no projection.
    eps : ε, added to the variance.

    Shapes
    ------
    Those of `LSTM`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, BackendError
        As `LSTM`.

    Notes
    -----
    LN is over all four gates together. Weights and biases have the names of `LSTM`'s; α is the
    weight of ``norm_ih_l0``, ``norm_hh_l0`` and ``norm_c_l0``. The paper adds a β of each of the
    first two and b, of which only the sum counts; here they are b_ih and b_hh.
    It needs no batch, and does the same in training and evaluation; where batches are large,
    `BatchNormLSTM` may learn faster. A layer in a direction is one node of the graph; where a norm
    has hooks or is of another class, and in mixed precision, it is composed of operations.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, supplementary material.
    """


class LayerNormGRU(LayerNormalized, NormalizedGRU):
    """Gated recurrent units with layer norm of their products: of both gates together, and of what
    goes into tanh.

        r, z = σ(LN(W_i x_t; α_ih) + b_i + LN(W_h h_(t-1); α_hh) + b_h), in two parts
        n = tanh(LN(W_in x_t; α_in) + b_in + r (LN(W_hn h_(t-1); α_hn) + b_hn))
        h_t = (1 - z) n + z h_(t-1)

    Parameters, shapes and errors are those of `GRU`; eps as that of `LayerNorm`.

    Notes
    -----
    The norms are ``norm_ih_l0`` and ``norm_hh_l0`` of the gates, ``norm_in_l0`` and ``norm_hn_l0``
    of the rest; the paper's β are the biases here. Its z is 1 - z here, as in `GRU`.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, supplementary material.
    """

    norm_widths = {"ih": 2, "hh": 2, "in": 1, "hn": 1}
    places = {"x": ("ih", "in"), "h": ("hh", "hn")}

    def normalized(self, norms: Norms, step: int, gx: Tensor, gh: Tensor) -> tuple[Tensor, Tensor]:
        two = 2 * self.hidden_size
        ax = [norms["ih"](gx[:, :two], step), norms["in"](gx[:, two:], step)]
        ah = [norms["hh"](gh[:, :two], step), norms["hn"](gh[:, two:], step)]
        return cat(ax, 1), cat(ah, 1)
