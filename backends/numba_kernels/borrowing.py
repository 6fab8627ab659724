"""Arrays in compiled code: which of them are counted, and where results go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.extending import overload
from numba.np import arrayobj

from . import compilation

OPTIONS: Any = compilation.OPTIONS
intrinsic: Any = extending.intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def borrowed(typing: Any, array: Any) -> Any:
    """The same array without an owner: whoever called keeps it alive.

    Its views have none either, and nothing counts them. A count goes up and down by atomic
    instructions, and each of them waits until memory has done all that it was asked: in a loop over
    rows that is dearer than a short row.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make: Any = arrayobj.make_array
        view = make(array)(context, builder, args[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), generate


def written(out: Any, operand: Any) -> Any:
    """``out``, or where that is None the operand: see `calling.place`."""
    raise NotImplementedError("expected to be called from compiled code")


def over(out: Any, operand: Any) -> Any:
    return operand


def beside(out: Any, operand: Any) -> Any:
    return out


@overload(written, jit_options=OPTIONS)
def typed_written(out: Any, operand: Any) -> Callable[[Any, Any], Any]:
    """By their types: of ``operand if out is None else out`` both would have to be writeable."""
    return over if isinstance(out, types.NoneType) else beside


@compilation.inlined
def copied(values: Any, place: Any) -> None:
    """Copy a vector to the beginning of another. An assignment to a slice would check the shapes,
    and to compile its message takes as long as a kernel.
    """
    for i in range(values.size):
        place[i] = values[i]
