"""Batch normalization as operations: the phases of ``moments.py`` with shapes, gradients and
running statistics around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable, stamp
from tinygrad_bn.backend import Array, Backend, current, on
from tinygrad_bn.config import as_first_seen, grad_mode, recomputing
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.ops.collective import Group, gathered, reduced
from tinygrad_bn.ops.counting import one_more
from tinygrad_bn.ops.moments import (
    batch_grad_input,
    batch_grad_sums,
    batch_moments,
    batch_normalize,
    merged_moments,
    moving_average,
    moving_moments,
    tracked_moments,
    wide,
)
from tinygrad_bn.ops.norm_arguments import (
    axis_of_channels,
    require_channels,
    require_correction,
    require_eps,
    require_floats,
    require_mask,
    require_movable,
    require_several,
    values_per_channel,
)
from tinygrad_bn.ops.whole_norms import whole_batch_norm, whole_batch_norm_grad

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def by_channel(xp: Any, x: Array, axis: int) -> Array:
    """x as (N, C, S), where C is its ``axis``; channels last are N rows of S = 1. It is in C order,
    which kernels ask for: a copy of a transposed x costs less than doing without them.
    """
    shape, x = x.shape, xp.contiguous(x)
    if len(shape) == 2 and axis == 1:
        return xp.reshape(x, (*shape, 1))
    return xp.reshape(x, (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])))


def by_position(xp: Any, mask: Array | None, axis: int) -> Array | None:
    """A mask of the shape that x has without its channels, as (N, S)."""
    if mask is None:
        return None
    shape = mask.shape
    return xp.reshape(mask, (math.prod(shape[:axis]), math.prod(shape[axis:])))


class BatchNorm(Function):
    """x by its own statistics, of each channel along ``axis``; mean and biased variance come along,
    each (C,), unless they are known already and given. ``counts`` says how many values a channel
    each rank of the ``group`` has. Of what a single rank normalises, ``relu`` may be taken too.
    """

    auxiliary = True

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        mask: Array | None = None,
        mean: Array | None = None,
        var: Array | None = None,
        *,
        eps: float,
        axis: int,
        counts: Sequence[int],
        group: Group | None = None,
        relu: bool = False,
    ) -> tuple[Array, Array, Array]:
        xp = self.xp
        self.shape, self.axis, self.group, self.count = x.shape, axis, group, sum(counts)
        x, self.mask = by_channel(xp, x, axis), by_position(xp, mask, axis)
        self.x, self.weight, self.relu = x, weight, relu
        self.bias = bias if relu else None
        if mean is None or var is None or isinstance(x, Variable):  # a replay needs their history
            if group is None:
                y, self.mean, var, self.rstd = whole_batch_norm(
                    self.backend, x, weight, bias, self.mask, eps, relu
                )
                return xp.reshape(y, self.shape), self.mean, var
            mean, var = batch_moments(self.backend, x, self.mask)
        if group is not None:
            parts = gathered(group, xp.stack([mean, var]))
            mean, var = merged_moments(xp, counts, parts[:, 0], parts[:, 1])
        self.mean, self.rstd = mean, 1 / xp.sqrt(var + eps)
        y = batch_normalize(self.backend, x, mean, self.rstd, weight, bias)
        return xp.reshape(y, self.shape), mean, var

    def wrapped(self, source: Any, results: Any, tracked: bool) -> Any:
        """A tensor, and the moments as arrays."""
        y, mean, var = results
        return self.made(y, tracked), mean, var

    def backward(self, dy: Array, /) -> tuple[Array | None, ...]:
        xp, dy = self.xp, by_channel(self.xp, dy, self.axis)
        kept, others = (self.x, self.mean, self.rstd), (None,) * (len(self.needs) - 3)
        if not self.needs[0] and not self.relu:
            dbias, dweight = batch_grad_sums(self.backend, dy, *kept, self.mask)
            return (None, dweight, dbias, *others)
        if self.group is None:
            dx, dbias, dweight = whole_batch_norm_grad(
                self.backend, dy, *kept, self.weight, self.bias, self.mask, self.count, self.relu
            )
        else:
            dbias, dweight = batch_grad_sums(self.backend, dy, *kept, self.mask)
            both = reduced(self.group, xp.stack((dbias, dweight)))
            means = both[0] / max(self.count, 1), both[1] / max(self.count, 1)
            dx = batch_grad_input(self.backend, dy, *kept, self.weight, *means, self.mask)
        return (xp.reshape(dx, self.shape), dweight, dbias, *others)


class FixedBatchNorm(Function):
    """x by given statistics of each channel along ``axis``, such as the running ones."""

    def forward(
        self,
        x: Array,
        mean: Array,
        var: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        eps: float,
        axis: int,
    ) -> Array:
        self.shape, self.axis, x = x.shape, axis, by_channel(self.xp, x, axis)
        mean = wide(self.backend, mean)
        rstd = 1 / self.xp.sqrt(wide(self.backend, var) + eps)
        self.x, self.weight, self.mean, self.rstd = x, weight, mean, rstd
        y = batch_normalize(self.backend, x, mean, rstd, weight, bias)
        return self.xp.reshape(y, self.shape)

    def backward(self, dy: Array, /) -> tuple[Array, None, None, Array | None, Array | None]:
        xp, dy = self.xp, by_channel(self.xp, dy, self.axis)
        zero = xp.zeros_like(self.mean)  # a gradient is scaled as x is, with nothing subtracted
        dx = batch_normalize(self.backend, dy, zero, self.rstd, self.weight, None)
        dbias = dweight = None
        if self.needs[3] or self.needs[4]:
            dbias, dweight = batch_grad_sums(self.backend, dy, self.x, self.mean, self.rstd, None)
        return xp.reshape(dx, self.shape), None, None, dweight, dbias


class Moments:
    """Mean and biased variance of each channel, (C,) each, over ``count`` values; they have no
    gradient.
    """

    __slots__ = ("arrays", "backend", "count")

    def __init__(self, mean: Tensor, var: Tensor, count: int) -> None:
        self.backend, self.arrays, self.count = mean.backend, (mean.array, var.array), count

    @classmethod
    def of(cls, backend: Backend, mean: Array, var: Array, count: int) -> Self:
        """Those in arrays."""
        moments = cls.__new__(cls)
        moments.backend, moments.arrays, moments.count = backend, (mean, var), count
        return moments

    @property
    def mean(self) -> Tensor:
        """The means as a tensor."""
        return self.wrapped(0)

    @property
    def var(self) -> Tensor:
        """The variances as a tensor."""
        return self.wrapped(1)

    def wrapped(self, which: int) -> Tensor:
        tensor: Any = Variable.tensor_class.wrap(self.arrays[which], self.backend)
        return tensor  # type: ignore[no-any-return]

    def factor(self, correction: str) -> float:
        """What makes of the variance the one that running statistics hold."""
        unbiased = correction == "unbiased" and self.count > 1
        return self.count / (self.count - 1) if unbiased else 1.0

    @staticmethod
    def merged(parts: Sequence[Moments]) -> Moments:
        """The moments of all values together."""
        if len(parts) == 1:
            return parts[0]
        counts, backend = [part.count for part in parts], parts[0].backend
        with current(backend):
            means = backend.xp.stack([part.arrays[0] for part in parts])
            variances = backend.xp.stack([part.arrays[1] for part in parts])
            mean, var = merged_moments(backend.xp, counts, means, variances)
        return Moments.of(backend, mean, var, sum(counts))


def moments_of(input: Tensor, mask: Tensor | None, axis: int, count: int) -> Moments:
    """The moments of a batch; what comes in has been checked."""
    backend, kept = input.backend, None if mask is None else mask.array
    with current(backend):
        x, kept = by_channel(backend.xp, input.array, axis), by_position(backend.xp, kept, axis)
        mean, var = batch_moments(backend, x, kept)
    return Moments.of(backend, mean, var, count)


def normalized_by_batch(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None = None,
    *,
    eps: float,
    axis: int,
    counts: Sequence[int],
    group: Group | None = None,
    known: Moments | None = None,
    relu: bool = False,
) -> tuple[Tensor, Moments]:
    """The input by the statistics of the batch, and those; what comes in has been checked.

    Parameters
    ----------
    known : the statistics, where they have been computed already.
    relu : whether to take max(y, 0), where there are neither those nor a group.
    """
    rest: tuple[Tensor | None, ...] = () if mask is None is known else (mask,)
    rest = rest if known is None else (mask, known.mean, known.var)
    y, mean, var = BatchNorm.apply(
        input, weight, bias, *rest, eps=eps, axis=axis, counts=counts, group=group, relu=relu
    )
    return y, Moments.of(input.backend, mean, var, sum(counts))


def move_towards(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    moments: Moments,
    momentum: float | Tensor,
    correction: str = "unbiased",
    count: Tensor | None = None,
) -> None:
    """Move running statistics towards those of a batch, in place, and the ``count`` of batches one
    on; from nothing follows nothing.
    """
    if not moments.count:
        return
    backend, factor = moments.backend, moments.factor(correction)
    rate = momentum.array if isinstance(momentum, Variable) else momentum
    if running_mean is None or running_var is None:
        for running, value, scale in zip(
            (running_mean, running_var), moments.arrays, (1.0, factor), strict=True
        ):
            if running is not None:
                known = running.array
                running.overwrite(on(backend, moving_average, backend, known, value, rate, scale))
        if count is not None:
            count.overwrite(on(backend, one_more, backend, count.array)[0])
        return
    state = (running_mean, running_var) if count is None else (count, running_mean, running_var)
    for x in state:
        if x.requires_grad:
            x.require_outside()
    stamp(state)  # before anything here holds their memory too
    places = [x.array for x in state]
    point: Any = moving_moments if count is None else tracked_moments
    values = on(backend, point, backend, *places, *moments.arrays, rate, factor)
    for place, value in zip(places, values, strict=True):
        if place is not value:  # as where no kernel has written it
            backend.store(place, value)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    *,
    axis: int = 1,
    mask: Tensor | None = None,
    running_var_correction: str = "unbiased",
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β for each channel; by the batch's statistics in training, else
    by the running ones.

    In training the running statistics, where given, move towards the batch's by ``momentum``, in
    place; the variance they see is the unbiased one, or the one that normalises if "biased".

    Shapes
    ------
    input (N, C, *S), or with C at another ``axis``; running_mean, running_var, weight, bias (C,);
    mask as the input without its channels; the result as input.

    Parameters
    ----------
    mask : true where the input counts for the statistics of the batch. What it leaves out is
        normalised by them too, and its gradient is that of this function.

    Raises
    ------
    ShapeError
        For a rank below 2, vectors of another length than C, another mask, or a single value a
        channel in training. A batch of no values gives none, and moves nothing.
    ArgumentError
        If there are neither running statistics nor ``training``, or ε is negative, or 0 in
        training: a channel of equal values would be divided by it.
    GradientError
        If running statistics that are to move require a gradient.

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
    """
    require_floats(input)
    if input.shape == (0,):  # no samples of no channels, which PyTorch takes in this shape too
        return input.clone()
    axis = axis_of_channels(input, axis)
    require_eps(eps, training)
    require_correction(running_var_correction)
    require_channels(
        input,
        input.shape[axis],
        running_mean=running_mean,
        running_var=running_var,
        weight=weight,
        bias=bias,
    )
    require_mask(input, axis, mask)
    if not training:
        return normalized_by_running(
            input, running_mean, running_var, weight, bias, eps=eps, axis=axis
        )
    require_movable(running_mean=running_mean, running_var=running_var)
    count = values_per_channel(input, axis, mask)
    require_several(count, input)
    y, moments = normalized_by_batch(input, weight, bias, mask, eps=eps, axis=axis, counts=(count,))
    if not recomputing.get():
        move_towards(running_mean, running_var, moments, momentum, running_var_correction)
    return y


def normalized_by_running(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    axis: int,
) -> Tensor:
    """The input by running statistics, which must be there.

    Raises
    ------
    ArgumentError
        If they are not.
    """
    if running_mean is None or running_var is None:
        raise ArgumentError("expected running_mean and running_var, or training=True")
    mean, var = as_met(running_mean, running_var)
    return FixedBatchNorm.apply(  # type: ignore[no-any-return]
        input, mean, var, weight, bias, eps=eps, axis=axis
    )


def as_met(*running: Tensor) -> tuple[Tensor, ...]:
    """Running statistics as this forward meets them: copies, where a gradient may need them, since
    the next batch in training overwrites the layer's own.
    """
    if not grad_mode.get():
        return running
    return as_first_seen(lambda: tuple(x.detach().clone() for x in running))
