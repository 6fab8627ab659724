"""State as it was: to go back to when a step is refused, or is to run again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, current
from tinygrad_bn.capture.traced import native_of


class Memento:
    """Tensors and objects with all that they refer to, as they were.

    Arrays are put back where they were, so that whoever reads them sees them.
    """

    def __init__(
        self, backend: Backend, tensors: Iterable[Variable], objects: Iterable[Any]
    ) -> None:
        self.backend, self.native = backend, native_of(backend)
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
        if isinstance(x, (np.ndarray, self.native)):
            with current(self.backend):
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
            if isinstance(array, np.ndarray):
                np.copyto(array, values)
            else:
                self.backend.store(array, values)
        for namespace, before in self.namespaces.values():
            namespace.clear()
            namespace.update(before)
        for now, items in self.lists.values():
            now[:] = items
        for x, grad in self.grads:
            x._grad = grad

    def present(self) -> list[np.ndarray[Any, Any]]:
        """What the arrays hold now, gradients included, in NumPy's memory."""
        found = [array for array, _ in self.arrays.values()]
        found += [x._grad.array for x, _ in self.grads if x._grad is not None]
        return [x.copy() if isinstance(x, np.ndarray) else self.backend.to_numpy(x) for x in found]
