"""Writing into tensors: ``x[...] = value``, and the methods whose names end in an underscore.

Tensors outside of the graph are written to, and graphs that need what was there refuse to go on; a
tensor inside of one is not, nor does a value bring its history along. Augmented assignments such as
``x += y`` write in place under the same conditions; where a graph is involved, they bind the name
to a new tensor instead.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.variable import Variable, clock
from tinygrad_bn.backend import Array, Backend
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, GradientError, ShapeError
from tinygrad_bn.ops import division, elementwise
from tinygrad_bn.ops.index import beyond, parse
from tinygrad_bn.ops.promotion import category, is_floating, require_tensor
from tinygrad_bn.philox import Generator, generator_on

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor


def require_writable(x: Tensor) -> None:
    """Refuse a tensor in the graph, and memory that is read-only or shared by its elements.

    Raises
    ------
    GradientError, ArgumentError
        The first for the graph, the second for the memory.
    """
    if config.grad_mode.get() and x.requires_grad:
        raise GradientError(
            "expected a tensor outside of the graph to write to, got one that requires a gradient; "
            "use no_grad(), detach(), or an operation that is not in place"
        )
    array = x.array
    if not getattr(array.flags, "writeable", True):
        raise ArgumentError("expected memory that can be written to, got read-only; use clone()")
    stretched = (step == 0 and n > 1 for step, n in zip(array.strides, array.shape, strict=True))
    if array.size and any(stretched):
        raise ArgumentError(
            "expected elements in places of their own, got expanded ones; use clone()"
        )


def as_value(value: Any, backend: Backend, dtype: np.dtype[Any]) -> Array:
    """The array to write: on the same device, without history, of a kind that ``dtype`` holds.

    Raises
    ------
    BackendError, GradientError, DtypeError, ArgumentError
        For each of these in turn, and for a whole number that the dtype does not hold.
    """
    if isinstance(value, Variable):
        if value.backend is not backend:
            raise BackendError(f"expected a value on {backend.device}, got {value.backend.device}")
        if config.grad_mode.get() and value.requires_grad:
            raise GradientError(
                "expected a value without history to write, got one that requires a gradient; "
                "use where(), index_add(), cat() and the like, or detach()"
            )
        array = value.array
    else:
        array = backend.asarray(value)
        if array.dtype.kind == "i" and not hasattr(value, "dtype") and dtype.kind in "iu":
            return in_range(array, backend, dtype)
    kinds_fit = category(array.dtype) <= category(dtype)
    if not kinds_fit or (dtype.kind == "u" and array.dtype.kind == "i"):
        raise DtypeError(f"expected a value that casts to {dtype}, got {array.dtype}; use to()")
    return array


def in_range(array: Array, backend: Backend, dtype: np.dtype[Any]) -> Array:
    """Python's whole numbers, which have no width, in an integer dtype that holds them."""
    host, limits = backend.to_numpy(array), np.iinfo(dtype)
    if host.size and not limits.min <= host.min() <= host.max() <= limits.max:
        raise ArgumentError(f"expected whole numbers that {dtype} holds, got up to {host.max()}")
    return array


def without_leading_ones(value: Array, backend: Backend, ndim: int) -> Array:
    extra = value.ndim - ndim
    if extra > 0 and value.shape[:extra] == (1,) * extra:
        return backend.xp.reshape(value, value.shape[extra:])
    return value


