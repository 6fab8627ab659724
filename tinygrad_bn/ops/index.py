"""Reading ``x[...]``: elements and parts by their place, with PyTorch's meaning of mixed indices.

Integers and slices give views. Integer tensors, masks and lists give copies; the axes they bring
come first where the indices are apart, else where these stood, and unlike NumPy's, integers take no
part in that.

Every index is checked, on a GPU too, where that means to wait for the device; code that has checked
its own applies `GetItem` itself.
"""

from __future__ import annotations

import operator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, RangeError
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.shape import broadcast_shapes

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = ["nonzero"]

EVERYTHING = slice(None)
BASIC = (int, slice, type(None), type(Ellipsis))


class GetItem(Function):
    """The elements at integer arrays or a mask, as a copy."""

    def forward(self, x: Array, *, index: Any) -> Array:
        self.shape, self.index = x.shape, index
        return x[index]

    def backward(self, dy: Array, /) -> Array:
        return self.xp.add_at(self.shape, self.index, dy)


class GetView(GetItem):
    """The elements at integers and slices, in the same memory."""

    view = True


class AddAt(Function):
    """Zeros of a shape, to which values are added at an index."""

    def forward(self, values: Array, *, shape: tuple[int, ...], index: Any) -> Array:
        self.index = index
        return self.xp.add_at(shape, index, values)

    def backward(self, dy: Array, /) -> Array:
        return dy[self.index]


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: a view for integers and slices, a copy for tensors, masks and lists.

    Slices may have negative steps, which PyTorch's may not.

    Raises
    ------
    RangeError
        For an index outside of its axis, too many indices, or a mask that does not fit.
    DtypeError
        For an index that is no whole number, slice, None, Ellipsis, integers or booleans.
    """
    parts = index if index.__class__ is tuple else (index,)
    if all(part.__class__ in BASIC for part in parts):
        try:  # which spares the common case everything below; that says what is wrong if it fails
            return GetView.apply(input, index=parts if ... in parts else (*parts, ...))  # type: ignore[no-any-return]
        except (IndexError, TypeError, ValueError):
            pass
    basic, advanced = parse(input, parts)
    y = input if basic is None else GetView.apply(input, index=basic)
    if advanced is None:
        return y
    try:
        return GetItem.apply(y, index=advanced)  # type: ignore[no-any-return]
    except IndexError as error:
        raise beyond(y, error) from None


def beyond(x: Tensor, error: IndexError) -> RangeError:
    return RangeError(f"expected indices within {x.array.shape}, got others: {error}")


def parse(
    x: Tensor, index: tuple[Any, ...]
) -> tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]:
    """An index of integers and slices, then one of arrays on what that leaves; or None."""
    shape = x.array.shape
    basic: list[Any] = []
    advanced: list[Any] = []
    axis = 0
    for part, taken in laid_out(x, index):
        if isinstance(part, int) and not isinstance(part, bool):
            if not -shape[axis] <= part < shape[axis]:
                raise outside(part, shape[axis])
            basic.append(part)
        elif isinstance(part, bool):  # a new axis of size 1 or 0
            basic.append(None)
            advanced.append(x.backend.asarray([0] * part, np.int64))
        elif isinstance(part, x.backend.array_type):
            require_fit(x.backend, part, shape[axis : axis + taken])
            basic += [EVERYTHING] * taken
            advanced.append(part)
        else:
            basic.append(part)
            advanced += [EVERYTHING] * (1 if part is None else taken)
        axis += taken
    arrays = [p for p in advanced if not isinstance(p, slice)]
    trivial = arrays and all(p == EVERYTHING or p is Ellipsis for p in basic)
    return (
        None if trivial else tuple(basic),
        together(x.backend, advanced) if arrays else None,
    )


def laid_out(x: Tensor, index: tuple[Any, ...]) -> list[tuple[Any, int]]:
    """The parts of an index, an Ellipsis among them, and how many axes each stands for."""
    ndim, parts = x.array.ndim, [part_of(p, x) for p in index]
    taken = [axes_taken(p) for p in parts]
    rest = ndim - sum(taken)
    if rest < 0 or sum(p is Ellipsis for p in parts) > 1:
        raise RangeError(f"expected at most {ndim} indices and one Ellipsis, got {index!r}")
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)  # so that even a single element comes as an array
        taken.append(0)
    return [(p, rest if p is Ellipsis else n) for p, n in zip(parts, taken, strict=True)]


def part_of(part: Any, x: Tensor) -> Any:
    """One part of an index: an int, bool, slice, None, Ellipsis, or an array on the device of x."""
    kind = part.__class__
    if kind is int or part is None or part is Ellipsis or kind is bool:
        return part
    if kind is slice:
        return as_slice(part)
    if isinstance(part, np.bool_):
        return bool(part)
    if isinstance(part, Variable):
        if part.backend is not x.backend:
            raise BackendError(f"expected an index on {x.device}, got one on {part.backend.device}")
        found = part.array
    elif isinstance(part, (list, tuple)):
        found = x.backend.asarray(part)
        found = found if found.size else x.backend.asarray(found, np.int64)
    elif isinstance(part, (np.ndarray, x.backend.array_type)):
        found = x.backend.asarray(part)
    elif hasattr(part, "__index__") and not hasattr(part, "__dlpack__"):  # no foreign tensor
        return operator.index(part)
    else:
        raise DtypeError(
            "expected whole numbers, slices, None, Ellipsis, or tensors of integers or booleans "
            f"as indices, got {type(part).__name__}"
        )
    if found.dtype.kind not in "ib":
        raise DtypeError(
            f"expected indices of a signed integer dtype, or a mask of bool, got {found.dtype}"
        )
    if not found.ndim:
        return x.backend.to_numpy(found).item()
    recorded = x.requires_grad and config.grad_mode.get()
    return x.backend.copy(found) if recorded and isinstance(part, Variable) else found


def as_slice(part: slice) -> slice:
    """The slice with whole numbers."""
    try:
        bounds = [
            None if n is None else operator.index(n) for n in (part.start, part.stop, part.step)
        ]
    except TypeError:
        raise DtypeError(f"expected a slice of whole numbers, got {part}") from None
    if bounds[2] == 0:
        raise ArgumentError("expected a step other than 0")
    return slice(*bounds)


def axes_taken(part: Any) -> int:
    """How many axes of the tensor a part of an index stands for; Ellipsis takes what is left."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if getattr(part, "dtype", None) == np.bool_ else 1


