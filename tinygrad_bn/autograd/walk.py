"""The walk from outputs to leaves that the chain rule takes, for gradients of any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Token
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, TypeAlias

from tinygrad_bn import config
from tinygrad_bn.autograd.destinations import keeper
from tinygrad_bn.autograd.function import Function
from tinygrad_bn.autograd.interpreters import interpreters, replay
from tinygrad_bn.autograd.variable import LAST_WRITE, Variable
from tinygrad_bn.backend import Array, Backend, current
from tinygrad_bn.errors import GradientError, ShapeError

Key: TypeAlias = Variable | tuple[Function, int]
"""Which value a gradient is of: a leaf, or (its creator, which output)."""


def key_of(x: Variable) -> Key:
    return x if x.creator is None else (x.creator, x.output)


def collect(roots: Iterable[Variable]) -> list[Function]:
    """Every node that the roots depend on, the youngest first: a node is younger than what it was
    made from.
    """
    nodes: set[Function] = set()
    stack = [root.creator for root in roots if root.creator is not None]
    while stack:
        node = stack.pop()
        if node in nodes:
            continue
        nodes.add(node)
        if node.inputs is None:
            node.require_intact()
        for x, needed in zip(node.inputs or (), node.needs, strict=True):
            if needed and x.creator is not None and x.creator not in nodes:
                stack.append(x.creator)
    return sorted(nodes, key=attrgetter("born"), reverse=True)


def leading_to(targets: Mapping[Key, Variable], nodes: list[Function]) -> set[Function]:
    """Those of ``nodes`` through which a target is reached."""
    useful: set[Function] = set()
    for node in reversed(nodes):
        for x, needed in zip(node.inputs or (), node.needs, strict=True):
            if needed and (x.creator in useful or key_of(x) in targets):
                useful.add(node)
                break
    return useful


class Walk:
    """One walk through a graph, the youngest node first.

    Parameters
    ----------
    roots : the outputs that it starts from.
    targets : whose gradients are wanted; those of all leaves by default.
    retain_graph : leave nodes what they hold.
    create_graph : gradients are Tensors with a graph of their own; otherwise arrays.
    keeping : gradients of leaves are to be kept, and may be left in their slots (`places_for`).

    Attributes
    ----------
    found : the gradients of the leaves, or of the targets.
    """

    def __init__(
        self,
        roots: Sequence[Variable],
        targets: Sequence[Variable] | None,
        retain_graph: bool,
        create_graph: bool,
        keeping: bool = False,
    ) -> None:
        self.roots, self.guard = roots, roots[0].backend.guard
        self.wanted = None if targets is None else {key_of(t): t for t in targets}
        self.retain_graph, self.create_graph = retain_graph, create_graph
        self.plain = not create_graph and not config.anomaly_mode.get()
        self.keeping = keeping and self.plain and config.tracer.get() is None
        self.found: dict[Key, Any] = {}
        self.pending: dict[Function, Any] = {}
        """A gradient for each node ahead; a list where a node has several outputs."""
        self.ahead: list[tuple[int, Function]] = []
        """The nodes ahead as a heap, the youngest on top."""

    def __enter__(self) -> None:
        """While it runs, a graph is recorded if gradients are to have one, and nothing is cast; the
        device of the first root is the current one.
        """
        if self.guard is not None:
            self.guard.__enter__()
        self.tokens: tuple[Token[Any], ...] = (
            config.grad_mode.set(self.create_graph),
            config.autocasting.set(None),
            keeper.set(self.place if self.keeping else None),
        )

    def __exit__(self, *error: Any) -> None:
        mode, casting, place = self.tokens
        config.grad_mode.reset(mode)
        config.autocasting.reset(casting)
        keeper.reset(place)
        if self.guard is not None:
            self.guard.__exit__(*error)

    def tensor(self, key: Key) -> Variable:
        """What a key is of."""
        return key if isinstance(key, Variable) else (self.wanted or {})[key]

    def run(self, grads: Sequence[Any]) -> dict[Key, Any]:
        """What is found, from the gradients of the roots."""
        ahead, pending, plain = self.ahead, self.pending, self.plain
        useful = None if self.wanted is None else leading_to(self.wanted, collect(self.roots))
        for root, grad in zip(self.roots, grads, strict=True):
            if root.backend.guard is None:
                self.send(root, grad)
                continue
            with root.backend.guard:
                self.send(root, grad)
        while ahead:
            node = heappop(ahead)[1]
            dy, outputs, backend = pending.pop(node), node.outputs, node.backend
            if outputs is not None or node.hooks is not None:
                dy = complete(node, dy, self.create_graph)
            if useful is not None:
                self.note(node, dy)
                if node not in useful:
                    continue
            here = plain and backend.guard is None and node.origin is None
            if here and (LAST_WRITE[0] < node.born or node.intact()):
                dxs = node.backward(dy) if outputs is None else node.backward(*dy)
                self.distribute(node, dxs if dxs.__class__ is tuple else (dxs,))
            else:
                dxs = differentiate(node, dy, self.create_graph)
                with current(node.origin or backend):  # where gradients of inputs add up
                    self.distribute(node, dxs if dxs.__class__ is tuple else (dxs,))
            if not self.retain_graph:
                node.__dict__.clear()  # of what it kept; it cannot be differentiated again
        return self.found

    def note(self, node: Function, dy: Any) -> None:
        """Keep the gradients of outputs that are wanted."""
        for position, grad in enumerate((dy,) if node.outputs is None else dy):
            if (node, position) in (self.wanted or {}):
                self.found[node, position] = grad

    def place(self, x: Variable) -> Array | None:
        """The slot of a leaf whose first gradient this is, if nobody is to see it before it is
        kept.
        """
        slot = x.slot
        if (
            slot is None
            or x.backend.guard is not None  # a GPU's kernels make what they compute
            or x._grad is not None
            or x._hooks
            or x in self.found
            or slot.dtype is not x.array.dtype
        ):
            return None
        return slot

    def fitted(self, node: Function, x: Variable, dx: Any) -> Any:
        """The gradient in the shape and dtype of ``x``; cast into the place where it is to be kept,
        if there is one.
        """
        place = self.place(x) if self.keeping and dx.shape == x.array.shape else None
        if place is None:
            return fitted(node, x, dx)
        x.backend.store(place, dx)
        return place

    def distribute(self, node: Function, dxs: tuple[Any, ...]) -> None:
        """Add the gradients of a node's inputs to what is known of them."""
        inputs, pending, found = node.inputs or (), self.pending, self.found
        if len(dxs) != len(inputs):
            raise GradientError(
                f"expected {len(inputs)} gradients from {node.name}.backward, got {len(dxs)}"
            )
        of_all = self.wanted is None
        for x, needed, dx in zip(inputs, node.needs, dxs):  # noqa: B905
            if not needed or dx is None:
                continue
            if of_all and dx is x.slot and x not in found:  # as `places_for` gave it: it fits
                found[x] = dx
                continue
            try:
                if dx.shape != x.array.shape or dx.dtype is not x.array.dtype:
                    dx = self.fitted(node, x, dx)
            except AttributeError:
                raise GradientError(
                    f"expected arrays from {node.name}.backward, got {type(dx).__name__}"
                ) from None
            creator = x.creator
            if creator is None and of_all:
                found[x] = found[x] + dx if x in found else dx
            elif creator is None or creator.outputs is not None:
                self.send(x, dx)
            elif creator in pending:
                pending[creator] = pending[creator] + dx
            else:
                pending[creator] = dx
                heappush(self.ahead, (-(creator.born or creator.freed()), creator))

    def send(self, x: Variable, grad: Any) -> None:
        """Add a gradient to what is known of the gradient of ``x``."""
        creator, pending = x.creator, self.pending
        if creator is None:
            found = self.found
            if self.wanted is None or x in self.wanted:
                found[x] = found[x] + grad if x in found else grad
            return
        known = pending.get(creator)
        if known is None:
            heappush(self.ahead, (-(creator.born or creator.freed()), creator))
        if creator.outputs is None:
            pending[creator] = grad if known is None else known + grad
        else:
            dy = pending.setdefault(creator, [None] * len(creator.outputs))
            dy[x.output] = grad if dy[x.output] is None else dy[x.output] + grad


