"""Tensors that a step found, as they were: what a program takes for granted of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.capture.contents import Row


@dataclass(frozen=True, eq=False, slots=True)
class Leaf:
    """A tensor that the step found, as it was."""

    tensor: Variable
    array: Array
    slot: Array | None
    requires_grad: bool
    grad: Any

    @staticmethod
    def of(tensor: Variable) -> Leaf:
        return Leaf(tensor, tensor.array, tensor.slot, tensor.requires_grad, grad_kind(tensor))

    def same(self) -> bool:
        """Whether the tensor is as it was."""
        x = self.tensor
        return (
            x.array is self.array
            and x.requires_grad is self.requires_grad
            and x.slot is self.slot
            and self.same_gradient()
        )

    def same_gradient(self) -> bool:
        """Whether the gradient is where and of the kind that it was."""
        return bool(grad_kind(self.tensor) == self.grad)

    def rows(self) -> Iterator[Row]:
        """Where the tensor and its gradient stand, and whatever else they have."""
        yield vars(self.tensor)
        if self.tensor._grad is not None:
            yield vars(self.tensor._grad)

    def named_rows(self) -> Iterator[Row]:
        """Where the tensor stands whose gradient is another one at every call."""
        for name in ("array", "requires_grad", "slot"):
            yield vars(self.tensor), name


def grad_kind(x: Variable) -> Any:
    """None without a gradient; "slot" for one in its place; else the layout of its array."""
    if x._grad is None:
        return None
    array = x._grad.array
    if array is x.slot:
        return "slot"
    return array.shape, array.dtype, array.strides, x._grad.requires_grad
