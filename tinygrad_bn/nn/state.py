"""Loading a state dict into a module: everything is checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.errors import DtypeError, StateError
from tinygrad_bn.ops.promotion import category

if TYPE_CHECKING:
    from tinygrad_bn.nn.module import Module


class IncompatibleKeys(NamedTuple):
    """The keys in which a module and the state dict it was given differ."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load(module: Module, state: Mapping[str, Any], strict: bool) -> IncompatibleKeys:
    """Overwrite the module's parameters and buffers, in place, with the values of ``state``."""
    if not isinstance(state, Mapping):
        raise StateError(f"expected a mapping from names to tensors, got {type(state).__name__}")
    targets = module.state_dict()
    state = under_own_names(module, state)
    spare = dispensable(module)
    missing = [key for key in targets if key not in state and key not in spare]
    unexpected = [key for key in state if key not in targets]
    problems = [
        problem
        for key, target in targets.items()
        if key in state and (problem := misfit(target, state[key], key)) is not None
    ]
    if strict and unexpected:
        problems.insert(0, f"unexpected keys: {', '.join(map(repr, unexpected))}")
    if strict and missing:
        problems.insert(0, f"missing keys: {', '.join(map(repr, missing))}")
    if problems:
        name, lines = type(module).__name__, "\n  ".join(problems)
        raise StateError(f"expected a state dict of this {name}; nothing was loaded\n  {lines}")
    with config.no_grad():
        for key, target in targets.items():
            if key in state:
                target.overwrite(native(state[key], target))
    return IncompatibleKeys(missing, unexpected)


def under_own_names(module: Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict with the keys that others have for parts of reparametrized weights, such as
    PyTorch's ``parametrizations``, as those of this module.
    """
    own = {
        f"{path}.{theirs}".lstrip("."): f"{path}.{ours}".lstrip(".")
        for path, part in module.named_modules(remove_duplicate=False)
        for derived in part._derived.values()
        for theirs, ours in derived.synonyms.items()
    }
    if not own:
        return state
    return {own.get(key, key) if own.get(key) not in state else key: state[key] for key in state}


def dispensable(module: Module) -> set[str]:
    """The keys that a state dict of the module may lack."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules(remove_duplicate=False)
        for name in part._dispensable
    }


def misfit(target: Variable, value: Any, key: str) -> str | None:
    """What is wrong with ``value`` as the new values of ``target``; None if nothing is."""
    array = value.array if isinstance(value, Variable) else value
    if not isinstance(value, (Variable, np.ndarray, np.generic)):
        return f"{key!r}: expected a tensor or a NumPy array, got {type(value).__name__}"
    if array.shape != target.array.shape:
        return f"{key!r}: expected shape {target.array.shape}, got {array.shape}"
    try:
        fits = category(array.dtype) <= category(target.array.dtype)
    except DtypeError:
        fits = False
    return None if fits else f"{key!r}: expected {target.array.dtype}, got {array.dtype}"


def native(value: Any, target: Variable) -> Any:
    """The values as an array of the target's backend."""
    if not isinstance(value, Variable):
        return target.backend.asarray(value)
    if value.backend is target.backend:
        return value.array
    return target.backend.asarray(value.backend.to_numpy(value.array))
