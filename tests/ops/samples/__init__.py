"""Every operation of the library, once, with inputs: what the properties in ``test_samples.py`` are
checked on.

A family's samples live in the file of its name. To add an operation, add `Sample`s to its family.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One call of one operation.

    ``function`` takes the namespace (``tinygrad_bn`` or ``torch``) and the tensors, so that PyTorch
    can run it too.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[np.ndarray[Any, Any], ...]
    order: int = 2
    """Up to which order its gradients are checked against finite differences."""
    differentiable: bool = True
    oracle: bool = True
    """Whether ``function`` means the same with ``torch`` as the namespace."""
    rtol: float = 1e-6
    gradient_inputs: tuple[int, ...] | None = None
    """Which inputs gradients are checked for; every floating one by default."""
    any_layout: bool = True
    """Whether the inputs may lie in memory in any order."""
    notes: str = field(default="", compare=False)

    def __str__(self) -> str:
        shapes = "-".join("x".join(map(str, x.shape)) or "scalar" for x in self.inputs)
        return f"{self.name}-{shapes}" + (f"-{self.notes}" if self.notes else "")


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Standard normal float64 numbers, none of them within 0.05 of zero, where functions have their
    kinks.
    """
    x = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return np.where(np.abs(x) < 0.05, 0.05 * np.sign(x) + x, x)


def uniform(
    *shape: int, low: float = 0.1, high: float = 2.0, seed: int = 0
) -> np.ndarray[Any, Any]:
    """Uniform float64 numbers within [low, high)."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def whole(*shape: int, low: int = -3, high: int = 4, seed: int = 0) -> np.ndarray[Any, Any]:
    """Whole numbers within [low, high), int64."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape)


def all_samples() -> list[Sample]:
    """The samples of every family."""
    found: list[Sample] = []
    for module in pkgutil.iter_modules(__path__):
        found += importlib.import_module(f"{__name__}.{module.name}").SAMPLES
    return found
