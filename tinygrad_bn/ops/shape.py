"""Operations that move elements and compute nothing: the same values in another shape or order."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.walk import unbroadcast
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import ShapeError
from tinygrad_bn.ops.promotion import require_tensor

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "flatten",
    "moveaxis",
    "movedim",
    "permute",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]


class Reshape(Function):
    """The same elements in C order, in another shape."""

    view = True

    def forward(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        return self.xp.reshape(x, shape)

    def backward(self, dy: Array, /) -> Array:
        return self.xp.reshape(dy, self.shape)


class Permute(Function):
    """The axes in another order."""

    view = True

    def forward(self, x: Array, *, dims: tuple[int, ...]) -> Array:
        self.dims = dims
        return self.xp.transpose(x, dims)

    def backward(self, dy: Array, /) -> Array:
        inverse = [0] * len(self.dims)
        for i, dim in enumerate(self.dims):
            inverse[dim] = i
        return self.xp.transpose(dy, tuple(inverse))


class BroadcastTo(Function):
    """Axes of size 1, and new leading ones, repeated without a copy."""

    view = True

    def forward(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        self.shape = x.shape
        return self.xp.broadcast_to(x, shape)

    def backward(self, dy: Array, /) -> Array:
        return unbroadcast(self.xp, dy, self.shape)


def one_axis(dim: int, ndim: int) -> int:
    """The axis ``dim`` counted from 0.

    Raises
    ------
    ShapeError
        If a tensor of rank ``ndim`` has no such axis.
    """
    if dim.__class__ is not int:
        try:
            dim = operator.index(dim)
        except TypeError:
            raise ShapeError(f"expected an axis number, got {dim!r}") from None
    rank = max(ndim, 1)  # a scalar counts as having one axis, as in PyTorch
    if not -rank <= dim < rank:
        raise ShapeError(f"expected an axis within [-{rank}, {rank}), got {dim}")
    return int(dim) % rank


def axes(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """The axes ``dim`` counted from 0, each at most once; all of them for None or ()."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(ndim))
    if not isinstance(dim, (tuple, list)):
        found: tuple[int, ...] = (one_axis(dim, ndim),)  # type: ignore[arg-type]
    else:
        found = tuple(one_axis(d, ndim) for d in dim)
    if len(set(found)) != len(found):
        raise ShapeError(f"expected each axis once, got {dim}")
    return found if ndim else ()


