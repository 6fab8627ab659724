"""The same elements in another order, repeated, or with others around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array, current
from tinygrad_bn.errors import ArgumentError, ShapeError
from tinygrad_bn.ops.autocasting import under_autocast
from tinygrad_bn.ops.index import AddAt, GetItem, whole_numbers
from tinygrad_bn.ops.promotion import require_tensor
from tinygrad_bn.ops.shape import (
    axes,
    broadcast_to,
    chosen,
    flatten,
    movedim,
    one_axis,
    reshape,
    sizes,
    unsqueeze,
)
from tinygrad_bn.ops.transfer import clone

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

__all__ = [
    "diag",
    "diagonal",
    "flip",
    "fliplr",
    "flipud",
    "repeat_interleave",
    "roll",
    "tile",
    "trace",
    "tril",
    "triu",
]


class Flip(Function):
    """The elements in reverse along some axes."""

    def forward(self, x: Array, *, dims: tuple[int, ...]) -> Array:
        self.dims = dims
        return self.backend.copy(self.xp.flip(x, dims))  # NumPy's is a view, PyTorch's is not

    def backward(self, dy: Array, /) -> Array:
        return self.xp.flip(dy, self.dims)


class Roll(Function):
    """The elements moved along some axes; those that leave come in again at the other end."""

    def forward(self, x: Array, *, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Array:
        self.shifts, self.dims = shifts, dims
        return self.xp.roll(x, shifts, dims)

    def backward(self, dy: Array, /) -> Array:
        return self.xp.roll(dy, tuple(-n for n in self.shifts), self.dims)


class Pad(Function):
    """x with so many elements of one value before and after each axis."""

    def forward(self, x: Array, *, widths: tuple[tuple[int, int], ...], value: float) -> Array:
        self.inner = tuple(
            slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True)
        )
        return self.xp.pad(x, widths, mode="constant", constant_values=value)

    def backward(self, dy: Array, /) -> Array:
        return dy[self.inner]


class Triangle(Function):
    """A matrix with zeros above (``tril``) or below (``triu``) its k-th diagonal."""

    def forward(self, x: Array, *, part: str, k: int) -> Array:
        self.part, self.k = part, k
        return getattr(self.xp, part)(x, k)

    def backward(self, dy: Array, /) -> Array:
        return getattr(self.xp, self.part)(dy, self.k)


def flip(input: Tensor, dims: Any, *more: Any) -> Tensor:
    """The elements in reverse order along each of ``dims``, one sequence or several numbers."""
    require_tensor(input)
    return Flip.apply(input, dims=chosen((dims, *more) if more else dims, input.array.ndim))  # type: ignore[no-any-return]


def fliplr(input: Tensor) -> Tensor:
    """The elements in reverse order along axis 1."""
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """The elements in reverse order along axis 0."""
    require_tensor(input)
    if not input.array.ndim:
        raise ShapeError("expected a tensor with axes, got a scalar")
    return flip(input, 0)


def roll(
    input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
) -> Tensor:
    """The elements moved by ``shifts`` along ``dims``, or in C order without, round and round."""
    require_tensor(input)
    steps: Any = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    if dims is None:
        return reshape(roll(flatten(input), steps, 0), input.array.shape)
    at = (dims,) if not isinstance(dims, (tuple, list)) else dims
    where = tuple(one_axis(d, input.array.ndim) for d in at)  # an axis may come twice
    if len(steps) != len(where) or not input.array.ndim:
        raise ShapeError(
            f"expected a shift for each of some axes of {input.shape}, got {shifts} and {dims}"
        )
    return Roll.apply(input, shifts=steps, dims=where)  # type: ignore[no-any-return]


def repeat(input: Tensor, repeats: Any, *more: Any) -> Tensor:
    """The tensor side by side with itself, so many times along each axis; new axes come first.

    Notes
    -----
    PyTorch's ``repeat``; NumPy's is `repeat_interleave`.
    """
    require_tensor(input)
    times, shape = sizes((repeats, *more)), input.array.shape
    if len(times) < len(shape):
        raise ShapeError(f"expected a number for each axis of {shape}, got {times}")
    shape = (1,) * (len(times) - len(shape)) + shape
    apart = [n for size in shape for n in (1, size)]
    side_by_side = [n for pair in zip(times, shape, strict=True) for n in pair]
    spread = clone(broadcast_to(reshape(input, apart), side_by_side))
    return reshape(spread, [m * n for m, n in zip(times, shape, strict=True)])


def tile(input: Tensor, dims: Any, *more: Any) -> Tensor:
    """As `repeat`, where axes that are not named are left as they are: NumPy's ``tile``."""
    times = sizes((dims, *more))
    return repeat(input, (1,) * (input.array.ndim - len(times)) + times)


