"""What happens around a module's forward when somebody asks: hooks, and names in error messages."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tinygrad_bn import config
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError

if TYPE_CHECKING:
    from tinygrad_bn.nn.module import Module

_paths: ContextVar[dict[int, str] | None] = ContextVar("paths", default=None)
"""In anomaly mode, the names of the modules under the outermost one that is running, by id."""


class Hooks:
    """The hooks of one module; each list holds (hook, with_kwargs)."""

    def __init__(self) -> None:
        self.before: list[tuple[Any, bool]] = []
        self.after: list[tuple[Any, bool]] = []
        self.backward: list[tuple[Any, bool]] = []


def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the module's forward with its hooks, and named if anomaly mode asks for it."""
    if not config.anomaly_mode.get():
        return with_hooks(module, args, kwargs)
    paths = _paths.get()
    if paths is None:
        paths = {id(child): path for path, child in module.named_modules()}
    outer = _paths.set(paths)
    path = paths.get(id(module), "")
    named = f"{path!r} ({type(module).__name__})" if path else type(module).__name__
    where = config.where.set(f"In module {named}:\n")
    try:
        return with_hooks(module, args, kwargs)
    finally:
        config.where.reset(where)
        _paths.reset(outer)


def with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    hooks = module._hooks
    if hooks is None:
        return module.forward(*args, **kwargs)
    for hook, with_kwargs in list(hooks.before):
        if with_kwargs:
            replaced = hook(module, args, kwargs)
            if replaced is not None:
                args, kwargs = replaced
        elif (replaced := hook(module, args)) is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    watch = Watch(module, list(hooks.backward)) if hooks.backward else None
    if watch is not None:
        args = watch.inputs(args)
    result = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(hooks.after):
        replaced = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        if replaced is not None:
            result = replaced
    return result if watch is None else watch.outputs(result)


class Boundary(Function):
    """The identity on several tensors at once, where gradients enter or leave a module."""

    def forward(self, *x: Array, react: Any) -> tuple[Array, ...]:
        self.react = react
        return x

    def backward(self, *dy: Any) -> tuple[Any, ...]:
        tensors = tuple(
            grad if isinstance(grad, Variable) else Variable.tensor_class.wrap(grad, self.backend)
            for grad in dy
        )
        return tuple(
            new if isinstance(old, Variable) else new.array
            for old, new in zip(dy, self.react(tensors), strict=True)
        )


class Watch:
    """One call of a module whose backward hooks want the gradients of its outputs and inputs."""

    def __init__(self, module: Module, hooks: list[tuple[Any, bool]]) -> None:
        self.module, self.hooks = module, hooks
        self.places: list[int] = []
        self.arity = 0
        self.grad_output: tuple[Any, ...] = ()

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, those with a gradient behind a boundary that runs the hooks."""
        self.arity = len(args)
        passed, self.places = through(args, self.leave)
        return passed

    def outputs(self, result: Any) -> Any:
        """The result behind a boundary that keeps its gradients for the hooks."""
        single = not isinstance(result, tuple)
        passed, places = through((result,) if single else result, self.enter)
        self.output_places, self.output_arity = places, len(passed)
        return passed[0] if single else passed

    def enter(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        self.grad_output = spread(grads, self.output_places, self.output_arity)
        if not self.places:  # no gradient leaves the module: the hooks run now or never
            self.run((None,) * self.arity)
        return grads

    def leave(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        grad_input = self.run(spread(grads, self.places, self.arity))
        return tuple(grad_input[place] for place in self.places)

    def run(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook, _ in self.hooks:
            replaced = hook(self.module, grad_input, self.grad_output)
            if replaced is not None:
                replaced = replaced if isinstance(replaced, tuple) else (replaced,)
                if len(replaced) != len(grad_input):
                    raise ArgumentError(
                        f"expected a backward hook to return {len(grad_input)} gradients, "
                        f"got {len(replaced)}"
                    )
                grad_input = replaced
        return grad_input


def through(values: tuple[Any, ...], react: Any) -> tuple[tuple[Any, ...], list[int]]:
    """The values, those that require a gradient behind one boundary, and the places of those."""
    places = [i for i, x in enumerate(values) if isinstance(x, Variable) and x.requires_grad]
    if not places or not config.grad_mode.get():
        return values, []
    passed = list(values)
    outputs = Boundary.apply(*(values[i] for i in places), react=react)
    for place, y in zip(places, outputs, strict=True):
        passed[place] = y.share(values[place])
    return tuple(passed), places


def spread(grads: tuple[Any, ...], places: list[int], arity: int) -> tuple[Any, ...]:
    """The gradients at their places among ``arity`` values, None elsewhere."""
    spaced: list[Any] = [None] * arity
    for place, grad in zip(places, grads, strict=True):
        spaced[place] = grad
    return tuple(spaced)
