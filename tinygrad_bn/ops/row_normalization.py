"""Layer, RMS, group and instance normalization as operations: the phases of ``row_moments.py`` with
shapes and gradients around them.

They differ in what makes a row. ε is any number here, as in PyTorch: where var + ε is not positive,
the row comes out as NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.backend import Array
from tinygrad_bn.config import recomputing
from tinygrad_bn.dtypes import finfo, float32
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.batch_normalization import Moments, move_towards, normalized_by_running
from tinygrad_bn.ops.norm_arguments import (
    axis_of_channels,
    require_channels,
    require_correction,
    require_floats,
    require_movable,
)
from tinygrad_bn.ops.row_moments import row_grad_input, row_grad_sums
from tinygrad_bn.ops.shape import as_shape
from tinygrad_bn.ops.whole_norms import whole_rms_norm, whole_row_norm, whole_row_norm_grad

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
]


class RowNorm(Function):
    """x, seen as ``rows`` (N, G, K, S), by the statistics of each row; γ and β hold G·K numbers in
    any shape. Where it is not ``centred`` it is divided by the root of its mean square only.
    """

    mean: Array | None
    var: Array

    def forward(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        *,
        rows: tuple[int, int, int, int],
        eps: float,
        centred: bool = True,
    ) -> Array:
        xp = self.xp
        self.shape, self.rows = x.shape, rows
        self.affine_shapes = [None if v is None else v.shape for v in (weight, bias)]
        x = xp.reshape(xp.contiguous(x), rows)  # C order is what kernels ask for
        weight, bias = (None if v is None else xp.reshape(v, rows[1:3]) for v in (weight, bias))
        self.x, self.weight = x, weight
        if centred:
            y, self.mean, self.var, self.rstd = whole_row_norm(self.backend, x, weight, bias, eps)
        else:
            self.mean = None
            y, self.var, self.rstd = whole_rms_norm(self.backend, x, weight, bias, eps)
        return xp.reshape(y, self.shape)

    def backward(self, dy: Array, /) -> tuple[Array | None, Array | None, Array | None]:
        xp, dy = self.xp, self.xp.reshape(self.xp.contiguous(dy), self.rows)
        kept = (self.x, self.mean, self.rstd)
        dx = dweight = dbias = None
        if not (self.needs[1] or self.needs[2]):
            dx = row_grad_input(self.backend, dy, *kept, self.weight)
        elif self.needs[0]:
            dx, dbias, dweight = whole_row_norm_grad(self.backend, dy, *kept, self.weight)
        else:
            dbias, dweight = row_grad_sums(self.backend, dy, *kept)
        weight_shape, bias_shape = self.affine_shapes
        return (
            None if dx is None else xp.reshape(dx, self.shape),
            None if weight_shape is None or dweight is None else xp.reshape(dweight, weight_shape),
            None if bias_shape is None or dbias is None else xp.reshape(dbias, bias_shape),
        )


class RowNormMoments(RowNorm):
    """The same; mean and biased variance of each row come along, (N, G) each."""

    auxiliary = True

    def forward(self, x: Array, weight: Array | None, bias: Array | None, **options: Any) -> Any:
        return super().forward(x, weight, bias, **options), self.mean, self.var


@under_autocast
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β over the trailing axes, for each sample by itself.

    Shapes
    ------
    input (*, *normalized_shape); weight, bias normalized_shape; the result as input.

    Raises
    ------
    ShapeError
        If the input does not end in ``normalized_shape``, or weight or bias do not have it.
    DtypeError
        If one of them is not of floats.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 4.
    """
    rows = trailing_rows(input, normalized_shape, weight=weight, bias=bias)
    return RowNorm.apply(input, weight, bias, rows=rows, eps=eps)  # type: ignore[no-any-return]


@under_autocast
def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """γ x / √(mean(x²) + ε) over the trailing axes, for each sample by itself.

    Shapes
    ------
    input (*, *normalized_shape); weight normalized_shape; the result as input.

    Parameters
    ----------
    eps : ε; by default what 1 differs by from the next number, in float64 for an input of float64
        and in float32 for all others, those of 16 bits too.

    Raises
    ------
    ShapeError
        If the input does not end in ``normalized_shape``, or the weight does not have it.
    DtypeError
        If one of them is not of floats.

    References
    ----------
    Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """
    rows = trailing_rows(input, normalized_shape, weight=weight)
    if eps is None:
        eps = float(finfo(input.dtype if input.element_size() > 4 else float32).eps)
    return RowNorm.apply(input, weight, None, rows=rows, eps=eps, centred=False)  # type: ignore[no-any-return]


