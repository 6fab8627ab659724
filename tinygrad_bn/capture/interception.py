"""How a step comes to run on traced arrays: while a thread traces, the port asks whose turn it is.

Tensors show the tracing thread traced arrays, and the backend records for it. Other threads, and
the same one when it has done, see what they always see.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import RLock
from types import SimpleNamespace
from typing import Any

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import VOCABULARY, Backend, Kernel
from tinygrad_bn.capture.recorder import Recorder, plain
from tinygrad_bn.capture.traced import Elsewhere, Traced, either, refusal


class Shown:
    """An attribute of tensors that holds an array: the tracing thread sees it traced."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, x: Variable | None, kind: type | None = None) -> Any:
        if x is None:
            return None
        try:
            held = x.__dict__[self.name]
        except KeyError:
            if self.name == "slot":
                return None
            raise AttributeError(self.name) from None
        tracer = config.tracer.get()
        if tracer is None:
            return held.array if held.__class__ is Traced else held
        if held is None or held.__class__ is Traced:
            return held
        if x.backend is not tracer.backend:
            return Elsewhere(held, tracer.backend.device, x.backend.device)
        if self.name == "array":
            tracer.read.setdefault(id(x), (x, held))
        return tracer.lift(held)

    def __set__(self, x: Variable, value: Any) -> None:
        x.__dict__[self.name] = value
        if value.__class__ is Traced:
            value.recorder.wrap(x)


class RecordedKernels:
    """The backend's kernels: one instruction each for the thread that traces."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.kernels = backend, backend.kernels

    def get(self, name: str) -> Kernel | None:
        kernel, tracer = self.kernels.get(name), tracer_of(self.backend)
        if kernel is None or tracer is None:
            return kernel

        def run(*args: Any, **kwargs: Any) -> Any:
            if kernel.writes:
                return tracer.update(name, kernel.run, kernel.writes, args, kwargs)
            return tracer.word(name, kernel.run, args, kwargs)

        def accepts(*args: Any, **kwargs: Any) -> bool:
            return kernel.accepts(*plain(args), **plain(kwargs))

        return Kernel(run, accepts)


def tracer_of(backend: Backend) -> Recorder | None:
    """What records for this thread what this backend does."""
    tracer = config.tracer.get()
    return tracer if tracer is not None and tracer.backend is backend else None


def word(backend: Backend, name: str) -> Callable[..., Any]:
    """A word of the vocabulary that records itself for the thread that traces."""
    function = getattr(backend.xp, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(backend)
        if tracer is None:
            return function(*args, **kwargs)
        return tracer.word(name, function, args, kwargs)

    return run


def method(backend: Backend, name: str) -> Callable[..., Any]:
    """A method of the backend, which for the thread that traces is its recorder's."""
    original = getattr(backend, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(backend)
        if tracer is None:
            return original(*plain(args), **kwargs)
        return getattr(tracer, name)(*args, **kwargs)

    return run


def refused(backend: Backend, name: str) -> Callable[..., Any]:
    """A method of the backend that a step cannot replay."""
    original = getattr(backend, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        if config.tracer.get() is not None:
            raise refusal(f"calls {name}")
        return original(*args, **kwargs)

    return run


RECORDED = ("asarray", "copy", "store", "to_numpy")
_lock = RLock()
_tracing: dict[str, list[dict[str, Any]]] = {}
"""By device, how the backend was, once for every thread that traces there."""


def install(backend: Any) -> None:
    """Let the backend and all tensors ask whose turn it is."""
    if not _tracing:
        Variable.array = Shown("array")
        Variable.slot = Shown("slot")
    before = _tracing.setdefault(backend.device, [])
    before.append({**vars(backend)})
    if len(before) > 1:
        return
    overlap = backend.overlap
    vars(backend).update(
        xp=SimpleNamespace(**{name: word(backend, name) for name in VOCABULARY}),
        kernels=RecordedKernels(backend),
        array_type=either(backend.array_type),
        overlap=lambda a, b: overlap(plain(a), plain(b)),
        from_dlpack=refused(backend, "from_dlpack"),
        **{name: method(backend, name) for name in RECORDED},
    )


def uninstall(backend: Any) -> None:
    """Let them be as they were, when the last thread has done."""
    before = _tracing[backend.device].pop()
    if _tracing[backend.device]:
        return
    del _tracing[backend.device]
    if not _tracing:
        del Variable.array
        Variable.slot = None
    vars(backend).update(before)  # no other thread may find an attribute missing
    for name in vars(backend).keys() - before.keys():
        delattr(backend, name)


@contextmanager
def traced_by(recorder: Recorder) -> Generator[None]:
    """What this thread does inside is executed and recorded."""
    backend = recorder.backend
    with _lock:
        kind = type(backend)
        for name in (*RECORDED, "overlap"):
            setattr(recorder, f"backend_{name}", getattr(kind, name).__get__(backend))
        install(backend)
    token = config.tracer.set(recorder)
    try:
        yield
    finally:
        config.tracer.reset(token)
        for x in recorder.wrapped:
            for name in ("array", "slot"):
                held = vars(x).get(name)
                if held.__class__ is Traced:
                    vars(x)[name] = held.array
        for x in [*recorder.wrapped, *(x for x, _ in recorder.read.values())]:
            if x._stamp is not None and x._stamp.array.__class__ is Traced:
                x._stamp.array = x._stamp.array.array
        with _lock:
            uninstall(backend)
