"""Which dtype an operation on several operands runs in.

Within a category (bool < int < float) tensors promote as NumPy's dtypes do; a tensor of a higher
category decides alone; tensors of rank 0 and Python numbers decide only where their category is
higher. These are PyTorch's rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_bn import config
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import Array
from tinygrad_bn.errors import DtypeError

if TYPE_CHECKING:
    from tinygrad_bn.tensors import Tensor

BOOL, INT, FLOAT = range(3)
_CATEGORIES = {"b": BOOL, "i": INT, "u": INT, "f": FLOAT}


def category(dtype: np.dtype[Any]) -> int:
    """BOOL, INT or FLOAT.

    Raises
    ------
    DtypeError
        For complex numbers and objects, which the library has no operations for.
    """
    found = _CATEGORIES.get(dtype.kind)
    if found is None and dtype.name == "bfloat16":
        return FLOAT
    if found is None:
        raise DtypeError(f"expected a bool, integer or floating dtype, got {dtype}")
    return found


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether gradients exist for the dtype: float16, bfloat16, float32, float64."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name == "bfloat16")  # names are slow


def join(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The smallest dtype of the higher category that holds both where they are of one category."""
    if a == b:
        return a
    if category(a) != category(b):
        return a if category(a) > category(b) else b
    if {a.name, b.name} == {"bfloat16", "float16"}:
        return np.dtype(np.float32)
    return np.promote_types(a, b)


def result_type(*operands: Any) -> np.dtype[Any]:
    """The dtype in which an operation on these tensors and numbers runs."""
    ranked: list[np.dtype[Any] | None] = [
        None,
        None,
        None,
    ]  # of tensors, of rank-0 tensors, of numbers
    for x in operands:
        if isinstance(x, Variable):
            rank, dtype = 0 if x.array.ndim else 1, x.array.dtype
        else:
            rank, dtype = 2, number_dtype(x)
        known = ranked[rank]
        ranked[rank] = dtype if known is None else join(known, dtype)
    result: np.dtype[Any] | None = None
    for dtype_or_none in ranked:
        if dtype_or_none is not None and (
            result is None or category(dtype_or_none) > category(result)
        ):
            result = dtype_or_none
    if result is None:
        raise DtypeError("expected at least one tensor or number")
    return result


def number_dtype(x: object) -> np.dtype[Any]:
    if isinstance(x, (bool, np.bool_)):
        return np.dtype(np.bool_)
    if isinstance(x, (int, np.integer)):
        return np.dtype(np.int64)
    if isinstance(x, (float, np.floating)):
        return config.get_default_dtype()
    raise DtypeError(
        f"expected a tensor or a number, got {type(x).__name__}; see tensor() and from_numpy()"
    )


class Cast(Function):
    """The same values in another dtype; the gradient is cast back."""

    def forward(self, x: Array, *, dtype: np.dtype[Any]) -> Array:
        self.dtype = x.dtype
        return self.xp.astype(x, dtype)

    def backward(self, dy: Array, /) -> Array:
        return self.xp.astype(dy, self.dtype)


def cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """The tensor in ``dtype``: itself where it is in it already. A graph leads only to floats."""
    if x.array.dtype == dtype:
        return x
    return Cast.apply(x if is_floating(dtype) else x.detach(), dtype=dtype)


def promote(*operands: Any, floating: bool = False) -> tuple[Any, ...]:
    """The operands in their common dtype, or at least the default floating one; numbers stay
    numbers.
    """
    dtype = result_type(*operands)
    if floating and not is_floating(dtype):
        dtype = config.get_default_dtype()
    backend = next((x.backend for x in operands if isinstance(x, Variable)), None)
    if backend is None:
        raise DtypeError(f"expected a tensor among the operands, got {operands}")
    results = []
    for x in operands:
        if isinstance(x, Variable):
            results.append(cast(x, dtype))
        elif dtype.name == "bfloat16":  # which, in NumPy, a Python float would widen
            results.append(Variable.tensor_class.wrap(backend.asarray(x, dtype), backend))
        else:
            results.append(x.item() if isinstance(x, np.generic) else x)
    return tuple(results)


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands in their common dtype; quick where they are so already."""
    if b.__class__ is float or b.__class__ is int:
        if a.__class__ is not float and isinstance(a, Variable) and a.array.dtype.kind == "f":
            return a, b
    elif isinstance(a, Variable) and isinstance(b, Variable) and a.array.dtype is b.array.dtype:
        return a, b
    if not isinstance(a, Variable) and not isinstance(b, Variable):
        raise DtypeError(f"expected a tensor, got {type(a).__name__} and {type(b).__name__}")
    return promote(a, b)


def floating(x: Tensor) -> Tensor:
    """The tensor itself if it is of floats, else in the default dtype."""
    if not isinstance(x, Variable):
        raise DtypeError(f"expected a tensor, got {type(x).__name__}")
    return x if is_floating(x.array.dtype) else cast(x, config.get_default_dtype())


def require_tensor(x: object, name: str = "input") -> None:
    """Refuse what is not a tensor."""
    if not isinstance(x, Variable):
        raise DtypeError(f"expected {name} to be a tensor, got {type(x).__name__}")
