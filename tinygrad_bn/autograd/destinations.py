"""Results of kernel points in memory that is there already."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tinygrad_bn.backend import Array, Backend, KernelPoint, interruption, only_reference

if TYPE_CHECKING:
    from tinygrad_bn.autograd.function import Function


def computed_in(
    place: Array, point: KernelPoint[..., Array], backend: Backend, *args: Any
) -> Array:
    """What a kernel point computes, in the memory of ``place`` where its kernel can leave it there.

    The place may be an argument's, whose values nobody needs any more, where the kernel says that
    it takes those element by element.
    """
    kernel = backend.kernels.get(point.name)
    if kernel is None or kernel.into is None or only_reference() or not kernel.accepts(*args):
        return point(backend, *args)
    function, operands = kernel.into((place,), *args)
    try:
        function(*operands)
    except SystemError as error:
        raise interruption(error) or error from None
    return place


keeper: ContextVar[Callable[[Any], Array | None] | None] = ContextVar("keeper", default=None)
"""What `places_for` asks: the walk that is running, if it is to keep what it finds."""


def places_for(node: Function, *inputs: int) -> tuple[Array | None, ...]:
    """Where the gradients of these inputs are to be kept, for each that backward, which asks, may
    leave there; it then returns the place.
    """
    find = keeper.get()
    if find is None or node.inputs is None:
        return (None,) * len(inputs)
    return tuple([find(node.inputs[i]) if node.needs[i] else None for i in inputs])
