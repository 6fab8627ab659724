"""Which parameters weight decay is for."""

from __future__ import annotations

from tinygrad_bn.nn.module import Module
from tinygrad_bn.nn.normalization import Normalization
from tinygrad_bn.optim.optimizer import Group
from tinygrad_bn.tensors import Parameter


def param_groups(model: Module, weight_decay: float = 1e-2) -> list[Group]:
    """The parameters of a model in two groups: those that decay, and those to be spared.

    Spared are the parameters of normalization modules, whatever their shape, the lengths of weights
    under `nn.utils.weight_norm`, and all vectors and scalars: biases and scales, which decay would
    pull away from what they are for.

    Returns
    -------
    Groups for an optimizer, without the empty ones: ``AdamW(param_groups(model, 0.1), lr=1e-3)``.
    """
    decaying: dict[Parameter, None] = {}
    spared: dict[Parameter, None] = {}
    for module in model.modules():
        lengths = {name for derived in module._derived.values() for name in derived.spared}
        for name, p in module.named_parameters(recurse=False):
            if isinstance(module, Normalization) or p.ndim < 2 or name in lengths:
                spared[p] = None
            else:
                decaying[p] = None
    groups: list[Group] = [
        {"params": [p for p in decaying if p not in spared], "weight_decay": weight_decay},
        {"params": list(spared), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
