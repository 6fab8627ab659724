"""A replay and the step itself, from the same state: they must leave the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.capture.tracing import Capture
from tinygrad_bn.capture.values import leaves
from tinygrad_bn.errors import CaptureError

UNTOUCHED = (Variable, type, str, bytes, int, float, complex, np.generic)


class Memento:
    """Tensors and objects with all that they refer to, as they were.

    Arrays are put back where they were, so that whoever reads them sees them.
    """

    def __init__(self, tensors: Iterable[Variable], objects: Iterable[Any]) -> None:
        self.arrays: dict[int, tuple[Array, Array]] = {}
        self.namespaces: dict[int, tuple[dict[Any, Any], dict[Any, Any]]] = {}
        self.lists: dict[int, tuple[list[Any], list[Any]]] = {}
        self.grads: list[tuple[Variable, Any]] = []
        for x in tensors:
            self.take(x.array)
            self.grads.append((x, x._grad))
            if x._grad is not None:
                self.take(x._grad.array)
        for x in objects:
            self.take(x)

    def take(self, x: Any) -> None:
        """Remember an array, or what is in an object of this library's, a list or a dict."""
        if isinstance(x, np.ndarray):
            self.arrays.setdefault(id(x), (x, x.copy(order="K")))
        elif isinstance(x, dict):
            if id(x) not in self.namespaces:
                self.namespaces[id(x)] = x, dict(x)
                for value in x.values():
                    self.take(value)
        elif isinstance(x, (list, tuple)):
            if isinstance(x, list) and id(x) not in self.lists:
                self.lists[id(x)] = x, list(x)
            for value in x:
                self.take(value)
        elif type(x).__module__.startswith(("tinygrad_bn.optim", "tinygrad_bn.philox")):
            self.take(vars(x))

    def restore(self) -> None:
        """Let everything be as it was."""
        for array, values in self.arrays.values():
            np.copyto(array, values)
        for namespace, before in self.namespaces.values():
            namespace.clear()
            namespace.update(before)
        for now, items in self.lists.values():
            now[:] = items
        for x, grad in self.grads:
            x._grad = grad

    def present(self) -> list[Array]:
        """Copies of what the arrays hold now, gradients included."""
        found = [array.copy() for array, _ in self.arrays.values()]
        return found + [x._grad.array.copy() for x, _ in self.grads if x._grad is not None]


def verified(
    step: Callable[..., Any], capture: Capture, tensors: Sequence[Variable], args: Any, kwargs: Any
) -> Any:
    """What the step returns, which the program has been found to return too.

    Raises
    ------
    CaptureError
        If results or state differ in a bit; what is left is the step's.
    """
    touched = {id(x): x for x in (*tensors, *capture.surroundings.tensors.values())}
    memento = Memento(touched.values(), [*capture.surroundings.optimizers, *capture.calls])
    replayed = arrays_of(capture.replay(tensors))
    after_replay = memento.present()
    memento.restore()
    result = step(*args, **kwargs)
    compare("results", replayed, arrays_of(result))
    compare("state", after_replay, memento.present())
    return result


def arrays_of(result: Any) -> list[Array]:
    return [x.array.copy() for x in leaves(result, Variable)]


def compare(what: str, found: Sequence[Array], expected: Sequence[Array]) -> None:
    """Refuse arrays that differ."""
    if len(found) != len(expected):
        raise CaptureError(f"expected {len(expected)} arrays as {what} of a replay: {len(found)}")
    for x, y in zip(found, expected, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype or x.tobytes() != y.tobytes():
            with np.errstate(all="ignore"):
                apart = np.abs(x - y).max() if x.shape == y.shape and x.dtype.kind == "f" else "?"
            raise CaptureError(
                f"expected a replay to leave the {what} of the step itself, got {y.dtype} "
                f"{y.shape} that is {apart} off: it depends on what a program cannot see"
            )
