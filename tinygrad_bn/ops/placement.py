"""Elements collected from, and distributed to, places that tensors of indices name."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import BackendError, DtypeError, RangeError, ShapeError
from tinygrad_bn.ops import elementwise
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.index import EVERYTHING, AddAt, GetItem, getitem, nonzero, require_within
from tinygrad_bn.ops.promotion import cast, category, require_tensor, result_type
from tinygrad_bn.ops.shape import broadcast_shapes, broadcast_to, one_axis, reshape

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "gather",
    "index_add",
    "index_select",
    "masked_fill",
    "masked_select",
    "one_hot",
    "scatter",
    "scatter_add",
    "take",
    "take_along_dim",
    "where",
]


class TakeAlongAxis(Function):
    """The elements whose places along one axis an array of indices gives."""

    def forward(self, x: Array, indices: Array, *, axis: int) -> Array:
        self.shape, self.indices, self.axis = x.shape, indices, axis
        return self.xp.take_along_axis(x, indices, axis)

    def backward(self, dy: Array, /) -> tuple[Array, None]:
        return self.xp.add_along_axis(self.shape, self.indices, dy, self.axis), None


class AddAlongAxis(Function):
    """Zeros of a shape, to which values are added at places along one axis."""

    def forward(self, indices: Array, values: Array, *, shape: tuple[int, ...], axis: int) -> Array:
        self.indices, self.axis = indices, axis
        return self.xp.add_along_axis(shape, indices, values, axis)

    def backward(self, dy: Array, /) -> tuple[None, Array]:
        inner = tuple(
            EVERYTHING if i == self.axis else slice(n) for i, n in enumerate(self.indices.shape)
        )
        return None, self.xp.take_along_axis(dy[inner], self.indices, self.axis)


def require_index(input: Tensor, index: Tensor) -> None:
    """Refuse what is not a tensor of signed integers beside ``input``."""
    require_tensor(input)
    require_tensor(index, "the index")
    if index.backend is not input.backend:
        raise BackendError(f"expected an index on {input.device}, got one on {index.device}")
    if index.array.dtype.kind != "i":
        raise DtypeError(f"expected an index of a signed integer dtype, got {index.array.dtype}")


def placed(input: Tensor, dim: int, index: Tensor) -> tuple[Tensor, Tensor, int]:
    """input, index (scalars with one axis) and axis, checked for `gather` and `scatter`."""
    require_index(input, index)
    axis = one_axis(dim, input.array.ndim)
    x = input if input.array.ndim else reshape(input, (1,))
    i = index if index.array.ndim else reshape(index, (1,))
    if i.array.ndim != x.array.ndim:
        raise ShapeError(f"expected an index of rank {x.array.ndim}, got {index.array.shape}")
    if any(m > n for d, (m, n) in enumerate(zip(i.shape, x.shape, strict=True)) if d != axis):
        raise ShapeError(f"expected an index within {x.shape} but for axis {axis}, got {i.shape}")
    require_within(x.backend, i.array, 0, x.shape[axis])
    return x, i, axis


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[i][j][k] = input[i][index[i][j][k]][k], for dim 1 of three.

    On axes other than ``dim`` the index may be shorter than the input.

    Raises
    ------
    RangeError
        For an index below 0 or beyond the axis.
    """
    x, i, axis = placed(input, dim, index)
    within = tuple(EVERYTHING if d == axis else slice(n) for d, n in enumerate(i.shape))
    y: Tensor = TakeAlongAxis.apply(x if i.shape == x.shape else x[within], i, axis=axis)
    return y if index.array.ndim else reshape(y, ())


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As `gather`, where the other axes broadcast; without ``dim`` of the elements in C order.

    Indices below 0 count from the end.
    """
    if dim is None:
        require_tensor(input)
        return take_along_dim(reshape(input, (-1,)), reshape(indices, (-1,)), 0)
    require_index(input, indices)
    axis = one_axis(dim, input.array.ndim)
    if indices.array.ndim != input.array.ndim:
        raise ShapeError(f"expected an index of rank {input.array.ndim}, got {indices.shape}")
    if input.array.ndim:
        indices = elementwise.where(indices < 0, indices + input.array.shape[axis], indices)
    a, b = list(input.shape), list(indices.shape)
    a[axis] = b[axis] = 1
    common = list(broadcast_shapes(a, b))
    rest = common[axis + 1 :]
    x = broadcast_to(input, (*common[:axis], input.shape[axis], *rest))
    return gather(x, axis, broadcast_to(indices, (*common[:axis], indices.shape[axis], *rest)))


def source(x: Tensor, i: Tensor, src: Tensor) -> Tensor:
    """The part of ``src`` that the index distributes."""
    require_tensor(src, "src")
    if src.array.dtype != x.array.dtype:
        raise DtypeError(f"expected src of {x.array.dtype}, got {src.array.dtype}")
    src = src if src.array.ndim else reshape(src, (1,))
    if src.array.ndim != i.array.ndim or any(
        m > n for m, n in zip(i.shape, src.shape, strict=True)
    ):
        raise ShapeError(f"expected src of at least {i.shape}, got {src.shape}")
    return src if src.shape == i.shape else src[tuple(slice(n) for n in i.shape)]


@under_autocast
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with src[i][j][k] added at [i][index[i][j][k]][k], for dim 1 of three."""
    x, i, axis = placed(input, dim, index)
    values = source(x, i, src)
    y = x + AddAlongAxis.apply(i, values, shape=x.shape, axis=axis)
    return reshape(y, input.shape)


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | None = None,
    *,
    value: float | None = None,
) -> Tensor:
    """input with src[i][j][k], or one value, at [i][index[i][j][k]][k], for dim 1 of three.

    Notes
    -----
    Where several sources meet, one of them arrives; only it has a gradient (in PyTorch, all have).
    PyTorch's ``reduce``, which it deprecates, is `scatter_add`, or missing.
    """
    x, i, axis = placed(input, dim, index)
    if src is not None and not isinstance(src, Variable):
        src, value = None, src  # PyTorch takes the value in the place of src too
    if (src is None) == (value is None):
        raise DtypeError("expected either src or value")
    hit, won = arrivals(x, i, axis)
    if src is None:
        return reshape(masked_fill(x, hit, value), input.shape)  # type: ignore[arg-type]
    kept = elementwise.where(won, source(x, i, src), 0)
    added = cast(AddAlongAxis.apply(i, kept, shape=x.shape, axis=axis), x.dtype)
    return reshape(elementwise.where(hit, added, x), input.shape)