def complete(node: Function, dy: Any, as_tensors: bool) -> Any:
    """The gradients of the node's outputs, after their hooks; zeros for those nothing used."""
    parts = [dy] if node.outputs is None else dy
    for position, hook in list(node.hooks or ()):
        if parts[position] is not None:
            parts[position] = hooked(hook, parts[position], node.backend)
    if node.outputs is None:
        return parts[0]
    for position, (shape, dtype) in enumerate(node.outputs):
        if parts[position] is None:
            with current(node.backend):
                zeros = node.backend.xp.zeros(shape, dtype=dtype)
            parts[position] = (
                Variable.tensor_class.wrap(zeros, node.backend) if as_tensors else zeros
            )
    return parts


def hooked(hook: Callable[[Any], Any], grad: Any, backend: Backend) -> Any:
    """The gradient as ``hook`` leaves it: what it returns, or the same where it returns None."""
    as_tensor = grad if isinstance(grad, Variable) else Variable.tensor_class.wrap(grad, backend)
    result = hook(as_tensor)
    if result is None:
        return grad
    array = as_tensor.array
    if (
        not isinstance(result, Variable)
        or result.array.shape != array.shape
        or result.array.dtype != array.dtype
    ):
        raise GradientError(
            f"expected a hook to return None or a gradient of {array.dtype} {array.shape}, "
            f"got {getattr(result, 'array', result)!r}"
        )
    return result if isinstance(grad, Variable) else result.array


