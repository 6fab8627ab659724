"""What reparametrized weights have in common: parts of the module from which they are computed.

Such a weight is no part of its module any more, but an attribute that is computed from other parts
whenever it is read: it is never out of date after a step of an optimizer, a load or a cast, nothing
has to be left out of copies and pickles, and no graph outlives its step. What somebody writes into
it in place is lost, as what is written into any result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tinygrad_bn import config
from tinygrad_bn.errors import ArgumentError, DtypeError, ModuleError, ShapeError
from tinygrad_bn.nn.module import Module
from tinygrad_bn.tensors import Parameter, Tensor


class Reparametrization:
    """How a module's weight ``name`` is computed from parts called ``name_suffix``."""

    function: ClassVar[str]
    """The function that applies it, for messages."""
    suffixes: ClassVar[tuple[str, ...]]
    """What the parts are called."""
    others: ClassVar[Mapping[str, str]]
    """What others call them in state dicts, with the weight's name in the place of {}."""
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Those that weight decay is not for."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def synonyms(self) -> Mapping[str, str]:
        """Keys that others have for the parts, and the parts."""
        return {
            key.format(self.name): f"{self.name}_{suffix}" for key, suffix in self.others.items()
        }

    @property
    def spared(self) -> tuple[str, ...]:
        """The parts that weight decay is not for."""
        return tuple(f"{self.name}_{suffix}" for suffix in self.undecayed)

    def __call__(self, module: Module) -> Tensor:
        """The weight, from the module's parts."""
        raise NotImplementedError(f"{type(self).__name__} computes no weight")

    def part(self, module: Module, suffix: str) -> Tensor:
        """One of the parts."""
        return getattr(module, f"{self.name}_{suffix}")  # type: ignore[no-any-return]

    def install(self, module: Module, *parts: Tensor) -> None:
        """Put the parts, Parameters and Buffers, in the place of the weight."""
        delattr(module, self.name)
        for suffix, part in zip(self.suffixes, parts, strict=True):
            setattr(module, f"{self.name}_{suffix}", part)
        module._set("_derived", {**module._derived, self.name: self})

    def remove(self, module: Module) -> None:
        """Put the weight, as it is now, in the place of the parts."""
        with config.no_grad():
            value = self(module).clone()
        trained = any(self.part(module, suffix).requires_grad for suffix in self.suffixes)
        for suffix in self.suffixes:
            delattr(module, f"{self.name}_{suffix}")
        rest = {name: derived for name, derived in module._derived.items() if name != self.name}
        module._set("_derived", rest)
        setattr(module, self.name, Parameter(value, requires_grad=trained))


def weight_to_replace(module: Module, name: str, kind: type[Reparametrization]) -> Parameter:
    """The parameter that a reparametrization is to replace.

    Raises
    ------
    DtypeError, ModuleError
        If there is no such parameter.
    ArgumentError
        If the name is reparametrized already or a class attribute, or the parts' names are taken.
    """
    if not isinstance(module, Module):
        raise DtypeError(f"expected a module to apply {kind.function} to, got {module!r}")
    if name in module._derived:
        known = getattr(module._derived[name], "function", "another function")
        raise ArgumentError(f"expected {name!r} as it was made, got one under {known} already")
    weight = dict(module.named_parameters(recurse=False, remove_duplicate=False)).get(name)
    if weight is None:
        raise ModuleError(
            f"expected a parameter of {type(module).__name__} itself to apply {kind.function} to, "
            f"got {name!r}"
        )
    for taken in (f"{name}_{suffix}" for suffix in kind.suffixes):
        if hasattr(module, taken):
            raise ArgumentError(f"expected the name {taken} to be free, got it taken")
    if hasattr(type(module), name):
        raise ArgumentError(f"expected {name!r} to be no attribute of the class, which hides it")
    return weight


def remove(module: Module, name: str, kind: type[Reparametrization]) -> None:
    """Take a reparametrization away, and leave the weight as it is.

    Raises
    ------
    DtypeError
        If it is no module.
    ArgumentError
        If there is no such reparametrization of that name.
    """
    if not isinstance(module, Module):
        raise DtypeError(f"expected a module to remove {kind.function} from, got {module!r}")
    found = module._derived.get(name)
    if not isinstance(found, kind):
        raise ArgumentError(f"expected {kind.function} on {name!r}, got none")
    found.remove(module)


def axis_of(weight: Tensor, dim: int) -> int:
    """The axis as a number from 0.

    Raises
    ------
    ShapeError
        If the weight has no such axis.
    """
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise DtypeError(f"expected a whole number as dim, got {dim!r}")
    if not -weight.ndim <= dim < weight.ndim:
        raise ShapeError(f"expected an axis {dim} in the weight, got {weight.shape}")
    return dim % weight.ndim


def as_matrix(weight: Tensor, axis: int) -> Tensor:
    """The weight as (n, K): what stands at each of the n places along an axis is a row."""
    return (weight.movedim(axis, 0) if axis else weight).reshape(weight.shape[axis], -1)
