"""What a step must not return or leave behind, since no replay would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Backend
from tinygrad_bn.capture.traced import Traced
from tinygrad_bn.capture.values import replaced
from tinygrad_bn.errors import CaptureError


def refuse_graph(x: Variable) -> None:
    """Refuse a result that somebody could run backward from."""
    if x.requires_grad and x.creator is not None and x.creator.inputs is not None:
        raise CaptureError(
            "expected a step that runs backward itself, or inside of no_grad(), got one that "
            "returns a tensor with a graph; return tensor.detach()"
        )


def refuse_elsewhere(backend: Backend, grads: Mapping[Variable, Any]) -> None:
    """Refuse a step that gives leaves on another device a gradient, or takes theirs."""
    for x, before in grads.items():
        if x.backend is not backend and x._grad is not before:
            raise CaptureError(
                f"expected a step on one device, got one on {backend.device} that changes "
                f"gradients on {x.backend.device}"
            )


def refuse_gradients(given: Sequence[Variable]) -> None:
    """Refuse arguments that came without a gradient and leave with one."""
    if any(x.requires_grad or x._grad is not None for x in given):
        raise CaptureError(
            "expected a step that asks for no gradient of an argument, got one that does; ask "
            "before the call, or use x.detach().requires_grad_()"
        )


def refuse_arrays(result: Any) -> None:
    """Refuse a result with traced arrays in it."""

    def refuse(x: Traced) -> None:
        raise CaptureError(f"expected a step that returns tensors, got an array {x.shape}")

    replaced(result, Traced, refuse)
