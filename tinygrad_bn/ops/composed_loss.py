"""Losses and similarities that are short formulas of other operations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.config import at_each_replay
from tinygrad_bn.dtypes import float32
from tinygrad_bn.errors import ArgumentError, RangeError, ShapeError
from tinygrad_bn.ops.activation import require_floats
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.elementwise import broadcastable, clamp, where
from tinygrad_bn.ops.fresh import new_full
from tinygrad_bn.ops.loss import reduce, require_broadcast, require_pair, require_reduction
from tinygrad_bn.ops.promotion import cast, promote, require_tensor
from tinygrad_bn.ops.reduce import sum
from tinygrad_bn.ops.shape import broadcast_tensors
from tinygrad_bn.ops.unary import exp, log, sqrt

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["cosine_similarity"]


@under_autocast
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between x1 and x2 along ``dim``; they broadcast.

    Parameters
    ----------
    eps : the least norm that either counts with, so that the cosine with a zero vector is 0.
    """
    require_floats(x1, "cosine_similarity")
    require_floats(x2, "cosine_similarity")
    a, b = broadcast_tensors(*promote(x1, x2))
    dtype = a.dtype
    if dtype.itemsize == 2:
        a, b = cast(a, float32), cast(b, float32)
    norm_a, norm_b = (sqrt(clamp(sum(x * x, dim), min=eps * eps)) for x in (a, b))
    return cast(sum(a * b, dim) / (norm_a * norm_b), dtype)  # type: ignore[no-any-return]


@under_autocast
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1.

    Shapes
    ------
    input1, input2: (N, D) or (D,); target: (N,) or ().
    """
    require_reduction(reduction)
    require_pair(input1, input2, "cosine_embedding_loss")
    require_tensor(target, "the target")
    if input1.ndim not in (1, 2) or target.shape != input1.shape[:-1]:
        raise ShapeError(
            f"expected inputs (N, D) and a target (N,), got {input1.shape} and {target.shape}"
        )
    cosine = cosine_similarity(input1, input2, -1)
    apart = where(target == -1, clamp(cosine - margin, min=0), 0.0)
    return reduce(where(target == 1, 1 - cosine, apart), reduction)


@under_autocast
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "mean"
) -> Tensor:
    """A distance where the target is 1, max(0, margin - distance) where it is -1.

    Their sum where it is neither, as in PyTorch.
    """
    require_reduction(reduction)
    require_floats(input, "hinge_embedding_loss")
    require_tensor(target, "the target")
    if target.shape != input.shape:
        raise ShapeError(f"expected a target {input.shape}, as the input, got {target.shape}")
    apart = where(target != 1, clamp(margin - input, min=0), 0.0)
    return reduce(where(target != -1, input, 0.0) + apart, reduction)


@under_autocast
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (input1 - input2)): 1 wants input1 the greater, -1 input2."""
    require_reduction(reduction)
    require_pair(input1, input2, "margin_ranking_loss")
    require_tensor(target, "the target")
    broadcastable(target, input1)
    return reduce(clamp(margin - target * (input1 - input2), min=0), reduction)


@under_autocast
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """-log of the Poisson probability of the count ``target``, up to log(target!).

    Parameters
    ----------
    input : the expected count, or (``log_input``) its logarithm.
    full : add Stirling's approximation of log(target!), where the target is above 1.
    eps : added to the expected count before its logarithm is taken.
    """
    require_reduction(reduction)
    require_pair(input, target, "poisson_nll_loss")
    losses = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        count = where(target > 1, target, 1.0)
        stirling = count * log(count) - count + 0.5 * log(2 * math.pi * count)
        losses = losses + where(target > 1, stirling, 0.0)
    return reduce(losses, reduction)


def variances(var: Tensor | float, input: Tensor) -> Tensor:
    """What is given as variances, checked, as a tensor that broadcasts to the input."""
    if not isinstance(var, Variable):
        var = new_full(input, input.shape, var)
    require_floats(var, "the variance")
    if var.ndim == input.ndim - 1 and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    if var.ndim != input.ndim or any(
        m not in (1, n) for m, n in zip(var.shape, input.shape, strict=True)
    ):
        raise ShapeError(
            f"expected a variance {input.shape}, or {input.shape[:-1]}, or with axes of size 1, "
            f"got {var.shape}"
        )
    if not var.is_cuda:
        at_each_replay(refuse_negative, var.backend, var.array)
    return var


def refuse_negative(backend: Backend, var: Array) -> None:
    if bool(backend.xp.any(var < 0)):
        raise RangeError("expected variances ≥ 0, got negative ones")


@under_autocast
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """-log of the target's normal density of mean ``input`` and variance ``var``, up to log √(2π).

    Parameters
    ----------
    target : broadcasts to the input.
    var : held at ``eps`` from below; gradients take no notice of that.
    full : add log √(2π).

    Shapes
    ------
    input: (*, D); var: that, with some axes of size 1, or (*), one for each row.
    """
    require_reduction(reduction)
    require_floats(input, "gaussian_nll_loss")
    require_tensor(target, "the target")
    require_floats(target, "the target of gaussian_nll_loss")
    require_broadcast(target, input, "target")
    if not eps > 0:
        raise ArgumentError(f"expected eps > 0, got {eps}")
    var = variances(var, input)
    held = var.detach()
    var = var + (clamp(held, min=eps) - held)
    losses = 0.5 * (log(var) + (input - target) ** 2 / var)
    return reduce(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)
