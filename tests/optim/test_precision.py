"""Update rules in narrow dtypes, and with numbers that are none."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optim.test_flat import give_gradients, params_of
from tinygrad_bn import optim

Parameter = tg.Parameter


def test_half_precision_rounds_once() -> None:
    random = np.random.default_rng(5)
    start, g = random.standard_normal((2, 1000)).astype(np.float16)
    p = Parameter(start)
    optimizer = optim.SGD([p], lr=0.3, weight_decay=0.1)
    p.grad = tg.Tensor(g)
    optimizer.step()
    x, dx = start.astype(np.float32), g.astype(np.float32)
    once = (x - np.float32(0.3) * (dx + np.float32(0.1) * x)).astype(np.float16)
    np.testing.assert_array_equal(p.array, once)
    often = start - np.float16(0.3) * (g + np.float16(0.1) * start)
    assert (often != once).mean() > 0.1  # the test can tell them apart


def test_half_precision_keeps_its_state_in_float32() -> None:
    p = Parameter(np.ones(1), dtype="float16")
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = tg.full_like(p, 1e-4)  # whose square float16 would flush to zero
    optimizer.step()
    assert optimizer.state[p]["exp_avg_sq"].dtype.name == "float32"
    # half an ulp of 0.9; ε is 1e-4 of √v̂
    assert abs(p.item() - 0.9) < 3e-4


def test_options_are_not_rounded_to_float32_first() -> None:
    """1 - β₂ keeps its seven digits although β₂ in float32 would leave four."""
    p = Parameter(np.ones(1), dtype="float32")
    optimizer = optim.Adam([p], betas=(0.9, 0.99999))
    p.grad = tg.full_like(p, 1.0)
    optimizer.step()
    assert optimizer.state[p]["exp_avg_sq"].item() == pytest.approx(1e-5, rel=1e-7)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "LAMB", "LARS", "NAdam"])
def test_nan_gradients_are_not_hidden(name: str) -> None:
    p, q = params_of((2,), (2,))
    optimizer = getattr(optim, name)([p, q], lr=0.1)
    give_gradients([p, q])
    p.grad = tg.Tensor(np.array([np.nan, 1.0]))
    optimizer.step()
    assert np.isnan(p.array).any()
    assert np.isfinite(q.array).all()


def test_infinite_parameters_survive_without_weight_decay() -> None:
    p = Parameter(np.array([-np.inf, 1.0]))
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = tg.zeros(2, dtype="float64")
    optimizer.step()
    assert p.tolist() == [-np.inf, 1.0]
