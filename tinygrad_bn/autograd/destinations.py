"""Results of kernel points in memory that is there already."""

from __future__ import annotations

from typing import Any

from tinygrad_bn.backend import Array, Backend, KernelPoint, _reference_only


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
    function(*operands)
    return place