def arrivals(x: Tensor, i: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Which elements of x the index names, and which of the index's sources arrive there."""
    backend, xp, shape = x.backend, x.backend.xp, i.shape
    with backend.guard or nullcontext():
        order = xp.reshape(xp.arange(i.array.size, dtype=np.int64), shape)
        grid = [
            xp.reshape(xp.arange(n, dtype=np.int64), (n,) + (1,) * (len(shape) - 1 - d))
            for d, n in enumerate(shape)
        ]
        grid[axis] = i.array
        last = xp.full(x.shape, -1, dtype=np.int64)
        last[tuple(grid)] = order
        return x.wrap_like(last >= 0), x.wrap_like(last[tuple(grid)] == order)


def along(input: Tensor, dim: int, index: Tensor) -> tuple[int, tuple[Any, ...]]:
    """The axis, and the index of whole slices along it, with numbers from 0."""
    require_index(input, index)
    axis = one_axis(dim, input.array.ndim)
    if index.array.ndim > 1:
        raise ShapeError(f"expected an index of rank 1, got {index.array.shape}")
    require_within(input.backend, index.array, 0, (*input.array.shape, 1)[axis])
    places = index.backend.copy(index.array) if input.requires_grad else index.array
    return axis, (EVERYTHING,) * axis + (reshape_array(index, places),)


def reshape_array(index: Tensor, places: Array) -> Array:
    return places if index.array.ndim else index.backend.xp.reshape(places, (1,))


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along ``dim`` with the numbers in ``index``, a vector, as a copy."""
    places = along(input, dim, index)[1]
    if not input.array.ndim:  # PyTorch's scalar has one axis to select from, and stays one
        return reshape(GetItem.apply(reshape(input, (1,)), index=places), ())
    return GetItem.apply(input, index=places)  # type: ignore[no-any-return]


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """input with alpha times the slices of ``source`` added to those numbered in ``index``."""
    axis, places = along(input, dim, index)
    require_tensor(source, "source")
    if not input.array.ndim:
        return reshape(
            index_add(reshape(input, (1,)), 0, index, reshape(source, (-1,)), alpha=alpha), ()
        )
    wanted = (*input.shape[:axis], places[-1].size, *input.shape[axis + 1 :])
    if source.array.shape != wanted or source.array.dtype != input.array.dtype:
        raise ShapeError(
            f"expected a source {wanted} of {input.dtype}, got {source.shape} of {source.dtype}"
        )
    scaled = source if alpha == 1 else source * alpha
    return input + AddAt.apply(scaled, shape=input.shape, index=places)  # type: ignore[no-any-return]


def masked_fill(input: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """input with one number, or tensor of rank 0, where the mask, which broadcasts, holds."""
    require_tensor(input)
    require_mask(mask)
    if isinstance(value, Variable) and value.array.ndim:
        raise ShapeError(f"expected a value of rank 0, got {value.array.shape}")
    if category(result_type(value)) > category(input.array.dtype):
        raise DtypeError(f"expected a value that {input.array.dtype} holds, got {value}")
    if isinstance(value, Variable):
        value = cast(value, input.array.dtype)
    return elementwise.where(mask, value, input)


def require_mask(mask: Tensor) -> None:
    require_tensor(mask, "the mask")
    if mask.array.dtype.kind != "b":
        raise DtypeError(f"expected a mask of bool, got {mask.array.dtype}")


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, both broadcast, in C order as a vector."""
    require_tensor(input)
    require_mask(mask)
    shape = broadcast_shapes(input.shape, mask.shape)
    if not shape:
        return masked_select(reshape(input, (1,)), mask)
    return getitem(broadcast_to(input, shape), broadcast_to(mask, shape))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements with these numbers in C order, in the shape of the index."""
    require_index(input, index)
    return reshape(getitem(reshape(input, (-1,)), (reshape(index, (-1,)),)), index.array.shape)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A 1 at the place of each label, zeros elsewhere, along a new last axis; int64.

    Raises
    ------
    RangeError
        For a label outside of [0, num_classes); the default is one more than the greatest.
    """
    require_index(tensor, tensor)
    backend, labels = tensor.backend, tensor.array
    if num_classes == -1:
        if not labels.size:
            raise ShapeError("expected labels, or num_classes, got neither")
        with backend.guard or nullcontext():
            num_classes = int(backend.to_numpy(backend.xp.max(labels))) + 1
    if num_classes < 1:
        raise RangeError(f"expected labels ≥ 0 and num_classes > 0, got {num_classes} classes")
    require_within(backend, labels, 0, num_classes)
    with backend.guard or nullcontext():
        classes = backend.xp.arange(num_classes, dtype=labels.dtype)
        hot: Tensor = tensor.wrap_like(backend.xp.astype(labels[..., None] == classes, np.int64))
    return hot


def where(
    condition: Tensor, input: Tensor | float | None = None, other: Tensor | float | None = None
) -> Any:
    """input where the condition (bool) holds, other elsewhere; all three broadcast.

    With the condition alone, the places where it holds, as `nonzero` with ``as_tuple``.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise DtypeError("expected where(condition) or where(condition, input, other)")
    return elementwise.where(condition, input, other)


def chosen_where(input: Tensor, condition: Tensor, other: Tensor | float) -> Tensor:
    """input where the condition holds, other elsewhere: the method ``where``."""
    return elementwise.where(condition, input, other)
