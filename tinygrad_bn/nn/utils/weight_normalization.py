"""Weights as a length times a direction."""

from __future__ import annotations

from typing import TypeVar

from tinygrad_bn import config
from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.utils.reparametrization import (
    Reparametrization,
    axis_of,
    remove,
    weight_to_replace,
)
from tinygrad_bn.ops.elementwise import where
from tinygrad_bn.ops.precision import at_least_float32
from tinygrad_bn.ops.statistics import vector_norm
from tinygrad_bn.tensors import Parameter, Tensor

M = TypeVar("M", bound=Module)


class WeightNorm(Reparametrization):
    """g v / ‖v‖ with a norm at each place along one axis, or one for all."""

    function, suffixes, undecayed = "weight_norm", ("g", "v"), ("g",)
    others = {
        "parametrizations.{}.original0": "g",
        "parametrizations.{}.original1": "v",
    }

    def __init__(self, name: str, axis: int | None) -> None:
        super().__init__(name)
        self.axis = axis

    def __call__(self, module: Module) -> Tensor:
        g, v = self.part(module, "g"), self.part(module, "v")
        wide = at_least_float32(v)
        norm = self.norm(wide)
        return (wide * (g / where(norm == 0, 1.0, norm))).to(v.dtype)

    def norm(self, v: Tensor) -> Tensor:
        """‖v‖ in the shape of g."""
        if self.axis is None:
            return vector_norm(v)
        others = tuple(i for i in range(v.ndim + 1) if i != self.axis)
        return vector_norm(v.unsqueeze(-1), 2, others, keepdim=True).squeeze(-1)


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Learn a module's weight as a length and a direction.

        w = g v / ‖v‖

    The parameters ``weight_g`` and ``weight_v`` take the place of ``weight``, which is computed
    from them whenever it is read; what is written into it in place is lost.

    Parameters
    ----------
    name : the parameter's name.
    dim : the axis of the outputs, each of which has a length of its own; None, or -1 as in PyTorch,
        for one length of the whole weight.

    Returns
    -------
    The module.

    Shapes
    ------
    ``weight_v`` as the weight; ``weight_g`` as the weight with 1 for all other axes than ``dim``,
    or () for one length.

    Raises
    ------
    ModuleError
        If the module itself has no such parameter.
    ArgumentError
        If the name is reparametrized already.
    ShapeError
        If the weight has no such axis.

    Notes
    -----
    It speeds up training by making the problem better conditioned, without statistics of batches:
    prefer it to batch norm for recurrent networks, generative models and reinforcement learning;
    and begin with `init_weight_norm`. Norms are accumulated in float64, and gradients are exact to
    every order; second ones of PyTorch 2.13 take the norm for a constant.

    The keys are those of PyTorch's ``torch.nn.utils.weight_norm``; state dicts of its
    ``parametrizations.weight_norm`` load too. An optimizer made before holds the old weight, which
    no longer has a gradient: make it afterwards.

    A vector v of zeros counts as one of norm 1: its weight is 0, its gradient g dy, and nothing is
    NaN, as it is in PyTorch. A weight that is zero to begin with gets g = 0 and ones for v, so that
    it can be learned.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868, equations 2 and 3.
    """
    weight = weight_to_replace(module, name, WeightNorm)
    norm = WeightNorm(name, None if dim is None or dim == -1 else axis_of(weight, dim))
    with config.no_grad():
        g = norm.norm(at_least_float32(weight)).to(weight.dtype)
        v = where(g == 0, 1.0, weight)
    trained = weight.requires_grad
    norm.install(module, Parameter(g, requires_grad=trained), Parameter(v, requires_grad=trained))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make a weight under `weight_norm` a parameter again, a new one of its value.

    Raises
    ------
    ArgumentError
        If it is not under `weight_norm`.
    """
    remove(module, name, WeightNorm)
    return module
