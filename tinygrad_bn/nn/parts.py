"""The parts of a module: parameters, buffers and modules, found by their type, under names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tinygrad_bn.errors import DtypeError, ModuleError, StateError
from tinygrad_bn.tensors import Buffer, Parameter, Tensor

if TYPE_CHECKING:
    from tinygrad_bn.nn.module import Module

CHANGES = [0]
"""How often an attribute of any module was set: a compiled step that finds it as it was need not
look at modules.
"""
PARAMETER, BUFFER, TRANSIENT, MODULE = "parameter", "buffer", "transient buffer", "module"


class Derived(Protocol):
    """An attribute that is computed from parts of a module whenever it is read."""

    @property
    def synonyms(self) -> Mapping[str, str]:
        """Keys that the state dicts of others have for the parts that it is computed from."""

    @property
    def spared(self) -> tuple[str, ...]:
        """The parts among those that weight decay is not for."""

    def __call__(self, module: Any) -> Tensor:
        """The value of the attribute."""


class Parts:
    """The attributes of a module that are parts of it; `Module` adds what it does with them."""

    training: bool
    _kinds: dict[str, str]
    """Which attributes are parts, and of what kind, in order; a part may be None."""
    _derived: Mapping[str, Derived] = MappingProxyType({})
    """Attributes that stand for parts from which they are computed: see `nn.utils.weight_norm`."""
    _dispensable: ClassVar[frozenset[str]] = frozenset()
    """Parts that a state dict may lack: loading it leaves them as they are."""

    def __init__(self) -> None:
        self.__dict__["_kinds"] = {}
        self.__dict__["training"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._derived:
            raise StateError(f"expected {name!r} to be computed from other parts, got a value")
        kind = kind_of(value)
        kinds = self.__dict__.get("_kinds")
        if kinds is None:
            if kind is not None:
                raise ModuleError(
                    f"expected {type(self).__name__}.__init__ to call super().__init__() "
                    f"before it assigns the {kind} {name!r}"
                )
        elif kind is not None:
            if kinds.get(name) != kind:
                kinds.pop(name, None)
                kinds[name] = kind
        elif value is not None and name in kinds:
            known, got = kinds[name], type(value).__name__
            if known in (PARAMETER, MODULE) or not isinstance(value, Tensor):
                raise DtypeError(f"expected {name!r} to stay a {known} or become None, got {got}")
        self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        """Set an attribute that need not be looked at."""
        CHANGES[0] += 1
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # only called for what is not there
        if name in self._derived:
            return self._derived[name](self)
        if "_kinds" not in self.__dict__ and name in ("_kinds", "training"):
            raise ModuleError(f"expected {type(self).__name__}.__init__ to call super().__init__()")
        raise ModuleError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if name not in self.__dict__:
            raise ModuleError(f"{type(self).__name__!r} has no attribute {name!r} to delete")
        self._kinds.pop(name, None)
        CHANGES[0] += 1
        object.__delattr__(self, name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make ``param`` a parameter of this module; None declares one that is absent."""
        if not isinstance(param, (Parameter, type(None))):
            raise DtypeError(f"expected a Parameter or None, got {type(param).__name__}")
        self._register(name, param, PARAMETER)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make ``tensor`` a part that is not trained; in the state dict if it is ``persistent``."""
        if not isinstance(tensor, (Tensor, type(None))):
            raise DtypeError(f"expected a tensor or None, got {type(tensor).__name__}")
        self._register(name, tensor, BUFFER if persistent else TRANSIENT)

    def register_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a part of this one; None declares one that is absent."""
        if not isinstance(module, (Parts, type(None))):
            raise DtypeError(f"expected a Module or None, got {type(module).__name__}")
        self._register(name, module, MODULE)

    add_module = register_module

    def _register(self, name: str, value: Any, kind: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise StateError(f"expected a name without dots, not empty, got {name!r}")
        known = self._kinds.get(name, "plain attribute")
        again = known == kind or {known, kind} == {BUFFER, TRANSIENT}
        if hasattr(self, name) and not again:
            raise StateError(f"expected a new name for a {kind}; {name!r} is a {known} already")
        self._kinds.pop(name, None)
        self._kinds[name] = kind
        self._set(name, value)

    def _parts(self, *kinds: str) -> list[tuple[str, Any]]:
        """The names and values of the parts of some kinds that are not None."""
        values = self.__dict__
        return [
            (name, values[name])
            for name, kind in self._kinds.items()
            if kind in kinds and values[name] is not None
        ]

    def _walk(
        self, kinds: tuple[str, ...], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules: Any = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            for name, value in module._parts(*kinds):
                if not remove_duplicate or id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their paths; a shared one once, under its first path."""
        return self._walk((PARAMETER,), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each of them once."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their paths, persistent or not."""
        return self._walk((BUFFER, TRANSIENT), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each of them once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are parts of this one, with their names."""
        seen: set[int] = set()
        for name, module in self._parts(MODULE):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules that are parts of this one."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their paths, each before its parts."""
        memo = set() if memo is None else memo
        if remove_duplicate:
            if self in memo:
                return
            memo.add(self)
        yield prefix, self  # type: ignore[misc]
        for name, module in self._parts(MODULE):
            path = f"{prefix}.{name}" if prefix else name
            yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each of them once."""
        return (module for _, module in self.named_modules())

    def _get(self, target: str, kind: type, noun: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        value = module.__dict__.get(name) if name in module._kinds else None
        if not isinstance(value, kind):
            raise ModuleError(f"{type(module).__name__!r} has no {noun} {name!r}")
        return value

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as ``"encoder.0"``; the empty path is this one."""
        module: Any = self
        for name in target.split(".") if target else ():
            module = module._get(name, Parts, MODULE)
        return module  # type: ignore[no-any-return]

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as ``"encoder.0.weight"``."""
        return self._get(target, Parameter, PARAMETER)  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as ``"encoder.1.running_mean"``."""
        return self._get(target, Tensor, BUFFER)  # type: ignore[no-any-return]


def kind_of(value: object) -> str | None:
    """The kind of part that an assigned value is; None for a plain attribute."""
    if isinstance(value, Parameter):
        return PARAMETER
    if isinstance(value, Parts):
        return MODULE
    if isinstance(value, Buffer):
        return BUFFER if value.persistent else TRANSIENT
    return None
