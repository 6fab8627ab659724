"""Copies: within a device, and from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend, backend_for, is_page_locked
from tinygrad_bn.errors import BackendError, GradientError
from tinygrad_bn.ops.promotion import require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "clone",
]


def moved(x: Array, source: Backend, target: Backend, non_blocking: bool = False) -> Array:
    """The same values in the memory of another backend."""
    if isinstance(x, Variable):  # in a replay, a Tensor, which moves as such
        return Transfer.apply(x, target=target)
    return target.receive(x, source, non_blocking)


class Transfer(Function):
    """The same values on another device, to which the node belongs from then on."""

    def forward(self, x: Array, *, target: Backend, non_blocking: bool = False) -> Array:
        self.source, self.target = self.backend, target
        if isinstance(x, Variable):
            self.source = x.backend
        else:
            self.origin, self.backend = self.backend, target
        return moved(x, self.source, target, non_blocking)

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


def transfer(input: Tensor, backend: Backend, non_blocking: bool = False) -> Tensor:
    """The same values on another device; the gradient comes back."""
    return Transfer.apply(input, target=backend, non_blocking=non_blocking)  # type: ignore[no-any-return]


def pin_memory(input: Tensor, device: object = None) -> Tensor:
    """The same values in page-locked memory of this machine, from which a GPU copies by itself:
    ``x.pin_memory().to("cuda", non_blocking=True)``; the tensor itself if it is there already.

    Raises
    ------
    BackendError, GradientError
        If there is no GPU, the tensor is on one, or it has a history to lose.
    """
    require_tensor(input)
    if input.requires_grad:
        raise GradientError("expected a tensor without history to pin; use tensor.detach()")
    if input.is_cuda:
        raise BackendError(f"expected a tensor on the cpu to pin, got one on {input.device}")
    gpu = backend_for("cuda" if device is None else device)
    if is_pinned(input):
        return input
    host = gpu.page_locked(input.array.shape, input.array.dtype)
    input.backend.store(host, input.array)
    return input.wrap_like(host)  # type: ignore[no-any-return]


def is_pinned(input: Tensor, device: object = None) -> bool:
    """Whether the memory is page-locked."""
    require_tensor(input)
    return is_page_locked(input.array)
