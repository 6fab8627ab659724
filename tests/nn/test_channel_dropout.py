"""Dropout of whole channels."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.nn import functional as F

KINDS = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


@pytest.mark.parametrize("axes", KINDS)
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
def test_leaves_out_whole_channels_and_scales_the_others(axes, batched, device):
    tg.manual_seed(0)
    shape = ((50,) if batched else ()) + (40,) + (2,) * axes
    x = tg.ones(*shape, device=device, requires_grad=True)
    y = KINDS[axes](0.2)(x)
    y.sum().backward()
    channels = y.detach().cpu().numpy().reshape(-1, 2**axes)
    assert (channels == channels[:, :1]).all()
    assert set(np.unique(channels)) <= {0.0, np.float32(1.25)}
    left_out = (channels[:, 0] == 0).mean()
    assert abs(left_out - 0.2) < 5 * np.sqrt(0.16 / len(channels))  # 5 standard errors
    np.testing.assert_array_equal(x.grad.cpu().numpy(), y.detach().cpu().numpy())


def test_evaluation_and_probability_0_give_the_input_itself(device):
    x = tg.ones(2, 3, 4, 4, device=device)
    assert nn.Dropout2d(0.5).eval()(x) is x
    assert nn.Dropout2d(0.0)(x) is x
    assert F.dropout2d(x, 1.0).sum().item() == 0
    assert F.dropout2d(x[:0]).shape == (0, 3, 4, 4)


def test_the_generator_decides(device):
    x = tg.ones(8, 16, 2, device=device)
    draws = [
        F.dropout1d(x, generator=tg.Generator(device).manual_seed(seed)).tolist()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_bad_input_is_refused():
    for function, shape in ((F.dropout1d, (4,)), (F.dropout2d, (4, 4)), (F.dropout3d, (4, 4, 4))):
        with pytest.raises(ShapeError, match="rank"):
            function(tg.ones(shape))
    with pytest.raises(ArgumentError):
        F.dropout2d(tg.ones(1, 1, 1, 1), 1.5)
    with pytest.raises(DtypeError):
        F.dropout2d(tg.ones(1, 1, 1, 1).long())
