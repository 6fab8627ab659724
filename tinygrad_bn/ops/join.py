"""Several tensors as one, and one as several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ArgumentError, DtypeError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.promotion import cast, promote, require_tensor, result_type
from tinygrad_bn.ops.shape import broadcast_to, one_axis, reshape, sizes, squeeze

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "cat",
    "chunk",
    "concat",
    "concatenate",
    "meshgrid",
    "split",
    "stack",
    "tensor_split",
    "unbind",
]


def pieces(x: Array, lengths: Sequence[int], dim: int) -> tuple[Array, ...]:
    """Views of consecutive parts of an axis."""
    found, start = [], 0
    for n in lengths:
        found.append(x[(slice(None),) * dim + (slice(start, start + n),)])
        start += n
    return tuple(found)


class Concatenate(Function):
    """Arrays one after the other along an axis they have."""

    def forward(self, *xs: Array, dim: int) -> Array:
        self.dim, self.lengths = dim, [x.shape[dim] for x in xs]
        return self.xp.concatenate(xs, axis=dim)

    def backward(self, dy: Array, /) -> tuple[Array, ...]:
        return pieces(dy, self.lengths, self.dim)


class Stack(Function):
    """Arrays of one shape one after the other along a new axis."""

    def forward(self, *xs: Array, dim: int) -> Array:
        self.dim = dim
        return self.xp.stack(xs, axis=dim)

    def backward(self, dy: Array, /) -> tuple[Array, ...]:
        return tuple(dy[(slice(None),) * self.dim + (i,)] for i in range(len(self.needs)))


class Split(Function):
    """Consecutive parts of an axis, as views."""

    view = True

    def forward(self, x: Array, *, lengths: tuple[int, ...], dim: int) -> tuple[Array, ...]:
        self.dim = dim
        return pieces(x, lengths, dim)

    def backward(self, *dy: Array) -> Array:
        return self.xp.concatenate(dy, axis=self.dim)


def as_list(tensors: Any) -> list[Tensor]:
    """The tensors to join, at least one."""
    if not isinstance(tensors, (tuple, list)):
        raise DtypeError(f"expected a sequence of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ArgumentError("expected at least one tensor, got none")
    for x in tensors:
        require_tensor(x, "every input")
    return list(tensors)


@under_autocast
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along an axis, in their common dtype; other axes agree.

    A tensor of shape (0,), such as ``tensor([])``, joins tensors of any shape, as in PyTorch.
    """
    given = as_list(tensors)
    xs = [x for x in given if x.array.shape != (0,)] or given
    first = xs[0].array.shape
    if not first:
        raise ShapeError("expected tensors with axes, got a scalar; use stack()")
    axis = one_axis(dim, len(first))
    for x in xs:
        shape = x.array.shape
        if len(shape) != len(first) or any(
            m != n and i != axis for i, (m, n) in enumerate(zip(first, shape, strict=True))
        ):
            raise ShapeError(f"expected {first} but for axis {axis}, got {shape}")
    if len(xs) != len(given):
        dtype = result_type(*given)
        return Concatenate.apply(*(cast(x, dtype) for x in xs), dim=axis)  # type: ignore[no-any-return]
    return Concatenate.apply(*promote(*xs), dim=axis)  # type: ignore[no-any-return]


@under_autocast
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new axis at ``dim``, in their common dtype."""
    xs = as_list(tensors)
    first = xs[0].array.shape
    for x in xs:
        if x.array.shape != first:
            raise ShapeError(f"expected tensors of one shape, got {first} and {x.array.shape}")
    return Stack.apply(*promote(*xs), dim=one_axis(dim, len(first) + 1))  # type: ignore[no-any-return]


def cut(x: Tensor, lengths: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Views of consecutive parts of an axis."""
    parts: tuple[Tensor, ...] = Split.apply(x, lengths=tuple(lengths), dim=axis)
    return tuple(part.share(x) for part in parts)


def axis_and_size(x: Tensor, dim: int) -> tuple[int, int]:
    require_tensor(x)
    if not x.array.ndim:
        raise ShapeError("expected a tensor with axes to split, got a scalar")
    axis = one_axis(dim, x.array.ndim)
    return axis, x.array.shape[axis]


def split(
    tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Views of parts of an axis: of one size, the last may be smaller, or of the given sizes.

    Raises
    ------
    ShapeError
        If the sizes do not add up to the axis, or are negative.
    """
    axis, size = axis_and_size(tensor, dim)
    if isinstance(split_size_or_sections, (tuple, list)):
        lengths = sizes(split_size_or_sections)
        if sum(lengths) != size:
            raise ShapeError(f"expected parts that add up to {size}, got {lengths}")
        return cut(tensor, lengths, axis)
    (each,) = sizes((split_size_or_sections,))
    if not each and size:
        raise ShapeError(f"expected parts larger than 0 of an axis of {size}")
    full, rest = divmod(size, max(each, 1))
    return cut(tensor, [each] * full + [rest] * bool(rest or not full), axis)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of at most ``chunks`` parts of an axis, equal but for the last."""
    _, size = axis_and_size(input, dim)
    if chunks < 1:
        raise ArgumentError(f"expected at least 1 chunk, got {chunks}")
    return split(input, max(-(-size // chunks), 1), dim)


def tensor_split(
    input: Tensor, indices_or_sections: Tensor | int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Views of so many parts of an axis, the first ones larger, or cut at indices.

    Either may come as a tensor of whole numbers, which on a GPU is waited for.
    """
    axis, size = axis_and_size(input, dim)
    if isinstance(indices_or_sections, Variable):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, (tuple, list)):
        edges = [0, *(slice(None, i).indices(size)[1] for i in indices_or_sections), size]
        return tuple(input[(slice(None),) * axis + (slice(a, b),)] for a, b in pairwise(edges))
    count: Any = indices_or_sections
    if count < 1:
        raise ArgumentError(f"expected at least 1 section, got {count}")
    each, longer = divmod(size, count)
    return cut(input, [each + 1] * longer + [each] * (count - longer), axis)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the slices along an axis, without it."""
    axis, size = axis_and_size(input, dim)
    return tuple(squeeze(part, axis) for part in cut(input, [1] * size, axis)) if size else ()


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates on a grid, from those along each of its axes; ``"xy"`` exchanges the first two.

    Shapes
    ------
    (n,), (m,), ... -> (n, m, ...) each
    """
    xs = as_list(tensors[0] if len(tensors) == 1 and not hasattr(tensors[0], "array") else tensors)
    if indexing not in ("ij", "xy"):
        raise ArgumentError(f"expected indexing 'ij' or 'xy', got {indexing!r}")
    if any(x.array.ndim > 1 for x in xs):
        raise ShapeError(f"expected vectors, got {[x.array.shape for x in xs]}")
    order = list(range(len(xs)))
    if indexing == "xy":
        order[:2] = order[1::-1]
    shape = tuple(xs[i].array.size for i in order)
    return tuple(
        broadcast_to(
            reshape(x, [n if j == i else 1 for j, n in zip(order, shape, strict=True)]), shape
        )
        for i, x in enumerate(xs)
    )


concat = concatenate = cat
