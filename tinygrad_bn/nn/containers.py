"""Modules and parameters in sequences and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import pairwise
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

from tinygrad_bn.errors import DtypeError, RangeError, StateError
from tinygrad_bn.nn.module import Joint, Module, hunting
from tinygrad_bn.nn.parts import MODULE, PARAMETER
from tinygrad_bn.tensors import Parameter, Tensor

Part = TypeVar("Part", Module, Parameter)


def as_module(value: Any) -> Module:
    """The value, if it is a module."""
    if not isinstance(value, Module):
        raise DtypeError(f"expected a Module, got {type(value).__name__}")
    return value


def as_parameter(value: Any) -> Parameter:
    """The value, if it is a parameter, or one in the memory of a tensor."""
    if not isinstance(value, Tensor):
        raise DtypeError(f"expected a Parameter or a tensor, got {type(value).__name__}")
    return value if isinstance(value, Parameter) else Parameter(value)


class PartSequence(Module, Generic[Part]):
    """What sequences of modules and of parameters share: parts are named by their positions."""

    _kind: ClassVar[str] = MODULE
    _check: ClassVar[Callable[..., Any]] = staticmethod(as_module)

    def _all(self) -> list[Part]:
        return [part for _, part in self._parts(self._kind)]

    def _replace(self, named: Iterable[tuple[str, Part]]) -> Self:
        """Let these be the parts, those named by a position anew."""
        new = [(name, self._check(part)) for name, part in named]
        for name, _ in self._parts(self._kind):
            delattr(self, name)
        for position, (name, part) in enumerate(new):
            self._register(str(position) if name.isdigit() else name, part, self._kind)
        return self

    def _position(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise RangeError(f"expected an index from {-count} to {count - 1}, got {index}")
        return index % count

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Part]:
        return iter(self._all())

    def __contains__(self, part: object) -> bool:
        return any(part is other for other in self)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Part | Self:
        if not isinstance(index, slice):
            return self._all()[self._position(index)]
        few = type(self).__new__(type(self))
        Module.__init__(few)
        few.training = self.training
        return few._replace(self._parts(self._kind)[index])

    def __setitem__(self, index: int, part: Part) -> None:
        name = self._parts(self._kind)[self._position(index)][0]
        setattr(self, name, self._check(part))

    def __delitem__(self, index: int | slice) -> None:
        named = self._parts(self._kind)
        del named[index if isinstance(index, slice) else self._position(index)]
        self._replace(named)

    def append(self, part: Part) -> Self:
        """Add a part at the end."""
        return self.extend([part])

    def extend(self, parts: Iterable[Part]) -> Self:
        """Add parts at the end."""
        new = [self._check(part) for part in parts]
        for position, part in enumerate(new, len(self)):
            self._register(str(position), part, self._kind)
        return self

    def __iadd__(self, parts: Iterable[Part]) -> Self:
        return self.extend(parts)

    def __add__(self, parts: Iterable[Part]) -> Self:
        return self[:].extend(parts)

    def insert(self, index: int, part: Part) -> Self:
        """Add a part before the one at ``index``; those after it move on by one."""
        named = self._parts(self._kind)
        named.insert(index, ("0", part))
        return self._replace(named)

    def pop(self, index: int = -1) -> Part:
        """Take the part at ``index`` out, and return it."""
        part = self[index]
        del self[index]
        return part


class ModuleList(PartSequence[Module]):
    """Modules in a list; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)


class Sequential(PartSequence[Module]):
    """One module after another, each called on what the one before it returned.

    Takes the modules, or one mapping from names to modules.

    Notes
    -----
    A batch norm and the ReLU behind it run as one operation, which is quicker and gives the same
    bits; unless one of them has hooks, which see what comes between.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, self._check(module))
        else:
            self.extend(modules)  # type: ignore[arg-type]

    def forward(self, input: Any) -> Any:
        return in_turn(self.in_order(), input)

    def in_order(self) -> list[Module]:
        """The modules as they are called."""
        values = self.__dict__
        modules = [values[name] for name, kind in self._kinds.items() if kind == MODULE]
        return self._all() if None in modules else modules


def in_turn(modules: list[Any], input: Any) -> Any:
    """What modules make of an input, each of what the one before it returned."""
    done = False
    for module, following in pairwise([*modules, None]):
        if done:  # along with the one before
            done = False
        elif module._joint is not None and are_joint(module._joint, module, following):
            input, done = module._joint.run(module, input), True
        else:
            input = module(input)
    return input


def are_joint(joint: Joint, first: Module, second: Module | None) -> bool:
    """Whether they are of the very classes, unchanged, and nobody sees what comes between."""
    return (
        second.__class__ is joint.second
        and first.__class__ is joint.first
        and first._hooks is None
        and second._hooks is None
        and "forward" not in first.__dict__
        and "forward" not in second.__dict__
        and not hunting()
    )


class ParameterList(PartSequence[Parameter]):
    """Parameters in a list; tensors become parameters."""

    _kind = PARAMETER
    _check = staticmethod(as_parameter)

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return described(self._parts(PARAMETER))


class PartMapping(Module, Generic[Part]):
    """What dictionaries of modules and of parameters share."""

    _kind: ClassVar[str] = MODULE
    _check: ClassVar[Callable[..., Any]] = staticmethod(as_module)

    def _all(self) -> dict[str, Part]:
        return dict(self._parts(self._kind))

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __contains__(self, key: object) -> bool:
        return (
            isinstance(key, str)
            and self._kinds.get(key) == self._kind
            and self.__dict__[key] is not None
        )

    def __getitem__(self, key: str) -> Part:
        if key not in self:
            raise StateError(f"expected one of the keys {list(self)}, got {key!r}")
        return self.__dict__[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: str, part: Part) -> None:
        if key in self:
            setattr(self, key, self._check(part))
        else:
            self._register(key, self._check(part), self._kind)

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)

    def keys(self) -> KeysView[str]:
        """The names of the parts."""
        return self._all().keys()

    def values(self) -> ValuesView[Part]:
        """The parts."""
        return self._all().values()

    def items(self) -> ItemsView[str, Part]:
        """The names and the parts."""
        return self._all().items()

    def update(self, parts: Mapping[str, Part] | Iterable[tuple[str, Part]]) -> None:
        """Add parts, or put them in the place of those of the same name."""
        for key, part in dict(parts).items():
            self[key] = part

    def pop(self, key: str) -> Part:
        """Take the part of that name out, and return it."""
        part = self[key]
        del self[key]
        return part

    def clear(self) -> None:
        """Take all parts out."""
        for key in self:
            del self[key]


class ModuleDict(PartMapping[Module]):
    """Modules in a dictionary; it has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})


class ParameterDict(PartMapping[Parameter]):
    """Parameters in a dictionary; tensors become parameters."""

    _kind = PARAMETER
    _check = staticmethod(as_parameter)

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return described(self._parts(PARAMETER))


def described(parameters: list[tuple[str, Any]]) -> str:
    """A line for each parameter: its name, dtype and shape."""
    return "\n".join(
        f"({name}): Parameter of {x.dtype} {tuple(x.shape)} on {x.device}" for name, x in parameters
    )