def chosen(dim: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """As `axes`, where () means none."""
    return axes(dim, ndim) if not isinstance(dim, (tuple, list)) or dim else ()


INTEGERS = frozenset({int})


def as_shape(sizes: Any) -> tuple[int, ...]:
    """A shape given as one sequence or as several numbers."""
    if len(sizes) == 1 and sizes[0].__class__ is tuple:
        sizes = sizes[0]
    if INTEGERS.issuperset(map(type, sizes)):
        return tuple(sizes)
    try:
        if len(sizes) == 1 and not hasattr(sizes[0], "__index__"):
            sizes = tuple(sizes[0])
        return tuple(operator.index(n) for n in sizes)
    except TypeError:
        raise ShapeError(f"expected sizes as whole numbers, got {sizes!r}") from None


def sizes(given: Any) -> tuple[int, ...]:
    """The shape of a new tensor, given as one sequence or as several numbers; none is negative."""
    shape = as_shape(given)
    if any(n < 0 for n in shape):
        raise ShapeError(f"expected sizes ≥ 0, got {shape}")
    return shape


def resolve(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The shape with its -1 worked out.

    Raises
    ------
    ShapeError
        If ``size`` elements do not fit the shape.
    """
    known = math.prod(n for n in shape if n != -1)
    unknown = shape.count(-1)
    if unknown > 1 or any(n < -1 for n in shape):
        raise ShapeError(f"expected sizes ≥ 0 and at most one -1, got {shape}")
    if unknown and known and size % known == 0:
        return tuple(size // known if n == -1 else n for n in shape)
    if unknown or known != size:
        raise ShapeError(f"expected a shape for {size} elements, got {shape}")
    return shape


def reshape(input: Tensor, shape: Any, *more: Any) -> Tensor:
    """The same elements in C order in another shape, with at most one -1; a view where possible."""
    require_tensor(input)
    wanted = as_shape((shape, *more))
    try:
        if min(wanted, default=0) >= -1:
            return Reshape.apply(input, shape=wanted)  # type: ignore[no-any-return]
    except ValueError:
        pass
    return Reshape.apply(input, shape=resolve(wanted, input.array.size))  # type: ignore[no-any-return]


def view(input: Tensor, size: Any, *more: Any) -> Tensor:
    """As `reshape`, but always in the same memory.

    Raises
    ------
    ShapeError
        If the elements do not lie so that the shape could be a view of them; `reshape` would copy.
    """
    y = reshape(input, size, *more)
    if y.array.size and not y.backend.overlap(y.array, input.array):
        raise ShapeError(
            f"expected elements that lie in order to view {input.shape} as {y.shape}; use reshape()"
        )
    return y


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """In the shape of another tensor."""
    return reshape(input, other.array.shape)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """In the shape of another tensor, in the same memory."""
    return view(input, other.array.shape)


def permute(input: Tensor, dims: Any, *more: Any) -> Tensor:
    """The axes in the order ``dims``, one sequence or several numbers; a view."""
    require_tensor(input)
    order = axes(as_shape((dims, *more)), input.array.ndim)
    if len(order) != input.array.ndim:
        raise ShapeError(f"expected the {input.array.ndim} axes in some order, got {dims, *more}")
    return Permute.apply(input, dims=order)  # type: ignore[no-any-return]


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged; a view."""
    require_tensor(input)
    ndim = input.array.ndim
    i, j = one_axis(dim0, ndim), one_axis(dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[i], order[j] = j, i
    return Permute.apply(input, dims=tuple(order))  # type: ignore[no-any-return]


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes ``source`` at the places ``destination``, the others in their order; a view."""
    require_tensor(input)
    ndim = input.array.ndim
    moved, places = chosen(source, ndim), chosen(destination, ndim)
    if len(moved) != len(places):
        raise ShapeError(f"expected as many places as axes, got {source} and {destination}")
    order = [i for i in range(ndim) if i not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return Permute.apply(input, dims=tuple(order))  # type: ignore[no-any-return]


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; what has fewer axes, itself. Also the property ``T``."""
    require_tensor(input)
    if input.array.ndim > 2:
        raise ShapeError(f"expected at most 2 axes to transpose, got {input.shape}; use mT")
    return permute(input, tuple(reversed(range(input.array.ndim))))


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two axes exchanged; a view. The property ``mT``."""
    require_tensor(input)
    if input.array.ndim < 2:
        raise ShapeError(f"expected at least 2 axes, got {input.shape}")
    return transpose(input, -2, -1)


def broadcast_to(input: Tensor, size: Any, *more: Any) -> Tensor:
    """Axes of size 1, and new leading ones, repeated to ``size``; a view, not to be written to."""
    require_tensor(input)
    wanted, have = as_shape((size, *more)), input.array.shape
    try:
        return BroadcastTo.apply(input, shape=wanted)  # type: ignore[no-any-return]
    except ValueError:
        raise ShapeError(f"expected a shape that {have} broadcasts to, got {wanted}") from None


def expand(input: Tensor, size: Any, *more: Any) -> Tensor:
    """As `broadcast_to`; -1 keeps the size of an axis."""
    require_tensor(input)
    wanted, have = as_shape((size, *more)), input.array.shape
    if -1 not in wanted:
        return broadcast_to(input, wanted)
    extra = len(wanted) - len(have)
    kept = tuple(
        have[i - extra] if n == -1 and i >= extra >= 0 else n for i, n in enumerate(wanted)
    )
    if any(n < 0 for n in kept):
        raise ShapeError(
            f"expected sizes ≥ 0, and -1 only for axes that exist, got {wanted} for {have}"
        )
    return broadcast_to(input, kept)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of another tensor."""
    return expand(input, other.array.shape)


def broadcast_shapes(*shapes: int | Sequence[int]) -> tuple[int, ...]:
    """The shape that these broadcast to together; a number is a shape of one axis."""
    result: list[int] = []
    for given in shapes:
        shape = as_shape((given,))
        extra = len(shape) - len(result)
        result = [1] * extra + result
        for i, n in enumerate(shape, start=max(-extra, 0)):
            if n != 1 and result[i] not in (1, n):
                raise ShapeError(f"expected shapes that broadcast, got {shapes}")
            result[i] = n if n != 1 else result[i]
    return tuple(result)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of the tensors in the shape they broadcast to together."""
    for x in tensors:
        require_tensor(x, "every input")
    shape = broadcast_shapes(*(x.array.shape for x in tensors))
    return tuple(broadcast_to(x, shape) for x in tensors)


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the axes of size 1, or without those among ``dim``."""
    require_tensor(input)
    among = axes(dim, input.array.ndim) if dim is None else chosen(dim, input.array.ndim)
    shape = tuple(n for i, n in enumerate(input.array.shape) if n != 1 or i not in among)
    return Reshape.apply(input, shape=shape)  # type: ignore[no-any-return]


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With an axis of size 1 at ``dim``."""
    require_tensor(input)
    at = one_axis(dim, input.array.ndim + 1)
    shape = input.array.shape
    return Reshape.apply(input, shape=(*shape[:at], 1, *shape[at:]))  # type: ignore[no-any-return]


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from ``start_dim`` to ``end_dim`` as one."""
    require_tensor(input)
    shape, ndim = input.array.shape, input.array.ndim
    start, end = one_axis(start_dim, ndim), one_axis(end_dim, ndim)
    if start > end:
        raise ShapeError(f"expected start_dim before end_dim, got {start_dim} and {end_dim}")
    flat = math.prod(shape[start : end + 1])
    return Reshape.apply(input, shape=(*shape[:start], flat, *shape[end + 1 :]))  # type: ignore[no-any-return]


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """The axis ``dim`` as several of the given sizes, one of which may be -1."""
    require_tensor(input)
    at, shape = one_axis(dim, input.array.ndim), input.array.shape
    inner = resolve(as_shape((sizes,)), shape[at])
    return Reshape.apply(input, shape=(*shape[:at], *inner, *shape[at + 1 :]))  # type: ignore[no-any-return]


swapaxes = swapdims = transpose
moveaxis = movedim
