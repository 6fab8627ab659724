"""Every norm that takes statistics of its own input, a line each, and the formula that all share.

A norm differs from its siblings in what it takes statistics over: the input is seen in a
``grouped`` shape, and each group is what lies along ``axes`` of that. The formula below speaks only
operators, ``sum`` and ``reshape``: NumPy's arrays of any precision, our Tensors and PyTorch's
evaluate it. Norms of another formula, and the synchronised one, have all their tests in files of
their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.nn import functional as F

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Norm:
    """``function(x, weight, bias, mask, eps)`` is the norm in training, of an input of the shape
    that ``sizes`` makes of numbers of samples, channels and positions.
    """

    name: str
    function: Callable[..., Any]
    sizes: Callable[[int, int, int], Shape]
    axes: Shape
    """The axes of the grouped shape that statistics are taken over."""
    channels: Shape = (1,)
    """The axes of the input that γ and β have."""
    grouped: Callable[[Shape], Shape] = tuple
    centred: bool = True
    biased: bool = True
    """Whether it has a β."""
    masked: bool = False
    """Whether it is called with a mask, over all axes but ``channels``."""

    def __str__(self) -> str:
        return self.name

    @property
    def per_sample(self) -> bool:
        """Whether each sample is normalised by itself."""
        shape = self.sizes(8, 2, 2)
        return 0 not in self.axes and self.grouped(shape)[0] == shape[0]

    def of_channels(self, shape: Shape) -> tuple[bool, ...]:
        """For each axis of the input, whether γ and β have it."""
        mine = {axis % len(shape) for axis in self.channels}
        return tuple(axis in mine for axis in range(len(shape)))

    def parameters(self, shape: Shape) -> Shape:
        """The shape of γ and β."""
        return tuple(n for n, mine in zip(shape, self.of_channels(shape), strict=True) if mine)

    def positions(self, shape: Shape) -> Shape:
        """The shape of a mask."""
        return tuple(n for n, mine in zip(shape, self.of_channels(shape), strict=True) if not mine)

    def summed(self, shape: Shape) -> Shape:
        """The axes that the gradients of γ and β are sums over."""
        return tuple(axis for axis, mine in enumerate(self.of_channels(shape)) if not mine)

    def spread(self, shape: Shape, value: Any) -> Any:
        """γ or β in a shape that broadcasts with the input."""
        axes = zip(shape, self.of_channels(shape), strict=True)
        return value.reshape(tuple(n if mine else 1 for n, mine in axes))

    def over(self, shape: Shape, value: Any) -> Any:
        """The sum over each group of a value of the input's shape; of the grouped shape, with the
        size 1 along summed axes.
        """
        grouped = self.grouped(shape)
        ones = tuple(1 if axis in self.axes else n for axis, n in enumerate(grouped))
        return value.reshape(grouped).sum(self.axes).reshape(ones)

    def values(self, shape: Shape) -> int:
        """How many values a group has."""
        grouped = self.grouped(shape)
        return math.prod(grouped[axis] for axis in self.axes)

    def moments(self, x: Any, counts: Any) -> tuple[Any, Any, Any]:
        """The deviations from the mean in the grouped shape, and mean and variance of each group;
        ``counts`` is 1 where x counts for them and 0 elsewhere.
        """
        shape = tuple(x.shape)
        total = self.over(shape, counts)
        deviation, mean = x.reshape(self.grouped(shape)), 0
        if self.centred:
            mean = self.over(shape, x * counts) / total
            deviation = deviation - mean
        square = deviation * deviation
        var = self.over(shape, square.reshape(shape) * counts) / total
        return deviation, mean, var

    def formula(self, x: Any, weight: Any, bias: Any, counts: Any, eps: float) -> Any:
        """γ (x - mean) / √(var + ε) + β, as it stands in the papers."""
        shape = tuple(x.shape)
        deviation, _, var = self.moments(x, counts)
        y = (deviation / (var + eps) ** 0.5).reshape(shape)
        if weight is not None:
            y = y * self.spread(shape, weight)
        if bias is not None:
            y = y + self.spread(shape, bias)
        return y


def batch(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps, mask=mask)


def batch_last(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    options: dict[str, Any] = {"training": True, "eps": eps, "mask": mask, "axis": -1}
    return F.batch_norm(x, None, None, weight, bias, **options)


def layer(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    """Over the last axis of rank 2, and over all but the first of higher ranks."""
    return F.layer_norm(x, tuple(x.shape[1:]), weight, bias, eps)


def rms(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    """As `layer`."""
    return F.rms_norm(x, tuple(x.shape[1:]), weight, eps)


def group(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    return F.group_norm(x, 2, weight, bias, eps)


def in_two_groups(shape: Shape) -> Shape:
    n, channels, *space = shape
    return n, 2, channels // 2, *space


def instance(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    return F.instance_norm(x, None, None, weight, bias, eps=eps)


def filter_response(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    return with_affine(nn.FilterResponseNorm(x.shape[1], eps, affine=False), weight, bias)(x)


def ghost(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    virtual = nn.GhostBatchNorm(x.shape[1], 4, eps, affine=False).to(x.device)
    return with_affine(virtual, weight, bias)(x)


def in_fours(shape: Shape) -> Shape:
    n, *rest = shape
    return n // 4, 4, *rest


def renorm(x: Any, weight: Any, bias: Any, mask: Any, eps: float) -> Any:
    """Without a correction, as it begins."""
    return with_affine(nn.BatchRenorm(x.shape[1], eps, affine=False).to(x.device), weight, bias)(x)


def with_affine(layer: Any, weight: Any, bias: Any) -> Any:
    """A layer that computes with tensors of somebody else's instead of parameters."""
    layer.weight, layer.bias = weight, bias
    return layer


