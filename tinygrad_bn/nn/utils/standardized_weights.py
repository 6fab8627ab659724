"""Weights with mean 0 and variance 1 for each output."""

from __future__ import annotations

import math
from typing import TypeVar

from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.utils.reparametrization import (
    Reparametrization,
    as_matrix,
    axis_of,
    remove,
    weight_to_replace,
)
from tinygrad_bn.ops.row_normalization import RowNorm
from tinygrad_bn.tensors import Tensor

M = TypeVar("M", bound=Module)


class WeightStandardization(Reparametrization):
    """(w - mean) / √(var + ε) over what leads to each output, times a number."""

    function, suffixes = "weight_standardization", ("orig",)
    others = {"parametrizations.{}.original": "orig", "{}": "orig"}

    def __init__(self, name: str, axis: int, eps: float, gain: float | None) -> None:
        super().__init__(name)
        self.axis, self.eps, self.gain = axis, eps, gain

    def __call__(self, module: Module) -> Tensor:
        weight = self.part(module, "orig")
        rows = as_matrix(weight, self.axis)
        n, fan_in = rows.shape
        y: Tensor = RowNorm.apply(rows, None, None, rows=(n, 1, fan_in, 1), eps=self.eps)
        if self.gain is not None:
            y = y * (self.gain / math.sqrt(fan_in))
        if not self.axis:
            return y.reshape(weight.shape)
        moved = weight.movedim(self.axis, 0).shape
        return y.reshape(moved).movedim(0, self.axis)


def weight_standardization(
    module: M, name: str = "weight", dim: int = 0, eps: float = 1e-5, gain: float | None = None
) -> M:
    """Give the weights that lead to each output mean 0 and variance 1.

        ŵ = (w - mean) / √(var + ε)

    with the mean and the biased variance of the K weights of one output. The parameter ``weight``
    is called ``weight_orig`` from now on, and is the same object, so that an optimizer goes on with
    it; ``weight`` is computed from it whenever it is read.

    Parameters
    ----------
    name : the parameter's name.
    dim : the axis of the outputs.
    eps : ε, added to the variance.
    gain : γ of *scaled* weight standardization, ŵ γ / √K, which keeps the variance of activations
        where no norm follows: 1 for a linear layer, √(2 / (1 - 1/π)) after ReLU. None does not
        scale.

    Returns
    -------
    The module.

    Raises
    ------
    ModuleError
        If the module itself has no such parameter.
    ArgumentError
        If the name is reparametrized already, or ε is not positive.
    ShapeError
        If the weight has no such axis, or less than two elements for each place along it.

    Notes
    -----
    Made for convolutions followed by group norm, where it makes up for what batch norm would have
    done with batches of one or two images. With a gain it replaces norms altogether. Weights that
    are all alike become exactly 0. The statistics are accumulated in float64.

    State dicts of networks whose layers standardise a plain ``weight`` load too, and so do those of
    PyTorch's parametrizations, with the key ``parametrizations.weight.original``.

    References
    ----------
    Qiao, Wang, Liu, Shen and Yuille 2019, arXiv:1903.10520.
    Brock, De and Smith 2021, arXiv:2101.08692, for the gain.
    """
    weight = weight_to_replace(module, name, WeightStandardization)
    axis = axis_of(weight, dim)
    if not eps > 0:
        raise ArgumentError(f"expected eps > 0, got {eps}")
    if weight.numel() < 2 * max(weight.shape[axis], 1):
        raise ShapeError(f"expected two weights or more for each output, got {weight.shape}")
    WeightStandardization(name, axis, eps, gain).install(module, weight)
    return module


def remove_weight_standardization(module: M, name: str = "weight") -> M:
    """Make a weight under `weight_standardization` a parameter again, a new one of its value.

    Raises
    ------
    ArgumentError
        If it is not under `weight_standardization`.
    """
    remove(module, name, WeightStandardization)
    return module
