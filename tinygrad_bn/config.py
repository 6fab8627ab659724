"""What the engine does when nobody says otherwise: gradient mode, default dtype and device, anomaly
mode.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ContextDecorator
from contextvars import ContextVar
from functools import wraps
from inspect import isgeneratorfunction
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np

from tinygrad_bn.errors import ArgumentError, DtypeError, GradientError

grad_mode: ContextVar[bool] = ContextVar("grad_mode", default=True)
anomaly_mode: ContextVar[bool] = ContextVar("anomaly_mode", default=False)
recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)
"""Whether a forward runs again for its gradient: state that counts steps must not advance."""
tracer: ContextVar[Any] = ContextVar("tracer", default=None)
"""What records this step, while `tinygrad_bn.compile` traces it."""
autocasting: ContextVar[Any] = ContextVar("autocasting", default=None)
"""The dtypes that `tinygrad_bn.amp.autocast` asks for here; None where it asks for none."""
where: ContextVar[str] = ContextVar("where", default="")
"""In anomaly mode, a line that names the module whose forward is running."""

_defaults: dict[str, Any] = {"dtype": np.dtype("float32"), "device": "cpu", "workspace": 2**26}


F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Switch(ContextDecorator):
    """A context manager, and a decorator, that holds one context variable at one value.

    It may be entered again while it is entered, and by several threads at once. On a generator
    function it holds while the generator runs, not while its caller does between two values.
    """

    variable: ContextVar[Any]
    value: Any

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if args and callable(args[0]):  # a decorator without its parentheses
            return cls()(args[0])
        return super().__new__(cls)

    def __init__(self) -> None:
        self._before: list[Any] = []

    def __call__(self, function: F) -> F:
        if isgeneratorfunction(function):
            return cast(F, held_while_running(self._recreate_cm, function))
        return super().__call__(function)

    def __enter__(self) -> None:
        self._before.append(self.variable.get())
        self.variable.set(self.value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.variable.set(self._before.pop())

    def _recreate_cm(self) -> Self:
        return type(self)()  # a decorated function may run in several threads at once


class Recording:
    """What a forward read of state that it then changed, in order: for when it runs again."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.again: Iterator[Any] | None = None
        self.outer = recording.get()

    def read(self, state: Callable[[], T]) -> T:
        """The state as it is, or when the forward runs again, as it was then.

        Raises
        ------
        GradientError
            If the second run reads more than the first.
        """
        if self.again is not None:
            for value in self.again:
                return cast(T, value)
            raise GradientError("expected a second forward to do what the first did, got more")
        value = state() if self.outer is None else self.outer.read(state)
        self.seen.append(value)
        return value

    def rewind(self) -> None:
        """The forward is about to run again."""
        self.again = iter(self.seen)


recording: ContextVar[Recording | None] = ContextVar("recording", default=None)
"""The recording of the forward that is running, where that may run again for its gradient."""


def as_first_seen(state: Callable[[], T]) -> T:
    """State that a forward reads and then changes, such as running statistics: where the forward
    runs again for its gradient, as it was the first time. What ``state`` returns must be the
    caller's own, which nothing overwrites.
    """
    held = recording.get()
    return state() if held is None else held.read(state)


def at_each_replay(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function that keeps state in Python; a compiled step calls it at every replay too.

    Arrays that come back are taken for new ones.
    """
    held = tracer.get()
    return function(*args, **kwargs) if held is None else held.call(function, args, kwargs)


def outside_of_trace(function: Callable[..., T]) -> Callable[..., T]:
    """The function, of which a step that is being traced sees only what it returns: it makes state,
    which is there when the step is replayed.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> T:
        if tracer.get() is None:
            return function(*args, **kwargs)
        token = tracer.set(None)
        try:
            return function(*args, **kwargs)
        finally:
            tracer.reset(token)

    return run


def as_state(array: Any) -> Any:
    """An array that no tensor holds, and that a compiled step reads and writes where it is."""
    held = tracer.get()
    return array if held is None else held.lift(array)


def held_while_running(
    switch: Callable[[], Switch], function: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    """The generator function, each of whose steps runs inside of a fresh switch."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with switch():
            generator = function(*args, **kwargs)
        resume: Callable[[Any], Any] = generator.send
        given: Any = None
        while True:
            try:
                with switch():
                    value = resume(given)
            except StopIteration as end:
                return end.value
            try:
                resume, given = generator.send, (yield value)
            except GeneratorExit:
                with switch():
                    generator.close()
                raise
            except BaseException as error:  # thrown in by the caller
                resume, given = generator.throw, error

    return run


class no_grad(Switch):
    """Record no graph inside: ``with no_grad():``, or ``@no_grad()`` on a function."""

    variable, value = grad_mode, False


class enable_grad(Switch):
    """Record the graph inside, also within ``no_grad``."""

    variable, value = grad_mode, True


class inference_mode(Switch):
    """Record no graph inside; here the same as `no_grad`, which already costs nothing more."""

    variable, value = grad_mode, False


class set_grad_enabled(Switch):
    """Record the graph or not, as ``mode`` says: a statement, and a context manager too, as in
    PyTorch.
    """

    variable = grad_mode

    def __init__(self, mode: bool) -> None:
        self.value = bool(mode)
        self._before = [grad_mode.get()]
        grad_mode.set(self.value)

    def __enter__(self) -> None:
        grad_mode.set(self.value)  # what was there before is known since the statement ran

    def _recreate_cm(self) -> Self:
        return type(self)(self.value)


class without_autocast(Switch):
    """Run every operation inside in the dtypes of its operands, whatever `autocast` stands around.

    That is for what computes a weight or a statistic, and for the walk of a gradient, which has the
    dtypes of the forward already.
    """

    variable, value = autocasting, None


class detect_anomaly(Switch):
    """Name the operation, the module and the line behind a NaN in a gradient; slow, for hunting
    only.
    """

    variable, value = anomaly_mode, True


def set_detect_anomaly(mode: bool) -> None:
    """Switch anomaly detection on or off."""
    anomaly_mode.set(bool(mode))


def is_grad_enabled() -> bool:
    """Whether operations record the graph now."""
    return grad_mode.get()


def get_default_dtype() -> np.dtype[Any]:
    """The dtype of Python floats, and of tensors made without one (float32 until set)."""
    return _defaults["dtype"]  # type: ignore[no-any-return]


def set_default_dtype(dtype: Any) -> None:
    """Make ``dtype``, a floating dtype, the one of Python floats and of new tensors."""
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise DtypeError(f"expected a floating dtype as the default, got {dtype!r}") from None
    if wanted.kind != "f":
        raise DtypeError(f"expected a floating dtype as the default, got {wanted}")
    _defaults["dtype"] = wanted


def get_workspace_limit() -> int:
    """How many bytes convolution may take to lay out windows (64 MiB until set)."""
    return _defaults["workspace"]  # type: ignore[no-any-return]


def set_workspace_limit(size: int) -> None:
    """Let convolution take at most ``size`` bytes to lay out the windows of several samples; those
    of a single one it takes whatever that needs.
    """
    if not isinstance(size, int) or size < 1:
        raise ArgumentError(f"expected a number of bytes ≥ 1 as the limit, got {size!r}")
    _defaults["workspace"] = size


def get_default_device() -> str:
    """The device of tensors made without one (``"cpu"`` until set)."""
    return _defaults["device"]  # type: ignore[no-any-return]


def set_default(name: str, value: Any) -> None:
    """Change one default; `set_default_dtype` and `tinygrad_bn.set_default_device` check theirs
    first.
    """
    _defaults[name] = value