NORMS = (
    Norm("batch", batch, lambda n, c, s: (n + 1, c), (0,)),
    Norm("batch_1d", batch, lambda n, c, s: (n, c, s + 1), (0, 2)),
    Norm("batch_2d", batch, lambda n, c, s: (n, c, s, 2), (0, 2, 3)),
    Norm("batch_3d", batch, lambda n, c, s: (n, c, 2, s, 1), (0, 2, 3, 4)),
    Norm("batch_last", batch_last, lambda n, c, s: (n, s + 1, c), (0, 1), channels=(-1,)),
    Norm("batch_masked", batch, lambda n, c, s: (n + 1, c, s + 1), (0, 2), masked=True),
    Norm("ghost", ghost, lambda n, c, s: (4 * n, c, s), (1, 3), grouped=in_fours),
    Norm("renorm", renorm, lambda n, c, s: (n + 1, c, s), (0, 2)),
    Norm("layer", layer, lambda n, c, s: (n, c + s), (1,)),
    Norm("layer_2d", layer, lambda n, c, s: (n, c, s + 1), (1, 2), channels=(1, 2)),
    Norm("rms", rms, lambda n, c, s: (n, c + s), (1,), centred=False, biased=False),
    Norm("group", group, lambda n, c, s: (n, 2 * c, s + 1), (2, 3), grouped=in_two_groups),
    Norm("group_2d", group, lambda n, c, s: (n, 4 * c, s, 1), (2, 3, 4), grouped=in_two_groups),
    Norm("instance", instance, lambda n, c, s: (n, c, s + 1), (2,)),
    Norm("instance_2d", instance, lambda n, c, s: (n, c, s, 2), (2, 3)),
    Norm("filter_response", filter_response, lambda n, c, s: (n, c, s + 1), (2,), centred=False),
)