def require_fit(backend: Backend, index: Array, shape: tuple[int, ...]) -> None:
    """Refuse integers outside of their axis, and a mask of another shape than what it masks."""
    if index.dtype.kind == "b":
        if index.shape != shape:
            raise RangeError(f"expected a mask of shape {shape}, got {index.shape}")
    elif backend.device != "cpu":  # NumPy checks by itself, CuPy would wrap around
        require_within(backend, index, -shape[0], shape[0])


def require_within(backend: Backend, index: Array, low: int, high: int) -> None:
    """Refuse integers outside of [low, high); on a GPU this waits for them."""
    if index.size:
        config.at_each_replay(refuse_beyond, backend, index, low, high)


def refuse_beyond(backend: Backend, index: Array, low: int, high: int) -> None:
    with backend.guard or nullcontext():
        least, most = int(backend.xp.min(index)), int(backend.xp.max(index))
    if least < low or most >= high:
        raise RangeError(
            f"expected indices within [{low}, {high}), got {least if least < low else most}"
        )


def outside(index: int, size: int) -> RangeError:
    return RangeError(f"expected an index within [{-size}, {size}), got {index}")


def together(backend: Backend, index: list[Any]) -> tuple[Any, ...]:
    """The index with arrays that broadcast: masks that are not alone as places where they hold."""
    if sum(not isinstance(p, slice) for p in index) == 1:
        return tuple(index)
    parts: list[Any] = []
    for p in index:
        if not isinstance(p, slice) and p.dtype.kind == "b":
            with backend.guard or nullcontext():
                parts += backend.xp.nonzero(p)
        else:
            parts.append(p)
    broadcast_shapes(*(p.shape for p in parts if not isinstance(p, slice)))
    return tuple(parts)


def whole_numbers(backend: Backend, n: int, start: int = 0) -> Array:
    """n whole numbers from ``start`` on, on the device, as an index."""
    with backend.guard or nullcontext():
        return backend.xp.arange(start, start + n, dtype=np.int64)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of the elements that are not zero, in C order; on a GPU this waits for them.

    Shapes
    ------
    (count, ndim), or with ``as_tuple`` one (count,) for each axis; int64.
    """
    require_tensor(input)
    backend = input.backend
    with backend.guard or nullcontext():
        places = backend.xp.nonzero(
            input.array if input.array.ndim else backend.xp.reshape(input.array, (1,))
        )
        if as_tuple:
            return tuple(input.wrap_like(p) for p in places)
        kept = places if input.array.ndim else ()
        count = places[0].shape[0]
        stacked = (
            backend.xp.stack(kept, axis=1) if kept else backend.xp.zeros((count, 0), dtype=np.int64)
        )
    return input.wrap_like(stacked)