def trailing_rows(
    input: Tensor, normalized_shape: Sequence[int] | int, **affine: Tensor | None
) -> tuple[int, int, int, int]:
    """The rows (N, G, K, S) of the trailing axes, each of whose elements is a channel.

    Raises
    ------
    ShapeError, DtypeError
        If the input does not end in ``normalized_shape``, or γ or β do not fit it.
    """
    require_floats(input)
    shape = as_shape((normalized_shape,))
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"expected (*, {', '.join(map(str, shape))}) with at least one axis, got {input.shape}"
        )
    for name, x in affine.items():
        if x is not None:
            require_floats(x, name)
            if x.shape != shape:
                raise ShapeError(f"expected {name} of shape {shape}, got {x.shape}")
    return math.prod(input.shape[: -len(shape)]), 1, math.prod(shape), 1


@under_autocast
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β over each group of successive channels and all positions, for
    each sample by itself.

    A group of a single value gives exactly β; PyTorch refuses one in a batch of one sample.

    Shapes
    ------
    input (N, C, *S); weight, bias (C,); the result as input.

    Raises
    ------
    ShapeError
        For a rank below 2, channels that ``num_groups`` does not divide, or a weight or bias of
        another length than C.
    ArgumentError
        If there is not at least one group.
    DtypeError
        If one of them is not of floats.

    References
    ----------
    Wu and He 2018, arXiv:1803.08494, equations 1 to 7.
    """
    n, channels, positions = channels_first(input, weight=weight, bias=bias)
    require_groups(num_groups, channels)
    rows = (n, num_groups, channels // num_groups, positions)
    return RowNorm.apply(input, weight, bias, rows=rows, eps=eps)  # type: ignore[no-any-return]


def channels_first(input: Tensor, **vectors: Tensor | None) -> tuple[int, int, int]:
    """The input (N, C, *S) as (N, C, S) samples, channels and positions.

    Raises
    ------
    ShapeError, DtypeError, BackendError
        For a rank below 2, or ``vectors`` that do not have a float for each channel.
    """
    require_floats(input)
    axis_of_channels(input, 1)
    n, channels, *space = input.shape
    require_channels(input, channels, **vectors)
    return n, channels, math.prod(space)


def require_groups(num_groups: int, channels: int) -> None:
    """Refuse fewer than one group, and channels that do not make groups of equal size.

    Raises
    ------
    ArgumentError, ShapeError
    """
    if num_groups < 1:
        raise ArgumentError(f"expected num_groups ≥ 1, got {num_groups}")
    if channels % num_groups:
        raise ShapeError(f"expected channels that {num_groups} groups divide, got {channels}")


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    *,
    running_var_correction: str = "unbiased",
) -> Tensor:
    """γ (x - mean) / √(var + ε) + β over the positions of each channel of each sample; by running
    statistics where ``use_input_stats`` is false.

    Else the running statistics, where given, move by ``momentum`` towards the mean over the samples
    of their means and of their unbiased variances (or of those that normalise, if "biased"), in
    place; an input without elements leaves them as they are.

    Shapes
    ------
    input (N, C, *S); running_mean, running_var, weight, bias (C,); the result as input.

    Raises
    ------
    ShapeError
        For a rank below 2, vectors of another length than C, or a single position to take
        statistics of.
    ArgumentError
        If there are neither running statistics nor ``use_input_stats``.
    GradientError
        If running statistics that are to move require a gradient.
    DtypeError
        If one of them is not of floats.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022, equation 3.
    """
    vectors = {"running_mean": running_mean, "running_var": running_var}
    n, channels, positions = channels_first(input, weight=weight, bias=bias, **vectors)
    require_correction(running_var_correction)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ArgumentError("expected running_mean and running_var, or use_input_stats=True")
        return normalized_by_running(
            input, running_mean, running_var, weight, bias, eps=eps, axis=1
        )
    if positions == 1 and n:
        raise ShapeError(
            f"expected more than one position in each channel of a sample, got {input.shape}: the "
            "statistics of a single value are its own"
        )
    require_movable(running_mean=running_mean, running_var=running_var)
    y, mean, var = RowNormMoments.apply(
        input, weight, bias, rows=(n, channels, 1, positions), eps=eps
    )
    if n and positions and not recomputing.get():
        moments = Moments(mean.mean(0), var.mean(0), positions)
        move_towards(running_mean, running_var, moments, momentum, running_var_correction)
    return y  # type: ignore[no-any-return]
