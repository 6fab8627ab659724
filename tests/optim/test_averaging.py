"""Averages of a model over its training."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, ModuleError
from tinygrad_bn.optim.averaging import EMA, AveragedModel, get_ema_avg_fn


def model_of() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()


def shaken(model: nn.Module, seed: int) -> list[np.ndarray]:
    """New parameters and running means for the model; the parameters."""
    random = np.random.default_rng(seed)
    with tg.no_grad():
        for p in (*model.parameters(), model[1].running_mean):
            p.overwrite(random.standard_normal(p.shape))
        model[1].num_batches_tracked.overwrite(seed)
    return [p.detach().numpy().copy() for p in model.parameters()]


def test_the_mean_of_all() -> None:
    model = model_of()
    averaged = AveragedModel(model)
    seen = []
    for seed in range(5):
        seen.append(shaken(model, seed))
        averaged.update_parameters(model)
    for p, *values in zip(averaged.module.parameters(), *seen, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), np.mean(values, axis=0), rtol=1e-13)
    assert averaged.n_averaged.item() == 5


def test_an_exponential_moving_average() -> None:
    model = model_of()
    averaged = EMA(model, decay=0.8)
    mean = None
    for seed in range(5):
        values = shaken(model, seed)
        averaged.update_parameters(model)
        mean = (
            values
            if mean is None
            else [0.8 * m + 0.2 * v for m, v in zip(mean, values, strict=True)]
        )
    for p, m in zip(averaged.module.parameters(), mean, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), m, rtol=1e-13)


def test_buffers_are_copied_or_averaged() -> None:
    model = model_of()
    copying, averaging = AveragedModel(model), AveragedModel(model, use_buffers=True)
    means = []
    for seed in range(3):
        shaken(model, seed)
        means.append(model[1].running_mean.numpy().copy())
        copying.update_parameters(model)
        averaging.update_parameters(model)
    np.testing.assert_array_equal(copying.module[1].running_mean.array, means[-1])
    np.testing.assert_allclose(averaging.module[1].running_mean.array, np.mean(means, axis=0))
    assert averaging.module[1].num_batches_tracked.item() == 2  # a count has no average


def test_the_model_and_its_average_share_no_memory() -> None:
    model = model_of()
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    shaken(model, 1)
    for p, q in zip(averaged.module.parameters(), model.parameters(), strict=True):
        assert not np.shares_memory(p.array, q.array)
    x = tg.ones(4, 2, dtype="float64")
    assert averaged(x).shape == (4, 3)


def test_state_dict_as_pytorchs_and_back() -> None:
    model = model_of()
    averaged = EMA(model)
    shaken(model, 1)
    averaged.update_parameters(model)
    state = averaged.state_dict()
    assert set(state) == {"n_averaged", *("module." + key for key in model.state_dict())}
    other = EMA(model_of())
    other.load_state_dict(state)
    shaken(model, 2)
    for a in (averaged, other):
        a.update_parameters(model)
    for p, q in zip(averaged.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.array, q.array)


def test_averages_on_another_device(cuda: str) -> None:
    model = model_of()
    averaged = EMA(model, decay=0.5, device=cuda)
    for seed in range(2):
        shaken(model, seed)
        averaged.update_parameters(model)
    assert all(p.is_cuda for p in averaged.parameters())
    first, second = shaken(model, 0)[0], shaken(model, 1)[0]
    weight = next(averaged.module.parameters()).detach().cpu().numpy()
    np.testing.assert_allclose(weight, (first + second) / 2, rtol=1e-13)


@pytest.mark.torch
@pytest.mark.parametrize("ema", [False, True])
def test_as_pytorchs(ema: bool) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(2, 3).double()
    mine = nn.Linear(2, 3).double()
    swa = torch.optim.swa_utils
    their_average = swa.AveragedModel(theirs, avg_fn=swa.get_ema_avg_fn(0.9) if ema else None)
    my_average = AveragedModel(mine, avg_fn=get_ema_avg_fn(0.9) if ema else None)
    for seed in range(6):
        random = np.random.default_rng(seed)
        for p, q in zip(theirs.parameters(), mine.parameters(), strict=True):
            values = random.standard_normal(q.shape)
            p.data.copy_(torch.tensor(values))
            with tg.no_grad():
                q.overwrite(values)
        their_average.update_parameters(theirs)
        my_average.update_parameters(mine)
    for p, q in zip(their_average.parameters(), my_average.parameters(), strict=True):
        np.testing.assert_allclose(q.detach().numpy(), p.detach().numpy(), rtol=1e-13)


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="decay"):
        EMA(model_of(), decay=1.5)
    averaged = EMA(model_of())
    before = [p.detach().numpy().copy() for p in averaged.parameters()]
    with pytest.raises(ModuleError):
        averaged.update_parameters(nn.Linear(2, 3))
    for p, value in zip(averaged.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.array, value)
    assert averaged.n_averaged.item() == 0
