"""Where compiled code writes to, if that may be where an operand lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import overload

from . import compilation

OPTIONS: Any = compilation.OPTIONS


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
