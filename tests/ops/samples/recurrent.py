"""Samples of recurrent sequences, packed; their gradients are checked to order 3."""

from __future__ import annotations

from tests.ops.samples import Sample, normal
from tinygrad_bn.nn.utils.packing import Packing
from tinygrad_bn.ops.recurrent import GRUSequence, LSTMSequence, RNNSequence

SIZES = (2, 2, 1)


def sequence(function, biased=True, projected=False, reverse=False, sizes=SIZES, **options):
    """The function of x, h, perhaps c, the weights and the biases it has."""
    states = 2 if function is LSTMSequence else 1

    def run(_, x, *rest):
        initial, weights = rest[:states], list(rest[states:])
        w_ih, w_hh = weights[:2]
        b_ih, b_hh = weights[2:4] if biased else (None, None)
        w_hr = weights[-1] if projected else None
        return function.apply(
            x, w_ih, w_hh, b_ih, b_hh, w_hr, *initial, sizes=sizes, reverse=reverse, **options
        )

    return run


def inputs(gates, states=1, biased=True, projected=0, sizes=SIZES):
    """Three features, states of two; weights that leave the nonlinearities something to bend."""
    h = projected or 2
    tall = 2 * gates
    biases = (0.5 * normal(tall, seed=5), 0.5 * normal(tall, seed=6)) if biased else ()
    return (
        normal(sum(sizes), 3),
        0.5 * normal(sizes[0], h, seed=1),
        *(0.5 * normal(sizes[0], 2, seed=2) for _ in range(states - 1)),
        0.5 * normal(tall, 3, seed=3),
        0.5 * normal(tall, h, seed=4),
        *biases,
        *([0.5 * normal(projected, 2, seed=7)] if projected else []),
    )


def sample(name, function, arrays, notes):
    return Sample(name, function, arrays, order=3, oracle=False, notes=notes)


def padded(_, x):
    return Packing.of([1, 3, 2]).pad(x, 4)


def packed(_, x):
    return Packing.of([1, 3, 2]).pack(x)


SAMPLES = [
    *(
        sample(name, sequence(function, reverse=reverse), inputs(gates, states), notes)
        for name, function, gates, states in (
            ("rnn_sequence", RNNSequence, 1, 1),
            ("lstm_sequence", LSTMSequence, 4, 2),
            ("gru_sequence", GRUSequence, 3, 1),
        )
        for reverse, notes in ((False, ""), (True, "reverse"))
        if name != "rnn_sequence"
    ),
    sample("rnn_sequence", sequence(RNNSequence, relu=False), inputs(1), "tanh"),
    sample("rnn_sequence", sequence(RNNSequence, relu=True, reverse=True), inputs(1), "relu"),
    sample(
        "lstm_sequence",
        sequence(LSTMSequence, projected=True),
        inputs(4, 2, projected=1),
        "projected",
    ),
    sample("gru_sequence", sequence(GRUSequence, biased=False), inputs(3, biased=False), "no_bias"),
    sample("pack", packed, (normal(3, 3, 2),), ""),
    sample("pad", padded, (normal(6, 2),), ""),
]
