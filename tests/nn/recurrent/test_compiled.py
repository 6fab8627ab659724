"""Compiled training steps of recurrent layers are the eager ones, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.recurrent.twins import drawn
from tinygrad_bn import nn

MAKES = {
    "RNN": lambda: nn.RNN(3, 4),
    "RNN_relu": lambda: nn.RNN(3, 4, nonlinearity="relu", bias=False),
    "LSTM": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "LSTM_projected": lambda: nn.LSTM(3, 4, proj_size=2),
    "GRU": lambda: nn.GRU(3, 4, batch_first=True),
    "BatchNormRNN": lambda: nn.BatchNormRNN(3, 4, max_length=5, momentum=None),
    "BatchNormLSTM": lambda: nn.BatchNormLSTM(3, 4, max_length=3),
    "BatchNormLSTM_both_ways": lambda: nn.BatchNormLSTM(3, 4, 2, bidirectional=True, max_length=3),
    "BatchNormGRU": lambda: nn.BatchNormGRU(3, 4, max_length=5),
    "LayerNormRNN": lambda: nn.LayerNormRNN(3, 4),
    "LayerNormLSTM": lambda: nn.LayerNormLSTM(3, 4),
    "LayerNormGRU": lambda: nn.LayerNormGRU(3, 4),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_training(make):
    losses, states = [], []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = make()
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x)[0] ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        batches = [tg.tensor(drawn(5, 6, 3, seed=s).astype(np.float32)) for s in range(4)]
        losses.append([run(x).item() for x in batches])
        states.append({k: v.tolist() for k, v in model.state_dict().items()})
    assert losses[0] == losses[1]
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ["LSTM", "LayerNormLSTM"])
def test_evaluation(name):
    model = getattr(nn, name)(3, 4).eval()

    @tg.no_grad()
    def run(x, h, c):
        y, (h, c) = model(x, (h, c))
        return y, h, c

    compiled = tg.compile(run)
    for seed in range(3):
        args = [
            tg.tensor(drawn(*shape, seed=seed).astype(np.float32))
            for shape in ((5, 2, 3), (1, 2, 4), (1, 2, 4))
        ]
        expected, found = run(*args), compiled(*args)
        assert [x.tolist() for x in found] == [x.tolist() for x in expected]
