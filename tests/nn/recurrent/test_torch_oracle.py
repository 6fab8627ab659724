"""Recurrent layers and cells are PyTorch's: every option, values, states and gradients twice."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.recurrent.twins import (
    TOLERANCE,
    assert_alike,
    drawn,
    flat,
    numpy,
    twins,
    with_gradients,
)
from tinygrad_bn import nn

pytestmark = pytest.mark.torch

LAYERS = ["RNN", "LSTM", "GRU"]
OPTIONS = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 1.0},
    {"num_layers": 3, "bidirectional": True, "bias": False},
]
CASES = [
    *((name, options) for name in LAYERS for options in OPTIONS),
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True, "batch_first": True}),
]


def shown(case):
    return str(case) if isinstance(case, str) else "-".join(f"{k}={v}" for k, v in case.items())


every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=shown)


def states_for(module, n, seed=5):
    """Initial states of every layer and direction; without n, of one sequence."""
    count = module.num_layers * module.directions
    return [drawn(count, *n, size, seed=seed + i) for i, size in enumerate(module.state_sizes)]


def both(ours, theirs, x, states, device):
    """Values and gradients by x, the states and the parameters, of both."""
    torch = pytest.importorskip("torch")
    results = []
    for library, module, place in ((tg, ours, {"device": device}), (torch, theirs, {})):
        leaves = [library.tensor(a, requires_grad=True, **place) for a in (x, *states)]
        hx = None
        if states:
            hx = leaves[1] if len(states) == 1 else tuple(leaves[1:])
        outputs = flat(module(leaves[0], hx))
        leaves += list(module.parameters())
        results.append(with_gradients(library, outputs, leaves, **place))
    assert_alike(*results)


@every_case
def test_batches(name, options):
    ours, theirs = twins(name, 3, 4, **options)
    shape = (2, 5, 3) if ours.batch_first else (5, 2, 3)
    both(ours, theirs, drawn(*shape), states_for(ours, (2,)), "cpu")


@pytest.mark.parametrize(("name", "options"), [*((n, OPTIONS[5]) for n in LAYERS), CASES[-1]])
def test_batches_on_another_device(name, options, cuda):
    ours, theirs = twins(name, 3, 4, device=cuda, **options)
    both(ours, theirs, drawn(2, 3, 3), states_for(ours, (2,)), cuda)


@every_case
def test_single_sequences(name, options):
    ours, theirs = twins(name, 3, 4, **options)
    both(ours, theirs, drawn(4, 3), states_for(ours, ()), "cpu")
    both(ours, theirs, drawn(1, 3), [], "cpu")


@every_case
def test_names_shapes_order_and_looks(name, options):
    ours, theirs = twins(name, 3, 4, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert repr(ours) == repr(theirs)
    listed = [[tuple(p.shape) for p in part] for part in theirs.all_weights]
    assert [[p.shape for p in part] for part in ours.all_weights] == listed
    ours.flatten_parameters()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 5], [1, 1], [4]], ids=str)
@pytest.mark.parametrize("with_states", [True, False], ids=["states", "zeros"])
def test_packed_sequences(name, lengths, with_states, device):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 3, 4, num_layers=2, bidirectional=True, device=device)
    n = len(lengths)
    x = drawn(n, max(lengths), 3)
    states = states_for(ours, (n,)) if with_states else []
    ordered = lengths == sorted(lengths, reverse=True)
    results = []
    for library, module, place in ((tg, ours, {"device": device}), (torch, theirs, {})):
        rnn = library.nn.utils.rnn
        leaves = [library.tensor(a, requires_grad=True, **place) for a in (x, *states)]
        hx = None
        if states:
            hx = leaves[1] if len(states) == 1 else tuple(leaves[1:])
        packed = rnn.pack_padded_sequence(leaves[0], lengths, True, ordered)
        y, final = module(packed, hx)
        y, known = rnn.pad_packed_sequence(y, batch_first=True)
        assert known.tolist() == lengths
        leaves += list(module.parameters())
        results.append(with_gradients(library, flat((y, final)), leaves, **place))
    assert_alike(*results)


@pytest.mark.parametrize("name", ["LSTM"])
def test_packed_sequences_with_a_projection(name):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 3, 4, proj_size=2, bidirectional=True)
    x, lengths = drawn(5, 3, 3), [5, 2, 4]
    results = []
    for library, module in ((tg, ours), (torch, theirs)):
        leaf = library.tensor(x, requires_grad=True)
        packed = library.nn.utils.rnn.pack_padded_sequence(leaf, lengths, enforce_sorted=False)
        outputs = flat(module(packed))[1:]  # states; rows of equal lengths may come in any order
        results.append(with_gradients(library, outputs, [leaf, *module.parameters()]))
    assert_alike(*results)


CELLS = [
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu"}),
    ("RNNCell", {"bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"bias": False}),
    ("GRUCell", {}),
    ("GRUCell", {"bias": False}),
]


@pytest.mark.parametrize(("name", "options"), CELLS, ids=shown)
@pytest.mark.parametrize("shape", [(2,), (), (1,)], ids=["batch", "single", "one"])
@pytest.mark.parametrize("with_states", [True, False], ids=["states", "zeros"])
def test_cells(name, options, shape, with_states, device):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 3, 4, device=device, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    count = len(ours.state_names) * with_states
    arrays = [drawn(*shape, 3), *(drawn(*shape, 4, seed=i) for i in range(count))]
    results = []
    for library, module, place in ((tg, ours, {"device": device}), (torch, theirs, {})):
        leaves = [library.tensor(a, requires_grad=True, **place) for a in arrays]
        hx = None
        if count:
            hx = tuple(leaves[1:]) if count == 2 else leaves[1]
        outputs = flat(module(leaves[0], hx))
        leaves += list(module.parameters())
        results.append(with_gradients(library, outputs, leaves, **place))
    assert_alike(*results)


@pytest.mark.parametrize("name", LAYERS)
def test_twenty_steps_of_training_are_those_of_pytorch(name, device):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 3, 6, num_layers=2, device=device)
    optimizers = [
        tg.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9),
    ]
    for step in range(20):
        x, target = drawn(5, 4, 3, seed=step), drawn(5, 4, 6, seed=100 + step)
        losses = []
        for library, module, optimizer in zip((tg, torch), (ours, theirs), optimizers, strict=True):
            place = {"device": device} if library is tg else {}
            y, _ = module(library.tensor(x, **place))
            loss = ((y - library.tensor(target, **place)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        np.testing.assert_allclose(*losses, **TOLERANCE)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        np.testing.assert_allclose(numpy(a), b.numpy(), rtol=1e-10, atol=1e-11, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_of_no_sequences(name):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 3, 4)
    found = [y.shape for y in flat(ours(tg.zeros(5, 0, 3, dtype=tg.float64)))]
    expected = flat(theirs(torch.zeros(5, 0, 3, dtype=torch.float64)))
    assert found == [tuple(y.shape) for y in expected]


@pytest.mark.parametrize("name", LAYERS)
def test_float32_is_as_exact_as_its_roundings(name):
    """Against PyTorch in float64: a few steps of a few roundings of numbers below 1."""
    torch = pytest.importorskip("torch")
    ours, theirs = twins(name, 20, 30, num_layers=2)
    x = drawn(28, 9, 20)
    y, _ = ours.float()(tg.tensor(x.astype(np.float32)))
    wide = theirs.load_state_dict(  # the same rounded weights
        {k: torch.tensor(numpy(v)).double() for k, v in ours.state_dict().items()}
    )
    assert not wide.missing_keys
    z, _ = theirs(torch.tensor(x.astype(np.float32)).double())
    assert y.dtype == np.float32
    np.testing.assert_allclose(numpy(y), numpy(z), atol=2e-6)


def test_hints_that_pytorch_takes():
    rnn = nn.LSTM(3, 4, 1, True, True, 0.0, True, 2)  # all by position
    assert (rnn.batch_first, rnn.bidirectional, rnn.proj_size) == (True, True, 2)
    assert nn.RNN(3, 4, 1, "relu", False, True, 0.0, True).nonlinearity == "relu"
