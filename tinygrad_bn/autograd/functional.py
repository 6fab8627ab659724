"""Jacobians, Hessians and their products with vectors, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_bn import config
from tinygrad_bn.autograd.endpoints import as_sequence
from tinygrad_bn.autograd.engine import grad
from tinygrad_bn.autograd.interpreters import interpreters
from tinygrad_bn.autograd.variable import Variable
from tinygrad_bn.backend import current
from tinygrad_bn.errors import GradientError, ShapeError


def prepared(inputs: Any, create_graph: bool) -> tuple[Any, ...]:
    """The inputs as values to differentiate at: leaves of their own, or, for further gradients, as
    they are.
    """
    fresh: list[Any] = []
    for x in as_sequence(inputs):
        if not isinstance(x, Variable):
            raise GradientError(f"expected tensors as inputs, got {type(x).__name__}")
        if create_graph and x.requires_grad:
            fresh.append(x * 1.0)  # type: ignore[operator]  # a value of its own, still in the graph
        else:
            leaf = x.wrap_like(x.array)
            leaf.requires_grad = True
            fresh.append(leaf)
    return tuple(fresh)


def directions(v: Any, likes: Sequence[Variable], what: str) -> tuple[Any, ...]:
    """The vector of a product: one tensor for each value, of its shape."""
    if v is None:
        if len(likes) != 1 or likes[0].array.size != 1:
            raise ShapeError(f"expected v, since {what} is not a single number")
        like = likes[0]
        return (like.wrap_like(like.backend.xp.ones_like(like.array)),)
    vs = as_sequence(v)
    if [x.array.shape for x in vs] != [x.array.shape for x in likes]:
        raise ShapeError(
            f"expected v of shapes {[x.array.shape for x in likes]}, as {what}, "
            f"got {[x.array.shape for x in vs]}"
        )
    return tuple(vs)


def unpacked(results: Sequence[Any], like: Any) -> Any:
    """One tensor where ``like`` is one, else a tuple."""
    return results[0] if isinstance(like, Variable) else tuple(results)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """The outputs, and the product vᵀJ of a vector of the outputs' shapes with the Jacobian.

    ``v`` may be left out where the output is a single number.
    """
    with config.enable_grad():
        xs = prepared(inputs, create_graph)
        ys = func(*xs)
        vs = directions(v, as_sequence(ys), "the output")
        products = _grads(as_sequence(ys), xs, vs, create_graph)
    return _outside(ys, create_graph), unpacked(products, inputs)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """The outputs, and the product Jv of the Jacobian with a vector of the inputs' shapes.

    Computed by differentiating the vector-Jacobian product, which is linear in its vector, once
    more.
    """
    with config.enable_grad():
        xs = prepared(inputs, create_graph)
        ys = func(*xs)
        outs = as_sequence(ys)
        vs = directions(v, xs, "the input")
        zeros = []
        for y in outs:
            zero = zeros_like(y)
            zero.requires_grad = True
            zeros.append(zero)
        pulled = _grads(outs, xs, zeros, True)
        products = _grads(pulled, zeros, vs, create_graph)
    return _outside(ys, create_graph), unpacked(products, ys)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False
) -> tuple[Any, Any]:
    """The output, a single number, and the product vᵀH of a vector with the Hessian."""
    with config.enable_grad():
        xs = prepared(inputs, create_graph)
        y = func(*xs)
        vs = directions(v, xs, "the input")
        first = _grads((y,), xs, None, True)
        products = _grads(first, xs, vs, create_graph)
    return _outside(y, create_graph), unpacked(products, inputs)


hvp = vhp
"""The product Hv: the Hessian is symmetric, so it is `vhp`."""


def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, vectorize: bool = False
) -> Any:
    """All partial derivatives: d output / d input, of shape output.shape + input.shape.

    A tensor for one input and one output, else tuples, outputs first. ``vectorize`` is accepted as
    PyTorch's hint and changes nothing: it takes a walk of the graph for every element of the
    output.
    """
    with config.enable_grad():
        xs = prepared(inputs, create_graph)
        ys = func(*xs)
        rows = tuple(_rows(y, xs, create_graph) for y in as_sequence(ys))
    nested = tuple(unpacked(row, inputs) for row in rows)
    return unpacked(nested, ys)


def hessian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, vectorize: bool = False
) -> Any:
    """All second derivatives of a single number, of shape input.shape + input.shape; nested tuples
    for several inputs.
    """

    def gradients(*xs: Any) -> Any:
        y = func(*xs)
        if not isinstance(y, Variable) or y.array.size != 1:
            raise ShapeError("expected a function to a single number")
        return unpacked(_grads((y,), xs, None, True), inputs)

    return jacobian(gradients, inputs, create_graph=create_graph)


def _grads(ys: Any, xs: Any, vs: Any, create_graph: bool) -> tuple[Any, ...]:
    """`grad` where what no graph leads to has the gradient zero."""
    pairs = [
        (y, None if vs is None else v)
        for y, v in zip(ys, vs if vs is not None else ys, strict=True)
        if y.requires_grad
    ]
    if not pairs:
        return tuple(map(zeros_like, xs))
    return grad(
        [y for y, _ in pairs],
        xs,
        None if vs is None else [v for _, v in pairs],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def zeros_like(x: Any) -> Any:
    """Zeros of a tensor's shape, where it is."""
    with current(x.backend):
        return x.wrap_like(x.backend.xp.zeros_like(x.array))


def _rows(y: Any, xs: tuple[Any, ...], create_graph: bool) -> tuple[Any, ...]:
    """The derivatives of every element of ``y``, stacked."""
    size = y.array.size
    with current(y.backend):
        unit = y.backend.xp.eye(size, dtype=y.array.dtype)
    rows = [
        _grads((y,), xs, (y.wrap_like(unit[i].reshape(y.array.shape)),), create_graph)
        for i in range(size)
    ]
    stacked = []
    for k, x in enumerate(xs):
        shape = (*y.array.shape, *x.array.shape)
        if rows:
            xp = interpreters[0](x.backend).xp
            stacked.append(xp.reshape(xp.stack([row[k] for row in rows]), shape))
        else:
            with current(x.backend):
                stacked.append(x.wrap_like(x.backend.xp.zeros(shape, dtype=x.array.dtype)))
    return tuple(stacked)


def _outside(ys: Any, create_graph: bool) -> Any:
    if create_graph:
        return ys
    return unpacked([y.wrap_like(y.array) for y in as_sequence(ys)], ys)
