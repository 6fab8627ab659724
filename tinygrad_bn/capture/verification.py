"""A replay and the step itself, from the same state: they must leave the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.capture.memento import Memento
from tinygrad_bn.capture.tracing import Capture
from tinygrad_bn.capture.values import leaves
from tinygrad_bn.errors import CaptureError


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
    backend = capture.program.backend
    memento = Memento(backend, touched.values(), [*capture.surroundings.optimizers, *capture.calls])
    replayed = arrays_of(capture.replay(tensors))
    after_replay = memento.present()
    memento.restore()
    result = step(*args, **kwargs)
    compare("results", replayed, arrays_of(result))
    compare("state", after_replay, memento.present())
    return result


def arrays_of(result: Any) -> list[np.ndarray[Any, Any]]:
    return [x.backend.to_numpy(x.backend.copy(x.array)) for x in leaves(result, Variable)]


def compare(what: str, found: Sequence[Any], expected: Sequence[Any]) -> None:
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