def differentiate(node: Function, dy: Any, create_graph: bool) -> Any:
    """What the node's backward gives, where there is more to it than calling it."""
    several = node.outputs is not None
    if create_graph:
        node = replay(node)
    else:
        node.require_intact()
    if node.backend.guard is None:
        dx = node.backward(*dy) if several else node.backward(dy)
    else:  # a walk may pass through several devices
        with node.backend.guard:
            dx = node.backward(*dy) if several else node.backward(dy)
    if config.anomaly_mode.get():
        refuse_nan(node, dx if dx.__class__ is tuple else (dx,))
    return dx


def refuse_nan(node: Function, dx: tuple[Any, ...]) -> None:
    for position, grad in enumerate(dx):
        if grad is not None:
            array = grad.array if isinstance(grad, Variable) else grad
            if bool(node.backend.xp.any(node.backend.xp.isnan(array))):
                raise GradientError(
                    f"{node.name} made NaN as the gradient of input {position}. {node.trace}"
                )


def fitted(node: Function, x: Variable, dx: Any) -> Any:
    """The gradient in the shape and dtype of what it is a gradient of."""
    shape, dtype = x.array.shape, x.array.dtype
    xp = interpreters[0](x.backend).xp if isinstance(dx, Variable) else x.backend.xp
    if dx.shape != shape:
        if not node.broadcasts:
            raise ShapeError(f"expected {node.name}.backward to give shape {shape}, got {dx.shape}")
        dx = unbroadcast(xp, dx, shape)
    return dx if dx.dtype == dtype else xp.astype(dx, dtype)


def unbroadcast(xp: Any, grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the axes that broadcasting added or stretched."""
    if grad.shape == shape:
        return grad
    extra = len(grad.shape) - len(shape)
    stretched = (i + extra for i, n in enumerate(shape) if n == 1 and grad.shape[i + extra] != 1)
    return xp.reshape(xp.sum(grad, axis=(*range(extra), *stretched)), shape)
