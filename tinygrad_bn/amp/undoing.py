"""Steps of an optimizer that the device takes back, where a number on the device says so."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from tinygrad_bn.amp.scale_rules import taken_back
from tinygrad_bn.backend import Array, KernelPoint, current
from tinygrad_bn.config import as_state
from tinygrad_bn.optim.flat import Run
from tinygrad_bn.optim.flat_optimizer import FlatOptimizer


class Revocable:
    """A run that an optimizer updates, and that can be taken back.

    What the run holds is kept before it changes: parameters and state at the update, counters when
    they are first asked for.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before: dict[int, tuple[Array, Array]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def counter(self, name: str, start: float = 0.0) -> Array:
        """A number that the run's parameters share."""
        return self._kept(self._run.counter(name, start))

    def count(self, name: str = "step") -> Array:
        """One more: the counter after counting this update."""
        self.counter(name)
        return self._run.count(name)

    def update(
        self, kernel: KernelPoint[Any, Any], slots: Any, *numbers: Any, **flags: Any
    ) -> None:
        """Replace the parameters and the named state by what ``kernel`` makes of them."""
        self._kept(as_state(self._run.param))
        for name in slots:
            if name is not None:
                self._kept(self._run.slot(name))
        self._run.update(kernel, slots, *numbers, **flags)

    def _kept(self, array: Array) -> Array:
        if id(array) not in self._before:
            self._before[id(array)] = array, self._run.backend.copy(array)
        return array

    def revoke_where(self, found: Array) -> None:
        """Let all be as it was, where ``found``, without axes, is true."""
        backend = self._run.backend
        for array, before in self._before.values():
            backend.store(array, *taken_back(backend, array, before, found))


@contextmanager
def revoked_where(optimizer: FlatOptimizer, found: Callable[[str], Array]) -> Generator[None]:
    """Steps of the optimizer inside change nothing where ``found(device)`` is true: what they would
    have changed is put back, and nobody waits for the device to learn it.
    """
    update = optimizer.update

    def revocable(run: Run) -> None:
        kept: Any = Revocable(run)
        with current(run.backend):
            update(kept)
            kept.revoke_where(found(run.backend.device))

    vars(optimizer)["update"] = revocable  # every step calls it, whatever subclass it is of
    try:
        yield
    finally:
        del vars(optimizer)["update"]
