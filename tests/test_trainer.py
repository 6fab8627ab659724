"""`fit` is the loop that one would write by hand, with modes, records and callbacks in place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.data import DataLoader, TensorDataset
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.trainer import Step

cross_entropy = nn.functional.cross_entropy


def network() -> nn.Sequential:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


def samples(count: int) -> TensorDataset:
    generator = tg.Generator().manual_seed(1)
    x = tg.randn(count, 4, generator=generator)
    return TensorDataset(x, tg.randint(0, 3, (count,), generator=generator))


def weights(model: nn.Module) -> list[np.ndarray]:
    return [x.numpy().copy() for x in model.state_dict().values()]


def test_it_is_the_loop_written_by_hand():
    data = samples(20)
    by_hand = network()
    optimizer = optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(3):
        for x, y in DataLoader(data, 5, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(by_hand(x), y).backward()
            optimizer.step()

    fitted = network()
    loader = DataLoader(data, 5, shuffle=True)
    tg.fit(fitted, loader, cross_entropy, optim.SGD(fitted.parameters(), lr=0.1), 3)
    for ours, theirs in zip(weights(fitted), weights(by_hand), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_records_hold_sample_means_and_what_validation_measures():
    model, losses = network(), []
    history = tg.fit(
        model,
        DataLoader(samples(7), 3),
        cross_entropy,
        optim.SGD(model.parameters(), lr=0.0),
        2,
        validate=lambda m: {"answer": 42.0},
        on_step=lambda step: losses.append((step.loss.item(), len(step.target))),
    )
    assert [record["epoch"] for record in history] == [1, 2]
    assert [record["answer"] for record in history] == [42.0, 42.0]
    # 3 + 4: the tail of one sample has joined the batch before it
    assert [count for _, count in losses] == [3, 4, 3, 4]
    mean = (3 * losses[0][0] + 4 * losses[1][0]) / 7
    assert history[0]["loss"] == pytest.approx(mean, rel=1e-6)  # sums of float32
    assert history[0]["samples_per_second"] == pytest.approx(7 / history[0]["seconds"])


def test_a_single_sample_stays_alone_without_batch_norm_and_the_loader_is_untouched():
    model = nn.Linear(4, 3)
    loader, sizes = DataLoader(samples(7), 3), []

    def on_step(step: Step) -> None:
        sizes.append(len(step.target))

    tg.fit(model, loader, cross_entropy, optim.SGD(model.parameters()), 1, on_step=on_step)
    model = network()
    tg.fit(model, loader, cross_entropy, optim.SGD(model.parameters()), 1, on_step=on_step)
    assert sizes == [3, 3, 1, 3, 4]
    assert not loader.merge_single


@pytest.mark.parametrize("norm", [nn.MeanOnlyBatchNorm, nn.PowerNorm, nn.EvoNormB0])
def test_a_single_sample_joins_for_every_norm_over_the_batch(norm):
    model, sizes = nn.Sequential(nn.Linear(4, 3), norm(3)), []
    tg.fit(
        model,
        DataLoader(samples(7), 3),
        cross_entropy,
        optim.SGD(model.parameters()),
        1,
        on_step=lambda step: sizes.append(len(step.target)),
    )
    assert sizes == [3, 4]


def test_training_trains_validation_evaluates_and_modes_come_back():
    model, seen = network(), []
    frozen = model[1].eval()

    def validate(m: nn.Module) -> dict[str, float]:
        seen.append((m.training, tg.is_grad_enabled()))
        return {}

    tg.fit(
        model,
        DataLoader(samples(6), 3),
        cross_entropy,
        optim.SGD(model.parameters()),
        1,
        validate=validate,
        on_step=lambda step: seen.append((model.training, tg.is_grad_enabled())),
    )
    assert seen == [(True, True), (True, True), (False, False)]
    assert model.training

    frozen.eval()
    tg.evaluate(model, DataLoader(samples(6), 3), cross_entropy)
    assert model.training
    assert not frozen.training


def test_evaluation_weighs_samples_alike():
    model, data = nn.Linear(4, 3), samples(7)
    found = tg.evaluate(model, DataLoader(data, 3), cross_entropy)
    x, y = data.tensors
    output = model(x)
    assert found["loss"] == pytest.approx(cross_entropy(output, y).item(), rel=1e-6)
    assert found["accuracy"] == np.mean(output.detach().numpy().argmax(1) == y.numpy())


def test_the_scheduler_steps_once_an_epoch_before_the_epoch_is_recorded():
    model, rates = network(), []
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    tg.fit(
        model,
        DataLoader(samples(6), 2),
        cross_entropy,
        optimizer,
        3,
        scheduler=optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        on_epoch=lambda record: rates.append(optimizer.param_groups[0]["lr"]),
    )
    assert rates == [0.5, 0.25, 0.125]


def test_it_goes_on_bit_for_bit_from_saved_states():
    data, saved = samples(21), {}

    def train(model: nn.Sequential, start: int, epochs: int, restore: bool) -> list[np.ndarray]:
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        if restore:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            tg.set_rng_state(saved["rng"])

        def save(record: dict[str, float]) -> None:
            if record["epoch"] == 2:
                saved["model"] = {k: v.clone() for k, v in model.state_dict().items()}
                saved["optimizer"] = optimizer.state_dict()
                saved["rng"] = tg.get_rng_state()

        loader = DataLoader(data, 5, shuffle=True)
        # resumed from epoch 2, the record of epoch 2 is not made again
        options = {} if restore else {"on_epoch": save}
        tg.fit(model, loader, cross_entropy, optimizer, epochs, start=start, **options)
        return weights(model)

    # the state is handed over through copies, as a file would
    interrupted = train(network(), 0, 2, restore=False)
    resumed = train(network(), 2, 4, restore=True)
    unbroken = train(network(), 0, 4, restore=False)
    assert any(not np.array_equal(a, b) for a, b in pairwise([interrupted[0], resumed[0]]))
    for ours, theirs in zip(resumed, unbroken, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_loader_without_batches_is_refused():
    model = network()
    with pytest.raises(ArgumentError, match="expected a loader with batches"):
        tg.fit(model, [], cross_entropy, optim.SGD(model.parameters()), 1)
    with pytest.raises(ArgumentError, match="expected a loader with batches"):
        tg.evaluate(model, [], cross_entropy)