def write(x: Tensor, value: Any) -> Tensor:
    """Overwrite x with a value that broadcasts to it; the tensor itself."""
    require_writable(x)
    array = as_value(value, x.backend, x.array.dtype)
    extra = x.array.ndim - array.ndim
    if extra < 0 or any(
        m not in (1, n) for m, n in zip(array.shape, x.array.shape[extra:], strict=True)
    ):
        raise ShapeError(f"expected a value that broadcasts to {x.array.shape}, got {array.shape}")
    return x.overwrite(array)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``: the value broadcasts to what the index selects.

    Where an index repeats, one of its values stays. Floats may be narrowed to floats, and whole
    numbers to whole numbers, as NumPy's rule "same_kind" has it; Python's numbers must fit.

    Raises
    ------
    GradientError, RangeError, ShapeError, DtypeError, ArgumentError
        For the graph, the index, the shape, the dtype or the memory, before anything is written.
    """
    require_tensor(input)
    require_writable(input)
    basic, advanced = parse(input, index if isinstance(index, tuple) else (index,))
    backend = input.backend
    part = input.array if basic is None else input.array[basic]
    array = without_leading_ones(as_value(value, backend, part.dtype), backend, part.ndim)
    if advanced is None:
        write(input.wrap_like(part).share(input), input.wrap_like(array))
        return
    try:
        with backend.guard or nullcontext():
            part[advanced] = array
    except IndexError as error:
        raise beyond(input, error) from None
    except ValueError:
        raise ShapeError(f"expected a value that fits the index, got {array.shape}") from None
    input.stamp.written = clock()


def fill_(input: Tensor, value: Tensor | float) -> Tensor:
    """Every element set to one number, in place."""
    if isinstance(value, Variable) and value.array.ndim:
        raise ShapeError(f"expected a value of rank 0, got {value.array.shape}")
    return write(input, value)


def zero_(input: Tensor) -> Tensor:
    """Every element set to 0, in place."""
    return write(input, False)


def copy_(input: Tensor, src: Tensor) -> Tensor:
    """The values of ``src``, from any device, in place."""
    require_tensor(src, "src")
    if src.backend is input.backend:
        return write(input, src)
    return write(input, src.to(device=input.device))


def add_(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input + alpha * other, in place."""
    require_writable(input)
    return write(input, elementwise.add(input, other, alpha=alpha))


def sub_(input: Tensor, other: Tensor | float, *, alpha: float = 1) -> Tensor:
    """input - alpha * other, in place."""
    require_writable(input)
    return write(input, elementwise.sub(input, other, alpha=alpha))


def mul_(input: Tensor, other: Tensor | float) -> Tensor:
    """input * other, in place."""
    require_writable(input)
    return write(input, elementwise.mul(input, other))


def div_(input: Tensor, other: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, in place."""
    require_writable(input)
    return write(input, division.div(input, other, rounding_mode=rounding_mode))


def clamp_(
    input: Tensor, min: Tensor | float | None = None, max: Tensor | float | None = None
) -> Tensor:
    """input held within [min, max], in place."""
    require_writable(input)
    return write(input, elementwise.clamp(input, min, max))


def in_place(input: Tensor, other: Any) -> bool:
    """Whether an augmented assignment may write to the tensor: no graph is involved."""
    graph = input.requires_grad or (isinstance(other, Variable) and other.requires_grad)
    return not (graph and config.grad_mode.get())


def iadd(input: Tensor, other: Tensor | float) -> Tensor:
    """``input += other``."""
    return add_(input, other) if in_place(input, other) else elementwise.add(input, other)


def isub(input: Tensor, other: Tensor | float) -> Tensor:
    """``input -= other``."""
    return sub_(input, other) if in_place(input, other) else elementwise.sub(input, other)


def imul(input: Tensor, other: Tensor | float) -> Tensor:
    """``input *= other``."""
    return mul_(input, other) if in_place(input, other) else elementwise.mul(input, other)


def idiv(input: Tensor, other: Tensor | float) -> Tensor:
    """``input /= other``."""
    return div_(input, other) if in_place(input, other) else division.div(input, other)


# Random numbers


def require_floating(x: Tensor) -> None:
    require_writable(x)
    if not is_floating(x.array.dtype):
        raise DtypeError(f"expected floats to fill with random numbers, got {x.array.dtype}")


def uniform_(
    input: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Uniform numbers within [low, high), in place.

    PyTorch calls the bounds ``from``, which is not a name in Python, and ``to``.
    """
    require_floating(input)
    if not low <= high:
        raise ArgumentError(f"expected low ≤ high, got {low} and {high}")
    drawn = generator_on(input.backend, generator).uniform(input.array.shape, input.array.dtype)
    return write(input, input.wrap_like(drawn) * (high - low) + low)


def normal_(
    input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Normal numbers of this mean and standard deviation, in place."""
    require_floating(input)
    if not std >= 0:
        raise ArgumentError(f"expected a standard deviation ≥ 0, got {std}")
    drawn = generator_on(input.backend, generator).normal(input.array.shape, input.array.dtype)
    return write(input, input.wrap_like(drawn) * std + mean)


def bernoulli_(input: Tensor, p: float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """1 with probability p, else 0, in place."""
    require_writable(input)
    if not 0 <= p <= 1:
        raise ArgumentError(f"expected a probability within [0, 1], got {p}")
    source = generator_on(input.backend, generator)
    drawn = source.uniform(input.array.shape, np.dtype(np.float32))
    return write(input, input.wrap_like(drawn) < p)
