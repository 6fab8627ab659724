"""What tests see in the place of hypothesis where it is not installed, as on a machine that has a
GPU and little else: tests that need it are skipped, and those beside them run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

NAMES = ("hypothesis", "hypothesis.strategies", "hypothesis.extra", "hypothesis.extra.numpy")


class Anything(ModuleType):
    """A module, a strategy, a decorator: whatever is asked of it is such a thing again."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self


def given(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """A test that is skipped, and asks for nothing but what it is parametrized by."""

    def decorate(test: Any) -> Any:
        @pytest.mark.skip(reason="needs hypothesis, which is not installed")
        def skipped(**anything: Any) -> None: ...

        code = test.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        drawn = set(kwargs) | set(names[len(names) - len(args) :] if args else ())
        return asking_for([name for name in names if name not in drawn], test, skipped)

    return decorate


def asking_for(names: list[str], test: Any, skipped: Any) -> Any:
    """The skipped test with the name, the marks and these parameters of another."""
    scope = {"skipped": skipped}
    exec(f"def {test.__name__}({', '.join(names)}): skipped()", scope)
    found: Any = scope[test.__name__]
    found.__module__, found.__doc__ = test.__module__, test.__doc__
    found.pytestmark = [*getattr(test, "pytestmark", []), *skipped.pytestmark]
    return found


def unchanged(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """`settings` and `example`, which leave a test alone."""
    return lambda test: test


def install() -> None:
    """Put it there, if hypothesis is absent."""
    if sys.modules.get("hypothesis") or importlib_finds("hypothesis"):
        return
    modules = {name: Anything(name) for name in NAMES}
    for name, module in modules.items():
        module.__path__ = []  # type: ignore[attr-defined]
        module.__spec__ = ModuleSpec(name, None)  # which PyTorch looks at
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    root: Any = modules["hypothesis"]
    root.given, root.settings, root.example = given, unchanged, unchanged
    root.HealthCheck, root.assume = Anything("HealthCheck"), lambda condition: True
    sys.modules.update(modules)


def importlib_finds(name: str) -> bool:
    """Whether a module is installed, and not forbidden."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # None in its place
        return False
