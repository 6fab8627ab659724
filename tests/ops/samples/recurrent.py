"""Samples of recurrent sequences, packed; their gradients are checked to order 3."""

from __future__ import annotations

import tinygrad_bn as tg
from tests.ops.samples import Sample, normal
from tinygrad_bn.nn.utils.packing import Packing
from tinygrad_bn.ops.recurrent import GRUSequence, LSTMSequence, RNNSequence
from tinygrad_bn.ops.recurrent_norms import Norm

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


def normalized(function, norms, **options):
    """The function of x, h, perhaps c, the weights, the biases and, of each norm, γ and perhaps β;
    statistics that are given have no gradient.
    """
    states = 2 if function is LSTMSequence else 1

    def run(_, x, *rest):
        initial, weights, arrays = rest[:states], rest[states : states + 4], [*rest[states + 4 :]]
        of_norms = []
        for norm in norms:
            of_norms += [arrays.pop(0), arrays.pop(0) if norm.place == "c" else None]
            width = of_norms[-2].shape[0]
            of_norms += [None] * 2 if all(norm.by_batch) else statistics(x, width)
        y, *found = function.apply(
            *(x, *weights, None, *initial, *of_norms),
            sizes=STEPS,
            reverse=False,
            norms=tuple(norms),
            **options,
        )
        return (y, *found[:states])  # moments are to look at

    return run


def statistics(x, width):
    """Means and variances of each step."""
    place = {"dtype": x.dtype, "device": x.device}
    return [tg.full((len(STEPS), width), value, **place) for value in (0.3, 1.5)]


STEPS = (3, 3, 2)
"""Of two values or more, for statistics of them."""


def of_norms(norms, gates):
    """The arrays of norms, around where they start."""
    found = []
    for k, norm in enumerate(norms):
        width = 2 if norm.place == "c" else 2 * gates
        found.append(1 + 0.3 * normal(width, seed=20 + k))
        if norm.place == "c":
            found.append(0.5 * normal(width, seed=30 + k))
    return found


def batch(places, flags=(True,) * 3):
    """Batch norms; ε is large, so that differences of a size divide by no small deviation."""
    return [Norm(place, (0.1, 0.2, 0.3), (), flags) for place in places]


NORMALIZED = {
    "batch": (LSTMSequence, 4, batch("xhc"), {}),
    "some_given": (LSTMSequence, 4, batch("xhc", (True, False, True)), {}),
    "batch_gru": (GRUSequence, 3, batch("xh"), {}),
    "batch_rnn": (RNNSequence, 1, batch("xh"), {"relu": False}),
    "layer": (LSTMSequence, 4, [Norm(p, (0.1,), (2 if p == "c" else 8,)) for p in "xhc"], {}),
    "layer_parts": (GRUSequence, 3, [Norm(p, (0.1, 0.2), (4, 2)) for p in "xh"], {}),
    "layer_sum": (RNNSequence, 1, [Norm("sum", (0.1,), (2,))], {"relu": False}),
}


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
    *(
        sample(
            f"{function.__name__[: -len('Sequence')].lower()}_sequence",
            normalized(function, norms, **options),
            (*inputs(gates, 1 + (gates == 4), sizes=STEPS), *of_norms(norms, gates)),
            notes,
        )
        for notes, (function, gates, norms, options) in NORMALIZED.items()
    ),
    sample("pack", packed, (normal(3, 3, 2),), ""),
    sample("pad", padded, (normal(6, 2),), ""),
]