def repeat_interleave(
    input: Tensor, repeats: Tensor | int, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element along ``dim``, or each in C order without it, ``repeats`` times in a row.

    Parameters
    ----------
    repeats : one number for all, or a vector of one for each, which on a GPU is waited for.
    output_size : what the sizes along ``dim`` must add up to, if it is given.
    """
    require_tensor(input)
    x = input if dim is not None and input.array.ndim else flatten(input)
    at = one_axis(0 if dim is None else dim, x.array.ndim)
    each = isinstance(repeats, Variable) and repeats.array.size != 1
    y = repeated_each(x, repeats, at) if each else repeated(x, repeats, at)  # type: ignore[arg-type]
    if output_size not in (None, y.shape[at]):
        raise ShapeError(f"expected repeats that add up to {output_size}, got {y.shape[at]}")
    return y


def repeated(x: Tensor, repeats: Tensor | int, at: int) -> Tensor:
    """Every element along an axis so many times."""
    (times,), shape = sizes((repeats,)), x.array.shape
    spread = broadcast_to(unsqueeze(x, at + 1), (*shape[: at + 1], times, *shape[at + 1 :]))
    return reshape(clone(spread), (*shape[:at], shape[at] * times, *shape[at + 1 :]))


def repeated_each(x: Tensor, repeats: Tensor, at: int) -> Tensor:
    """Each element along an axis as often as a vector says: i comes where i ends are passed."""
    times, size, xp = repeats.array, x.array.shape[at], x.backend.xp
    if times.dtype.kind != "i" or times.shape != (size,) or repeats.backend is not x.backend:
        raise ShapeError(f"expected {size} whole numbers on {x.device}, got {repeats}")
    with current(x.backend):
        if not xp.all(times >= 0):
            raise ShapeError(f"expected repeats ≥ 0, got {repeats}")
        ends = xp.cumsum(times)
        total = int(ends[-1]) if size else 0
        past = xp.add_at((total + 1,), (ends,), xp.ones_like(ends))
        places = xp.cumsum(past[:total])
    return GetItem.apply(x, index=(slice(None),) * at + (places,))  # type: ignore[no-any-return]


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """The tensor with more elements around it.

    Parameters
    ----------
    input : of any rank.
    pad : how many before and after the last axis, before and after the one before it, and so on;
        negative numbers take elements away.
    mode : ``"constant"``, ``"reflect"`` (mirrored at the outermost element), ``"replicate"`` (that
        element again) or ``"circular"`` (from the other end).
    value : of the new elements in mode constant; 0 by default.

    Raises
    ------
    ShapeError
        If there are more pairs than axes, or an axis is too short to be mirrored or wrapped so far.
    """
    require_tensor(input)
    shape, widths = input.array.shape, tuple(int(n) for n in pad)
    if len(widths) % 2 or len(widths) > 2 * len(shape):
        raise ShapeError(f"expected pairs for some of the last {len(shape)} axes, got {widths}")
    pairs = [(0, 0)] * (len(shape) - len(widths) // 2)
    pairs += [(widths[i], widths[i + 1]) for i in range(len(widths) - 2, -1, -2)]
    if mode == "constant":
        return pad_constant(input, pairs, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular") or value is not None:
        raise ArgumentError(
            "expected mode 'constant', or 'reflect', 'replicate' or 'circular' without a value, "
            f"got {mode!r} and {value}"
        )
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            input = pad_from_within(input, axis, before, after, mode)
    return input


def pad_constant(x: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Elements of one value around x; what negative widths take away goes first."""
    for (before, after), n in zip(pairs, x.array.shape, strict=True):
        if n + min(before, 0) + min(after, 0) < 0 or n + before + after < 0:
            raise ShapeError(f"expected to leave a size ≥ 0 of {x.array.shape}, got {pairs}")
    if any(n < 0 for pair in pairs for n in pair):
        x = x[tuple(slice(max(-b, 0), min(a, 0) or None) for b, a in pairs)]
    widths = tuple((max(b, 0), max(a, 0)) for b, a in pairs)
    return Pad.apply(x, widths=widths, value=value)  # type: ignore[no-any-return]


def pad_from_within(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """More elements along one axis, which the axis itself supplies; or fewer.

    What a negative width takes away is not wrapped around, but still mirrored and repeated.
    """
    n = x.array.shape[axis]
    start, stop = max(-before, 0), n - max(-after, 0)
    most = {"reflect": n - 1, "circular": stop - start, "replicate": math.inf if n else 0}[mode]
    if max(before, after) > most or before + n + after < 1:
        raise ShapeError(
            f"expected widths of at most {most} for {n} elements in mode {mode!r}, and some "
            f"left, got {before, after}"
        )
    i, xp = whole_numbers(x.backend, before + n + after, -before), x.backend.xp
    with current(x.backend):
        if mode == "reflect":
            i = (n - 1) - xp.abs((n - 1) - xp.abs(i))
        elif mode == "circular":
            i = start + (i - start) % (stop - start)
        else:
            i = xp.clip(i, 0, n - 1)
    return GetItem.apply(x, index=(slice(None),) * axis + (i,))  # type: ignore[no-any-return]


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros above their diagonal, counted upwards from the main one."""
    return triangle(input, "tril", diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices with zeros below their diagonal, counted upwards from the main one."""
    return triangle(input, "triu", diagonal)


def triangle(x: Tensor, part: str, k: int) -> Tensor:
    require_tensor(x)
    if x.array.ndim < 2:
        raise ShapeError(f"expected matrices (..., n, m), got {x.array.shape}")
    return Triangle.apply(x, part=part, k=k)  # type: ignore[no-any-return]


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices that two axes form, as the last axis.

    Notes
    -----
    A copy; PyTorch's is a view.
    """
    require_tensor(input)
    return diagonals(input, offset, axes((dim1, dim2), input.array.ndim))


def diagonals(x: Tensor, offset: int, dims: tuple[int, ...]) -> Tensor:
    x = movedim(x, dims, (-2, -1))
    n, m = x.array.shape[-2:]
    size = max(min(n + min(offset, 0), m - max(offset, 0)), 0)
    row, column = (whole_numbers(x.backend, size, i) for i in places(offset))
    return GetItem.apply(x, index=(..., row, column))  # type: ignore[no-any-return]


def places(offset: int) -> tuple[int, int]:
    """The row and the column where a diagonal begins."""
    return -min(offset, 0), max(offset, 0)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with the vector on a diagonal, or the diagonal of a matrix."""
    require_tensor(input)
    if input.array.ndim == 2:
        return diagonals(input, diagonal, (0, 1))
    if input.array.ndim != 1:
        raise ShapeError(f"expected a vector or a matrix, got {input.array.shape}")
    size = input.array.size + abs(diagonal)
    n = input.array.size
    index = tuple(whole_numbers(input.backend, n, i) for i in places(diagonal))
    return AddAt.apply(input, shape=(size, size), index=index)  # type: ignore[no-any-return]


@under_autocast
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    require_tensor(input)
    if input.array.ndim != 2:
        raise ShapeError(f"expected a matrix, got {input.array.shape}")
    return diagonal(input).sum()