@dataclass(frozen=True)
class Inputs:
    """What a norm is called with, as arrays of NumPy; a mask is None where the norm has none."""

    norm: Norm
    x: Any
    dy: Any
    weight: Any
    bias: Any
    mask: Any
    eps: float

    @property
    def counts(self) -> Any:
        """1 where x counts for statistics, 0 elsewhere, in its shape."""
        if self.mask is None:
            return np.ones(self.x.shape)
        shape = self.x.shape
        axes = zip(shape, self.norm.of_channels(shape), strict=True)
        mask = self.mask.reshape(tuple(1 if mine else n for n, mine in axes))
        return np.broadcast_to(mask, shape).astype(np.float64)


def drawn(
    norm: Norm,
    shape: Shape,
    seed: int = 0,
    dtype: Any = np.float64,
    *,
    offset: float = 0.0,
    scale: float = 1.0,
    eps: float = 1e-5,
    affine: bool = True,
) -> Inputs:
    """Normal values; a mask is true at two places at least."""
    rng = np.random.default_rng([seed, *shape])
    x = (offset + scale * rng.standard_normal(shape)).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    weight, bias = rng.standard_normal((2, *norm.parameters(shape))).astype(dtype)
    mask = None
    if norm.masked:
        mask = rng.uniform(size=norm.positions(shape)) < 0.6
        mask.reshape(-1)[:2] = True
    weight, bias = weight if affine else None, bias if affine and norm.biased else None
    return Inputs(norm, x, dy, weight, bias, mask, eps)


@dataclass(frozen=True)
class Results:
    """The output and the gradients; of `exact` also what sizes of errors are told in."""

    y: Any
    dx: Any
    dweight: Any = None
    dbias: Any = None
    x_hat: Any = None
    terms: Any = None
    """The sizes of what dx is a difference of: γ dy, and what goes through the statistics."""
    ratio: float = 0.0
    """The largest |mean| / std of a group whose values differ."""


def exact(inputs: Inputs) -> Results:
    """What a norm should give, from the same input in long double (64 bits of digits on x86)."""
    norm, shape = inputs.norm, inputs.x.shape
    x, dy, counts, eps = (
        np.longdouble(v) for v in (inputs.x, inputs.dy, inputs.counts, inputs.eps)
    )
    weight, bias = (None if v is None else np.longdouble(v) for v in (inputs.weight, inputs.bias))
    y = norm.formula(x, weight, bias, counts, eps)
    deviation, mean, var = norm.moments(x, counts)
    rstd = 1 / np.sqrt(var + eps)
    x_hat = (deviation * rstd).reshape(shape)
    g = dy if weight is None else dy * norm.spread(shape, weight)
    through = deviation * rstd * norm.over(shape, g * x_hat)
    if norm.centred:
        through = through + norm.over(shape, g)
    through = through / norm.over(shape, counts) * counts.reshape(deviation.shape)
    g = g.reshape(deviation.shape)
    summed = norm.summed(shape)
    differing = np.where(var > 0, var, np.inf)
    return Results(
        y,
        (rstd * (g - through)).reshape(shape),
        (dy * x_hat).sum(summed),
        dy.sum(summed),
        x_hat,
        (rstd * (np.abs(g) + np.abs(through))).reshape(shape),
        float(np.max(np.abs(mean) / np.sqrt(differing), initial=0.0)),
    )


def ours(inputs: Inputs, device: str = "cpu") -> Results:
    """What the library gives, as arrays of NumPy."""

    def tensor(value: Any, requires_grad: bool = False) -> Any:
        if value is None:
            return None
        return tg.tensor(value, dtype=value.dtype, device=device, requires_grad=requires_grad)

    x, weight, bias = (tensor(v, True) for v in (inputs.x, inputs.weight, inputs.bias))
    y = inputs.norm.function(x, weight, bias, tensor(inputs.mask), inputs.eps)
    y.backward(tensor(inputs.dy))
    grads = (None if v is None else v.grad.cpu().numpy() for v in (x, weight, bias))
    return Results(y.detach().cpu().numpy(), *grads)
