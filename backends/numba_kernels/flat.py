"""What optimizers' kernels have in common: one pass over flat buffers, in place, bit for bit.

A rule is compiled without leave to fuse or to reorder, and says what its reference body says in the
same order. Every element then goes through the same IEEE operations, so the two give the same bits,
however long the training; except for what the last bit of pow, another library's than NumPy's, and
the order of a norm's sum leave in a bias correction and in a rate. It costs nothing: the memory is
what these kernels wait for.

Options and counters reach a rule as arrays of float64 without axes, and it rounds what it makes of
them to the parameters' dtype, once, as `tinygrad_bn.optim.formulas.rounding` does. They are read in
compiled code: a call that is made once and run often sees the learning rate of each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from tinygrad_bn.backend import Array, Kernel

from .calling import Call
from .compilation import compiled, plus

F = TypeVar("F", bound=Callable[..., Any])

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def exact(function: F) -> F:
    """The function, compiled to round after every operation as NumPy does."""
    return compiled(function, fastmath=False)


@exact
def with_l2(grad: Any, param: Any, decay: Any) -> Any:
    """The gradient of the loss + λ/2 ‖param‖², λ = ``decay``, or None."""
    return grad if decay is None else grad + decay * param


@exact
def with_decay(param: Any, grad: Any, keep: Any, decay: Any, decoupled: Any) -> Any:
    """Parameter and gradient with weight decay in the one, as a factor, or in the other."""
    if decay is None:
        return param, grad
    return (keep * param, grad) if decoupled else (param, grad + decay * param)


@exact
def average(mean: Any, x: Any, kept: Any, fresh: Any) -> Any:
    """A moving average one step on, from the shares of what was and of what comes."""
    return kept * mean + fresh * x


@exact
def norm(x: Any) -> Any:
    """The Euclidean norm: squares in the dtype of x, summed in float64, in vector registers."""
    total = 0.0
    for i in range(x.size):
        total = plus(total, np.float64(x[i] * x[i]))
    return np.sqrt(total)


def in_place(rule: Callable[..., None], slots: int) -> Kernel:
    """The kernel of a compiled rule: (param, grad, *state, *numbers, flags…), ``slots`` of state.

    The rule writes param and state, all flat; the kernel returns them, as the kernel point does:
    they are where its results belong, and it has no others.
    """
    buffers = slots + 2

    def run(*args: Any, **flags: bool) -> tuple[Array, ...]:
        function, operands = into((), *args, **flags)
        function(*operands)
        return args[0], *args[2:buffers]

    into = partial(update, rule, buffers)
    return Kernel(run, partial(accepts, buffers), into, (0, *range(2, buffers)))


def update(
    rule: Callable[..., None], buffers: int, outs: tuple[Array, ...], *args: Any, **flags: bool
) -> Call:
    return rule, (*map(flat, args[:buffers]), *map(number, args[buffers:]), *flags.values())


def number(x: Any) -> Array | None:
    """An option or a counter as an array; it may be a number, where bodies computed it."""
    return x if x is None or x.__class__ is np.ndarray else np.asarray(x, np.float64)


def flat(buffer: Array | None) -> Array | None:
    """A buffer along one axis, in the same memory."""
    if buffer is None or buffer.ndim == 1:
        return buffer
    return (buffer if buffer.flags.c_contiguous else buffer.T).reshape(-1)


def accepts(buffers: int, *args: Any, **flags: bool) -> bool:
    """Float32 or float64 of one size and without gaps, all by rows or all by columns; and whatever
    is to be written may be.
    """
    param, grad, *state = args[:buffers]
    dtype, shape = param.dtype, param.shape
    if dtype not in FLOATS:
        return False
    by_rows = param.flags.c_contiguous
    for buffer in (param, grad, *state):
        if buffer is None:
            continue
        how = buffer.flags
        if not (
            buffer.dtype == dtype
            and buffer.shape == shape
            and (how.c_contiguous if by_rows else how.f_contiguous)
            and how.aligned
            and (how.writeable or buffer is grad)
        ):
            return False
    return True
