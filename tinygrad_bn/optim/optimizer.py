"""What every optimizer has: parameter groups with their options, and a state that can be saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import stamp as stamp
from tinygrad_bn.errors import ArgumentError, DtypeError, StateError
from tinygrad_bn.tensors import Tensor

Group: TypeAlias = dict[str, Any]
Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Group]
"""Parameters, (name, parameter) pairs, or dicts with ``"params"`` and the options of one group."""

ELSEWHERE = ("foreach", "fused", "capturable", "differentiable")
"""Options in PyTorch's state dicts that choose among its implementations; here there is one."""


class Optimizer:
    """Changes parameters so that a loss falls; the base class of all optimizers.

    A subclass writes ``step`` and keeps what it needs between steps in ``state[parameter]``, as in
    PyTorch; or it derives from `FlatOptimizer`, which updates many parameters at once.

    Parameters
    ----------
    params : the parameters, (name, parameter) pairs, or dicts of a group's ``"params"`` and its
        own options.
    defaults : the options of groups that do not name them.

    Raises
    ------
    ArgumentError
        For no parameters, one that is given twice, or one that an operation made.
    DtypeError
        For what is not a tensor.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise DtypeError("expected an iterable of tensors or of dicts, got a single tensor")
        if not isinstance(params, Iterable):
            raise DtypeError(
                f"expected an iterable of tensors or of dicts, got {type(params).__name__}"
            )
        given: list[Any] = list(params)
        if not given:
            raise ArgumentError("expected at least one parameter, got an empty list")
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @property
    def state(self) -> MutableMapping[Any, Any]:
        """What is kept between steps, by parameter."""
        return self._state

    def add_param_group(self, param_group: Group) -> None:
        """Optimize some more parameters, with their own options.

        Raises
        ------
        ArgumentError, DtypeError
            As when the optimizer is made.
        """
        if not isinstance(param_group, dict):
            raise DtypeError(f"expected a dict as a group, got {type(param_group).__name__}")
        if "params" not in param_group:
            raise ArgumentError(f"expected a group with 'params', got {sorted(param_group)}")
        group = {**param_group, **split_names(param_group["params"])}
        known = {id(p) for other in self.param_groups for p in other["params"]}
        require_leaves(group["params"], known)
        if self.param_groups and ("param_names" in group) != (
            "param_names" in self.param_groups[0]
        ):
            raise ArgumentError("expected names for the parameters of all groups, or of none")
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: Group) -> None:
        """Refuse options that mean nothing; a subclass knows which."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; or, with ``set_to_none=False``, make them zero."""
        for p in self._parameters():
            if set_to_none or p._grad is None:
                p._grad = None
            elif p._grad.requires_grad:  # its values may belong to a graph
                p._grad = p.wrap_like(p.backend.xp.zeros_like(p._grad.array))
            else:
                p._grad.overwrite(p.backend.asarray(0, p._grad.array.dtype))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters once, by their gradients.

        Parameters
        ----------
        closure : computes the loss, and the gradients, once more; its result is returned.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def state_dict(self) -> dict[str, Any]:
        """The state and the options, with parameters as their numbers, laid out as PyTorch's.

        The tensors are the living ones, which later steps change: save or ``copy.deepcopy`` them
        to keep them.
        """
        numbers = {p: number for number, p in enumerate(self._parameters())}
        groups = [
            {
                **{name: value for name, value in group.items() if name != "params"},
                "params": [numbers[p] for p in group["params"]],
            }
            for group in self.param_groups
        ]
        state = {numbers.get(p, p): dict(entry) for p, entry in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the state of an optimizer over such parameters, PyTorch's or this library's.

        Raises
        ------
        StateError
            If the state dict fits other groups or other parameters; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise StateError(f"expected a state dict, got {type(state_dict).__name__}")
        if not {"state", "param_groups"} <= set(state_dict):
            raise StateError(
                f"expected the keys 'state' and 'param_groups', got {sorted(state_dict)}"
            )
        saved = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != [len(group["params"]) for group in saved]:
            raise StateError(
                f"expected groups of {sizes} parameters, got {[len(g['params']) for g in saved]}"
            )
        numbers = chain.from_iterable(group["params"] for group in saved)
        owners: dict[Any, Tensor] = dict(zip(numbers, self._parameters(), strict=True))
        state = state_dict["state"]
        if strangers := [number for number in state if number not in owners]:
            raise StateError(
                f"expected the state of parameters {list(owners)}, got {strangers} too"
            )
        self._restore({owners[number]: dict(entry) for number, entry in state.items()})
        for group, loaded in zip(self.param_groups, saved, strict=True):
            kept = {k: v for k, v in loaded.items() if k != "params" and k not in ELSEWHERE}
            group.update(deepcopy(kept))

    def _restore(self, state: dict[Tensor, dict[str, Any]]) -> None:
        self._state = defaultdict(dict, {p: owned(p, entry) for p, entry in state.items()})

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


def split_names(params: Any) -> Group:
    """The parameters of a group as a list, and apart from them their names, if they have any."""
    if isinstance(params, (set, frozenset)):
        raise DtypeError("expected the parameters in an order that stays, got a set; use a list")
    listed = [params] if isinstance(params, Tensor) else list(params)
    named = [isinstance(p, tuple) for p in listed]
    if not any(named):
        return {"params": listed}
    if not all(named):
        raise ArgumentError("expected names for all parameters of a group, or for none")
    return {"params": [p for _, p in listed], "param_names": [name for name, _ in listed]}


def require_leaves(params: list[Any], known: set[int]) -> None:
    """Refuse what cannot be optimized, and what is in ``known`` or comes twice."""
    seen = set(known)
    for p in params:
        if not isinstance(p, Tensor):
            raise DtypeError(f"expected tensors to optimize, got {type(p).__name__}")
        if p.creator is not None:
            raise ArgumentError("expected leaves to optimize, got the result of an operation")
        if id(p) in seen:
            raise ArgumentError("expected each parameter once, got one of them again")
        seen.add(id(p))


def refuse_shared_memory(params: Sequence[Tensor]) -> None:
    """Refuse two parameters in the same memory, which laying them out would part.

    Raises
    ------
    ArgumentError
    """
    owners: dict[int, list[Tensor]] = {}
    for p in params:
        base = getattr(p.array, "base", None)
        neighbours = owners.setdefault(id(p.array if base is None else base), [])
        for q in neighbours:
            if p.backend.overlap(p.array, q.array):
                raise ArgumentError(
                    f"expected parameters in memory of their own, got two of shapes {q.shape} and "
                    f"{p.shape} that overlap; to tie them, use the same Parameter in both places"
                )
        neighbours.append(p)


def require_range(group: Group, name: str, low: float = 0.0, high: float | None = None) -> None:
    """Refuse an option outside of [low, high), or below ``low`` where there is no ``high``."""
    value = group[name]
    for number in value if isinstance(value, (tuple, list)) else (value,):
        if not isinstance(number, (int, float, np.number, Tensor)):
            raise DtypeError(f"expected a number as {name}, got {type(number).__name__}")
        if not (low <= number and (high is None or number < high)):  # NaN is refused too
            wanted = f"≥ {low:g}" if high is None else f"in [{low:g}, {high:g})"
            raise ArgumentError(f"expected {name} {wanted}, got {value}")


def require_betas(group: Group) -> None:
    """Refuse what is not two decay rates in [0, 1)."""
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ArgumentError(f"expected two betas, got {betas}")
    require_range(group, "betas", high=1.0)


def owned(p: Tensor, value: Any) -> Any:
    """A copy of saved state, floats in the dtype and all of it on the device of its parameter."""
    if isinstance(value, dict):
        return {key: x if key == "step" else owned(p, x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(owned(p, x) for x in value)
    if isinstance(value, Tensor):
        return value.detach().to(p.device, p.dtype, copy=True)
    return value


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """The loss that the closure computes, with a graph; None without one."""
    if closure is None:
        return None
    if not callable(closure):
        raise DtypeError(f"expected a function as the closure, got {type(closure).__name__}")
    with config.enable_grad():
        return closure()
