"""Results of kernel points in memory that is there already."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from tinygrad_bn.backend import Array, Backend, KernelPoint, _reference_only, interruption


def computed_in(
    place: Array, point: KernelPoint[..., Array], backend: Backend, *args: Any
) -> Array:
    """What a kernel point computes, in the memory of ``place`` where its kernel can leave it there.

    The place may be an argument's, whose values nobody needs any more, where the kernel says that
    it takes those element by element.
    """
    kernel = backend.kernels.get(point.name)
    if kernel is None or kernel.into is None or _reference_only.get() or not kernel.accepts(*args):
        return point(backend, *args)
    function, operands = kernel.into((place,), *args)
    try:
        function(*operands)
    except SystemError as error:
        raise interruption(error) or error from None
    return place


keeper: ContextVar[Callable[[Any], Array | None] | None] = ContextVar("keeper", default=None)
"""What `place_for` asks: the walk that is running, if it is to keep what it finds."""


def place_for(x: Any) -> Array | None:
    """Where the gradient of a tensor is to be kept, if backward, which asks, may leave it there; it
    then returns the place.
    """
    find = keeper.get()
    return None if find is None else find(x)
