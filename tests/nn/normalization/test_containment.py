"""NaN and infinity stay in the group whose statistics they spoil: all else keeps its bits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.nn.normalization.family import NORMS, Norm, drawn, ours
from tinygrad_bn import nn

every_norm = pytest.mark.parametrize("norm", NORMS, ids=str)
VALUES = (np.nan, np.inf, -np.inf)


def spoilt(values: Any, value: float) -> tuple[Any, tuple[int, ...]]:
    """The values with one in their midst replaced, and where."""
    at = tuple(n // 2 for n in values.shape)
    values = values.copy()
    values[at] = value
    return values, at


def group_of(norm: Norm, shape: Any, at: tuple[int, ...]) -> Any:
    """Which elements of an input share their statistics with the one at a place."""
    mark = np.zeros(shape)
    mark[at] = 1
    grouped = norm.grouped(shape)
    return np.broadcast_to(norm.over(shape, mark) > 0, grouped).reshape(shape)


def channels_with(norm: Norm, elements: Any) -> Any:
    """Which γ touch any of some elements."""
    return elements.any(norm.summed(elements.shape))


def counted(inputs: Any, at: tuple[int, ...]) -> Any:
    """The inputs with a mask, where there is one, that is true at a place."""
    if inputs.mask is None:
        return inputs
    mask = inputs.mask.copy()
    axes = zip(at, inputs.norm.of_channels(inputs.x.shape), strict=True)
    mask[tuple(i for i, of_channels in axes if not of_channels)] = True
    return replace(inputs, mask=mask)


@every_norm
def test_in_the_input(norm, route):
    for value in VALUES:
        clean = drawn(norm, norm.sizes(16, 3, 5), dtype=np.float32)
        x, at = spoilt(clean.x, value)
        clean = counted(clean, at)
        got, wanted = ours(replace(clean, x=x), route), ours(clean, route)
        inside = group_of(norm, x.shape, at)
        assert not inside.all()
        assert not np.isfinite(got.y[at])
        np.testing.assert_array_equal(got.y[~inside], wanted.y[~inside])
        np.testing.assert_array_equal(got.dx[~inside], wanted.dx[~inside])
        others = ~channels_with(norm, inside)
        np.testing.assert_array_equal(got.dweight[others], wanted.dweight[others])
        if norm.biased:  # whose gradient is a sum of dy alone
            np.testing.assert_array_equal(got.dbias, wanted.dbias)


@every_norm
def test_in_the_gradient(norm, route):
    for value in VALUES:
        clean = drawn(norm, norm.sizes(16, 3, 5), dtype=np.float32)
        dy, at = spoilt(clean.dy, value)
        clean = counted(clean, at)
        got, wanted = ours(replace(clean, dy=dy), route), ours(clean, route)
        np.testing.assert_array_equal(got.y, wanted.y)
        inside = group_of(norm, dy.shape, at)
        assert not np.isfinite(got.dx[at])
        np.testing.assert_array_equal(got.dx[~inside], wanted.dx[~inside])
        here = np.zeros(dy.shape, bool)
        here[at] = True
        mine = channels_with(norm, here)
        assert not np.isfinite(got.dweight[mine]).any()
        np.testing.assert_array_equal(got.dweight[~mine], wanted.dweight[~mine])
        if norm.biased:
            np.testing.assert_array_equal(got.dbias[~mine], wanted.dbias[~mine])


@every_norm
def test_in_second_gradients(norm, route):
    for value in VALUES:
        clean = drawn(norm, norm.sizes(6, 3, 4), affine=False)
        x, at = spoilt(clean.x, value)
        clean = counted(clean, at)
        results = []
        for values in (x, clean.x):
            leaf = tg.tensor(values, device=route, requires_grad=True)
            mask = None if clean.mask is None else tg.tensor(clean.mask, device=route)
            y = norm.function(leaf, None, None, mask, clean.eps).tanh()
            (dx,) = tg.autograd.grad((y * y).sum(), leaf, create_graph=True)
            (second,) = tg.autograd.grad(dx.square().sum(), leaf)
            results.append(second.cpu().numpy())
        outside = ~group_of(norm, x.shape, at)
        np.testing.assert_allclose(results[0][outside], results[1][outside], rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        nn.BatchNorm1d,
        partial(nn.BatchNorm1d, momentum=None),
        partial(nn.GhostBatchNorm, virtual_batch_size=8),
        nn.BatchRenorm,
        partial(nn.InstanceNorm1d, track_running_stats=True),
    ],
    ids=["batch", "batch_averaging", "ghost", "renorm", "instance"],
)
def test_in_running_statistics(make, route):
    for value in VALUES:
        layers = [make(3, device=route) for _ in range(2)]
        x = np.random.default_rng(0).standard_normal((20, 3, 4)).astype(np.float32)
        for layer, values in zip(layers, (spoilt(x, value)[0], x), strict=True):
            layer(tg.tensor(values, device=route))
        for name in ("running_mean", "running_var"):
            got, wanted = (getattr(layer, name).cpu().numpy() for layer in layers)
            assert not np.isfinite(got[1])
            np.testing.assert_array_equal(got[[0, 2]], wanted[[0, 2]])


def test_in_running_statistics_that_normalise(route):
    for value in VALUES:
        layer = nn.BatchNorm1d(3, device=route).eval()
        with tg.no_grad():
            layer.running_var[1] = value
        x = tg.tensor(np.ones((2, 3), np.float32), device=route, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert np.isfinite(y.cpu().tolist())[:, [0, 2]].all()
        assert np.isfinite(x.grad.cpu().tolist())[:, [0, 2]].all()
