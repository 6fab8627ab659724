"""Who is measured: this library and its rivals, each in its best forms.

A form is named by its package and how that is used: ``torch fused``. The file of a package makes
what is measured of it, and is imported only if the package is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from cases import Arrays, Case

OURS = "tinygrad_bn"
FILES = {OURS: "modules", "torch": "modules", "jax": "jitted"}
IMPORTED = {"scikit-learn": "sklearn"}
"""Packages that are imported under another name."""

TRAINING = (
    "tinygrad_bn eager",
    "tinygrad_bn compiled",
    "torch eager",
    "torch fused",
    "torch compiled",
    "jax jit",
)
INFERENCE = (
    "tinygrad_bn eager",
    "tinygrad_bn compiled",
    "tinygrad_bn folded",
    "tinygrad_bn folded and compiled",
    "torch eager",
    "torch compiled",
    "torch folded",
    "torch folded and compiled",
    "jax jit",
    "jax folded and jit",
)


class Training(Protocol):
    """A model with its optimizer and its batches."""

    def step(self) -> Any:
        """One step on the next batch, done when it returns; the loss."""

    def learn(self, rate: float) -> None:
        """Set the learning rate."""

    def state(self) -> Arrays:
        """Parameters and running statistics, under PyTorch's names and in its layout."""


def package(form: str) -> str:
    return form.partition(" ")[0]


def missing(forms: Iterable[str]) -> dict[str, str]:
    """Packages of these forms that are not installed, and what to do about it."""
    packages = dict.fromkeys(map(package, forms))
    return {
        name: f"not installed: pip install {name}"
        for name in packages
        if find_spec(IMPORTED.get(name, name)) is None
    }


def made(forms: Iterable[str], make: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What can be made of each form, and why the others are absent: nobody is dropped silently."""
    forms = list(forms)
    absent = missing(forms)
    found: dict[str, Any] = {}
    for form in forms:
        if package(form) in absent:
            continue
        try:
            found[form] = make(form)
        except Exception as error:  # a rival's compiler may fail in any way
            if package(form) == OURS:
                raise
            absent[form] = f"failed: {type(error).__name__}: {str(error).strip()[:200]}"
    return found, absent


def training(form: str, case: Case, optimizer: str, dtype: str = "float32") -> Training:
    """A form's training step; batches and first weights are the same for all."""
    name, _, how = form.partition(" ")
    found: Training = import_module(f"rivals.{FILES[name]}").training(
        name, how, case, optimizer, dtype
    )
    return found


def inference(form: str, case: Case) -> Callable[[], Any]:
    """A form's evaluation of a trained model on the next batch, done when it returns."""
    name, _, how = form.partition(" ")
    found: Callable[[], Any] = import_module(f"rivals.{FILES[name]}").inference(name, how, case)
    return found


def forget() -> None:
    """Drop what compilers keep of the cases before."""
    import sys

    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
