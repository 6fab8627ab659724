"""Copies: within a device, and from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.ops.promotion import require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "clone",
]


def moved(x: Array, source: Backend, target: Backend) -> Array:
    """The same values in the memory of another backend, by way of this machine's."""
    if isinstance(x, Variable):  # in a replay, a Tensor, which moves as such
        return Transfer.apply(x, target=target)
    return target.asarray(source.to_numpy(x))


class Transfer(Function):
    """The same values on another device, to which the node belongs from then on."""

    def forward(self, x: Array, *, target: Backend) -> Array:
        self.source, self.target = self.backend, target
        if isinstance(x, Variable):
            self.source = x.backend
        else:
            self.backend = target
        return moved(x, self.source, target)

    def backward(self, dy: Array, /) -> Array:
        return moved(dy, self.target, self.source)


class Clone(Function):
    """The same values in fresh memory."""

    def forward(self, x: Array) -> Array:
        return self.backend.copy(x)

    def backward(self, dy: Array, /) -> Array:
        return dy


class Contiguous(Function):
    """The same values in C order, in the same memory if they are so already."""

    view = True

    def forward(self, x: Array) -> Array:
        return self.xp.contiguous(x)

    def backward(self, dy: Array, /) -> Array:
        return dy


def clone(input: Tensor) -> Tensor:
    """The same values in fresh memory; the gradient flows through."""
    require_tensor(input)
    return Clone.apply(input)  # type: ignore[no-any-return]


def contiguous(input: Tensor) -> Tensor:
    """The same values in C order; the tensor itself if they are so already."""
    require_tensor(input)
    if input.array.ndim and input.array.flags.c_contiguous:
        return input
    return Contiguous.apply(input) if input.array.ndim else input


def transfer(input: Tensor, backend: Backend) -> Tensor:
    """The same values on another device; the gradient comes back."""
    return Transfer.apply(input, target=backend)  # type: ignore[no-any-return]
