"""The differentiable interpreter: the vocabulary of reference bodies, spoken by Tensors.

To differentiate a gradient, the chain rule replays a node with this in place of NumPy: its forward
and backward, unchanged, then build a graph of their own. Every function here is one of the
library's operations under NumPy's name and arguments; those without a gradient work on the arrays
and return Tensors outside of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_bn import ops
from tinygrad_bn.autograd.interpreters import interpreters
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import VOCABULARY, Backend
from tinygrad_bn.ops.promotion import cast

WITHOUT_GRADIENT = (
    "all any argmax argmin argsort isfinite isinf isnan logical_and logical_not logical_or "
    "logical_xor nonzero"
).split()
CONSTANTS = "arange eye full ones zeros".split()


class TensorSpace:
    """``xp`` over Tensors of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        for name in WITHOUT_GRADIENT:
            setattr(self, name, self._plain(getattr(backend.xp, name)))
        for name in CONSTANTS:
            setattr(self, name, self._constant(getattr(backend.xp, name)))

    def _plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            arrays = [x.array if isinstance(x, Variable) else x for x in args]
            return self._wrap(function(*arrays, **kwargs))

        return run

    def _constant(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._wrap(function(*args, **kwargs))

        return run

    def _wrap(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(self._wrap(x) for x in result)
        return Variable.tensor_class.wrap(self._backend.asarray(result), self._backend)

    # Constants in the likeness of others

    def zeros_like(self, x: Any) -> Any:
        return self._wrap(self._backend.xp.zeros_like(x.array))

    def ones_like(self, x: Any) -> Any:
        return self._wrap(self._backend.xp.ones_like(x.array))

    # Reductions

    @staticmethod
    def sum(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return x if axis == () else ops.reduce.sum(x, axis, keepdims, dtype=dtype)

    @staticmethod
    def mean(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return ops.reduce.mean(x, axis, keepdims, dtype=dtype)

    @staticmethod
    def prod(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return x if axis == () else ops.reduce.prod(x, axis, keepdims, dtype=dtype)

    @staticmethod
    def cumsum(x: Any, axis: int, dtype: Any = None) -> Any:
        return ops.reduce.cumsum(x, axis, dtype=dtype)

    @staticmethod
    def max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return ops.order.amax(x, axis, keepdims)

    @staticmethod
    def min(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return ops.order.amin(x, axis, keepdims)

    @staticmethod
    def sort(x: Any, axis: int = -1) -> Any:
        return ops.order.sort(x, axis).values

    logaddexp = staticmethod(ops.statistics.logaddexp)

    # Elements

    abs = staticmethod(ops.unary.abs)
    exp = staticmethod(ops.unary.exp)
    expm1 = staticmethod(ops.unary.expm1)
    log = staticmethod(ops.unary.log)
    log1p = staticmethod(ops.unary.log1p)
    sqrt = staticmethod(ops.unary.sqrt)
    square = staticmethod(ops.elementwise.square)
    sin = staticmethod(ops.trigonometry.sin)
    cos = staticmethod(ops.trigonometry.cos)
    tan = staticmethod(ops.trigonometry.tan)
    arcsin = staticmethod(ops.trigonometry.asin)
    arccos = staticmethod(ops.trigonometry.acos)
    arctan = staticmethod(ops.trigonometry.atan)
    sinh = staticmethod(ops.trigonometry.sinh)
    cosh = staticmethod(ops.trigonometry.cosh)
    tanh = staticmethod(ops.trigonometry.tanh)
    sigmoid = staticmethod(ops.unary.sigmoid)
    erf = staticmethod(ops.unary.erf)
    erfinv = staticmethod(ops.unary.erfinv)
    sign = staticmethod(ops.unary.sign)
    floor = staticmethod(ops.unary.floor)
    ceil = staticmethod(ops.unary.ceil)
    trunc = staticmethod(ops.unary.trunc)
    round = staticmethod(ops.unary.round)
    power = staticmethod(ops.elementwise.pow)
    maximum = staticmethod(ops.elementwise.maximum)
    minimum = staticmethod(ops.elementwise.minimum)
    remainder = staticmethod(ops.division.remainder)
    fmod = staticmethod(ops.division.fmod)
    arctan2 = staticmethod(ops.elementwise.atan2)
    where = staticmethod(ops.elementwise.where)
    clip = staticmethod(ops.elementwise.clamp)

    @staticmethod
    def astype(x: Any, dtype: Any) -> Any:
        return cast(x, dtype)

    # Shapes

    reshape = staticmethod(ops.shape.reshape)
    broadcast_to = staticmethod(ops.shape.broadcast_to)
    expand_dims = staticmethod(ops.shape.unsqueeze)
    squeeze = staticmethod(ops.shape.squeeze)
    contiguous = staticmethod(ops.transfer.contiguous)
    tile = staticmethod(ops.rearrange.tile)

    @staticmethod
    def concatenate(xs: Any, axis: int = 0) -> Any:
        return ops.join.cat(xs, axis)

    @staticmethod
    def stack(xs: Any, axis: int = 0) -> Any:
        return ops.join.stack(xs, axis)

    @staticmethod
    def flip(x: Any, axis: Any) -> Any:
        return ops.rearrange.flip(x, axis)

    @staticmethod
    def roll(x: Any, shift: Any, axis: Any = None) -> Any:
        return ops.rearrange.roll(x, shift, axis)

    @staticmethod
    def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
        return ops.rearrange.repeat_interleave(x, repeats, axis)

    @staticmethod
    def tril(x: Any, k: int = 0) -> Any:
        return ops.rearrange.tril(x, k)

    @staticmethod
    def triu(x: Any, k: int = 0) -> Any:
        return ops.rearrange.triu(x, k)

    @staticmethod
    def pad(x: Any, pad_width: Any, mode: str, constant_values: float = 0) -> Any:
        return ops.rearrange.Pad.apply(x, widths=pad_width, value=constant_values)

    @staticmethod
    def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
        return ops.placement.TakeAlongAxis.apply(x, indices, axis=axis)

    @staticmethod
    def add_along_axis(shape: tuple[int, ...], indices: Any, values: Any, axis: int) -> Any:
        return ops.placement.AddAlongAxis.apply(indices, values, shape=shape, axis=axis)

    @staticmethod
    def add_at(shape: tuple[int, ...], index: Any, values: Any) -> Any:
        return ops.index.AddAt.apply(values, shape=shape, index=index)

    @staticmethod
    def transpose(x: Any, axes: tuple[int, ...]) -> Any:
        return ops.shape.permute(x, axes)

    # Products

    matmul = staticmethod(ops.linear.matmul)
    einsum = staticmethod(ops.contraction.einsum)


class DifferentiableBackend:
    """A backend whose arrays are Tensors; it has no kernels, so kernel points run their reference
    bodies.
    """

    guard = None
    kernels: dict[str, Any] = {}

    def __init__(self, backend: Backend) -> None:
        self.name, self.device = f"differentiable {backend.name}", backend.device
        self.array_type = Variable.tensor_class
        self.xp = TensorSpace(backend)
        self.accumulator = backend.accumulator

    @staticmethod
    def copy(x: Any) -> Any:
        return ops.transfer.clone(x)


_interpreters: dict[int, DifferentiableBackend] = {}


def differentiable(backend: Backend) -> Backend:
    """The differentiable interpreter over ``backend``."""
    found = _interpreters.get(id(backend))
    if found is None:
        found = _interpreters[id(backend)] = DifferentiableBackend(backend)
    return found  # type: ignore[return-value]


def missing() -> frozenset[str]:
    """Words of the vocabulary that a replay could not say."""
    return frozenset(name for name in VOCABULARY if not hasattr(TensorSpace, name)) - {
        *WITHOUT_GRADIENT,
        *CONSTANTS,
    }


interpreters.append(differentiable)
